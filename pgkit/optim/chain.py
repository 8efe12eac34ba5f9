"""Joining transforms into an optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import (
    Hyperparameter,
    Optimizer,
    Schedule,
    Signals,
    State,
    Transform,
    Vectors,
    own,
    per_leaf,
    per_member,
)
from pgkit.optim.fused import act, stages
from pgkit.types import Params


def chain(*parts: Transform | Optimizer) -> Optimizer:
    """The optimizer that applies ``parts`` one after the other, each to what the one before returns."""
    if all(isinstance(part, Transform) or part.transforms for part in parts):
        return _joined(tuple(t for part in parts for t in ([part] if isinstance(part, Transform) else part.transforms)))
    return _sequence([part if isinstance(part, Optimizer) else chain(part) for part in parts])


def _joined(transforms: tuple[Transform, ...]) -> Optimizer:
    """One optimizer of all transforms; state ``{"hyper", "schedules", "vectors", "slots"}``."""
    hyper: dict[str, Hyperparameter] = _merged("hyperparameter", [part.hyper for part in transforms])
    slots: dict[str, float | str] = _merged("slot", [part.slots for part in transforms])
    vectors: dict[str, float] = _merged("vector", [part.vectors for part in transforms])
    together = stages(transforms) or [[]]

    @torch.no_grad()
    def init(params: Params) -> State:
        members, device = population(params)
        state = first_hyper(hyper, members, device)
        state["vectors"] = {name: per_member(name, value, members, device) for name, value in vectors.items()}
        state["slots"] = {
            slot: {name: first_slot(value, param, state["hyper"]) for name, param in params.items()}
            for slot, value in slots.items()
        }
        return state

    def move(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, Any, State]:
        return run(grads, state, params, signals, moves=True)

    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        updates, _, after = run(grads, state, params, signals, moves=False)
        return updates, after

    @torch.no_grad()
    def run(
        grads: Params, state: State, params: Params, signals: Signals, moves: bool
    ) -> tuple[Params, Tensor | None, State]:
        updates, largest = own(grads, params), None
        now, vectors_now = next_hyper(hyper, state, signals), dict(state["vectors"])
        for stage in together:
            survey = stage[0].survey if stage else None
            seen: Signals = {**signals, **survey(updates)} if survey else signals
            numbers = [part.numbers(now, vectors_now, seen) for part in stage]
            largest = act(stage, updates, params, state["slots"], numbers, moves and stage is together[-1])
        return updates, largest, {**state, "hyper": now, "vectors": vectors_now}

    needs = frozenset().union(needs_of(hyper), *(part.needs for part in transforms))
    return Optimizer(init, update, transforms=transforms, needs=needs, move=move)


def first_hyper(hyper: Mapping[str, Hyperparameter], members: int, device: torch.device) -> dict[str, Any]:
    """The beginning of a state: ``"hyper"`` by name, ``"schedules"`` with the numbers of each schedule."""

    def vector(name: str, value: Any) -> Tensor:
        return per_member(name, value, members, device)

    return {
        "hyper": {name: vector(name, getattr(value, "start", value)) for name, value in hyper.items()},
        "schedules": {
            name: {key: vector(f"{key} of {name}", number) for key, number in value.settings.items()}
            | {"start": vector(name, value.start)}
            for name, value in hyper.items()
            if isinstance(value, Schedule)
        },
    }


def next_hyper(hyper: Mapping[str, Hyperparameter], state: State, signals: Signals) -> Vectors:
    """The hyperparameters ``(P,)`` of this update."""
    now = dict(state["hyper"])
    for name, rule in hyper.items():
        if isinstance(rule, Schedule):
            now[name] = rule.rule(now[name], state["schedules"][name], signals)
    return now


def needs_of(hyper: Mapping[str, Hyperparameter]) -> frozenset[str]:
    """The signals that the schedules among some hyperparameters read."""
    return frozenset().union(*(value.needs for value in hyper.values() if isinstance(value, Schedule)))


def first_slot(value: float | str, param: Tensor, hyper: Vectors) -> Tensor:
    """The first value of a slot, see :class:`~pgkit.optim.base.Transform`."""
    slot = torch.empty_like(param, memory_format=torch.contiguous_format)
    if value == "param":
        return slot.copy_(param)
    return slot.copy_(per_leaf(hyper[value], param)) if isinstance(value, str) else slot.fill_(value)


def population(params: Params) -> tuple[int, torch.device]:
    """Number of members, and device, of parameters.

    Raises:
        PgkitError: the leaves do not agree.
    """
    members = {leaf.shape[0] if leaf.dim() else 0 for leaf in params.values()}
    if len(members) != 1:
        shapes = {name: tuple(leaf.shape) for name, leaf in params.items()}
        raise PgkitError(f"every parameter needs the same leading axis of members, got {shapes}")
    return members.pop(), next(iter(params.values())).device


def _sequence(parts: Sequence[Optimizer]) -> Optimizer:
    """Optimizers one after the other; states in a list."""

    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        states = []
        for part, before in zip(parts, state, strict=True):
            grads, after = part.update(grads, before, params, **signals)
            states.append(after)
        return grads, states

    return Optimizer(
        init=lambda params: [part.init(params) for part in parts],
        update=update,
        take=lambda state, members: [part.take(own, members) for part, own in zip(parts, state, strict=True)],
        dump=lambda state: [part.dump(own) for part, own in zip(parts, state, strict=True)],
        load=lambda data, params: [part.load(own, params) for part, own in zip(parts, data, strict=True)],
        needs=frozenset().union(*(part.needs for part in parts)),
    )


def _merged(kind: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise PgkitError(f"two transforms of a chain bring the {kind} {min(twice)!r}")
        merged.update(part)
    return merged
