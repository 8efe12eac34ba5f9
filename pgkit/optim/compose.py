"""Joining transforms into an optimizer.

All steps of a chain act on a leaf, block of members by block of members: members share nothing, so any block will do,
and temporaries stay small however many they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.optim.core import (
    Columns,
    Hyper,
    Leaf,
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
from pgkit.types import Params, PgkitError

BLOCK = 2**20
"""Elements of a block: enough that operations cost more than calling them, few enough that temporaries stay small."""


def chain(*parts: Transform | Optimizer) -> Optimizer:
    """The optimizer that applies ``parts`` one after the other, each to what the one before returns."""
    if all(isinstance(part, Transform) or part.transforms for part in parts):
        return _joined(tuple(t for part in parts for t in ([part] if isinstance(part, Transform) else part.transforms)))
    return _sequence([part if isinstance(part, Optimizer) else chain(part) for part in parts])


def _joined(transforms: tuple[Transform, ...]) -> Optimizer:
    """One optimizer of all transforms; state ``{"hyper", "schedules", "vectors", "slots"}``."""
    hyper: dict[str, Hyper] = _merged("hyperparameter", [part.hyper for part in transforms])
    slots: dict[str, float | str] = _merged("slot", [part.slots for part in transforms])
    vectors: dict[str, float] = _merged("vector", [part.vectors for part in transforms])
    stages = _stages(transforms)

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

    @torch.no_grad()
    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        updates, members = own(grads, params), len(next(iter(params.values())))
        now, vectors_now = next_hyper(hyper, state, signals), dict(state["vectors"])
        for stage in stages:
            survey = stage[0].survey
            seen: Signals = {**signals, **survey(updates)} if survey else signals
            columns = _Columns([part.numbers(now, vectors_now, seen) for part in stage], members)
            for name, grad in updates.items():
                for block, leaf, numbers in _blocks(name, grad, params[name], state["slots"], columns):
                    result = block
                    for part, c in zip(stage, numbers, strict=True):
                        result = part.step(result, leaf, c)
                    if result is not block:
                        block.copy_(result)
        return updates, {**state, "hyper": now, "vectors": vectors_now}

    needs = frozenset().union(needs_of(hyper), *(part.needs for part in transforms))
    return Optimizer(init, update, transforms=transforms, needs=needs)


def first_hyper(hyper: Mapping[str, Hyper], members: int, device: torch.device) -> dict[str, Any]:
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


def next_hyper(hyper: Mapping[str, Hyper], state: State, signals: Signals) -> Vectors:
    """The hyperparameters ``(P,)`` of this update."""
    now = dict(state["hyper"])
    for name, rule in hyper.items():
        if isinstance(rule, Schedule):
            now[name] = rule.rule(now[name], state["schedules"][name], signals)
    return now


def needs_of(hyper: Mapping[str, Hyper]) -> frozenset[str]:
    """The signals that the schedules among some hyperparameters read."""
    return frozenset().union(*(value.needs for value in hyper.values() if isinstance(value, Schedule)))


def first_slot(value: float | str, param: Tensor, hyper: Vectors) -> Tensor:
    """The first value of a slot, see :class:`~pgkit.optim.core.Transform`."""
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


def _blocks(
    name: str, grad: Tensor, param: Tensor, slots: Mapping[str, Params], columns: "_Columns"
) -> Iterator[tuple[Tensor, Leaf, Sequence[Columns]]]:
    """Walk over the members of a leaf: gradient, the rest of the leaf, and the columns of each transform."""
    members, own_slots = grad.shape[0], [tensors[name] for tensors in slots.values()]
    height = max(1, BLOCK * members // max(1, grad.numel()))
    numbers = columns.of_blocks(grad, height)
    if height >= members:
        yield grad, Leaf(param, dict(zip(slots, own_slots, strict=True))), numbers[0]
        return
    rows = zip(*(tensor.split(height) for tensor in (grad, param, *own_slots)), strict=True)
    for (block, own_param, *parts), own_numbers in zip(rows, numbers, strict=True):
        yield block, Leaf(own_param, dict(zip(slots, parts, strict=True))), own_numbers


class _Columns:
    """The numbers of the transforms of a stage, cast, shaped and cut once for each kind of leaf."""

    def __init__(self, numbers: Sequence[Vectors], members: int):
        self.names = [list(part) for part in numbers]
        vectors = [vector for part in numbers for vector in part.values()]
        self.table = torch.stack(vectors) if vectors else torch.empty(0, members)
        self.made: dict[tuple[torch.dtype, int, int], list[Sequence[Columns]]] = {}

    def of_blocks(self, leaf: Tensor, height: int) -> list[Sequence[Columns]]:
        """For each block of ``height`` members: the columns of each transform."""
        kind = leaf.dtype, leaf.dim(), height
        if kind not in self.made:
            table = self.table.to(leaf.dtype).view(*self.table.shape, *[1] * (leaf.dim() - 1))
            blocks = [iter(block.unbind()) for block in (table.split(height, 1) if height < len(leaf) else [table])]
            self.made[kind] = [[{name: next(block) for name in part} for part in self.names] for block in blocks]
        return self.made[kind]


def _stages(transforms: Sequence[Transform]) -> list[list[Transform]]:
    """Cut before every transform that surveys, which has to see the gradients of all leaves."""
    stages: list[list[Transform]] = [[]]
    for part in transforms:
        if part.survey and stages[-1]:
            stages.append([])
        stages[-1].append(part)
    return stages


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
