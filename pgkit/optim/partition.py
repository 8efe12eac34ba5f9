"""Different optimizers for different members, and for different parameters."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import Optimizer, Signals, State, own
from pgkit.optim.update import move
from pgkit.tree import take_tree
from pgkit.types import Params

One = Callable[..., tuple[Params, Any, State]]
"""``one(optimizer, grads, state, params, **signals)``: what becomes of the gradients, something else, and the state."""


def by_member(optimizers: Sequence[Optimizer], kinds: Sequence[int]) -> Optimizer:
    """Member k is updated by ``optimizers[kinds[k]]``, which sees only its own members, in their order.

    Hyperparameters of ``optimizers[j]`` that are one per member have one value for each member of kind j. Signals that
    are no tensors ``(P,)`` have a method ``take(members)``.
    """
    if set(kinds) != set(range(len(optimizers))):
        raise PgkitError(f"by_member: kinds must use each of 0 ... {len(optimizers) - 1}, got {sorted(set(kinds))}")

    count = len(optimizers)

    def init(params: Params) -> State:
        kind = torch.tensor(list(kinds))
        members = {leaf.shape[0] for leaf in params.values()}
        if members != {len(kinds)}:
            raise PgkitError(f"by_member: {len(kinds)} kinds for {sorted(members)} members")
        parts = zip(optimizers, _of_each_kind(kind, count), strict=True)
        return {"kind": kind, "states": [part.init(take_tree(params, members)) for part, members in parts]}

    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        updates, _, after = _each_kind(optimizers, _update, grads, state, params, signals)
        return updates, after

    def move_all(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, Tensor, State]:
        moved, blocks, after = _each_kind(optimizers, move, grads, state, params, signals)
        largest = blocks[0].new_empty(len(moved), len(state["kind"]))
        for members, block in zip(filter(len, _of_each_kind(state["kind"], count)), blocks, strict=True):
            largest[:, members] = block
        return moved, largest, after

    def take(state: State, members: Tensor) -> State:
        kind, members = state["kind"], members.cpu()
        place = torch.empty_like(kind)
        for own_members in _of_each_kind(kind, count):
            place[own_members] = torch.arange(len(own_members))
        kept = [place[members[kind[members] == index]] for index in range(count)]
        states = [part.take(own, rows) for part, own, rows in zip(optimizers, state["states"], kept, strict=True)]
        return {"kind": kind[members], "states": states}

    def load(data: Any, params: Params) -> State:
        parts = zip(optimizers, data["states"], _of_each_kind(data["kind"], count), strict=True)
        return data | {"states": [part.load(own, take_tree(params, members)) for part, own, members in parts]}

    return Optimizer(
        init=init,
        update=update,
        take=take,
        dump=lambda state: (
            state | {"states": [part.dump(own) for part, own in zip(optimizers, state["states"], strict=True)]}
        ),
        load=load,
        parts=tuple(optimizers),
        needs=frozenset().union(*(part.needs for part in optimizers)),
        move=move_all,
    )


def _update(optimizer: Optimizer, *arguments: Any, **signals: Any) -> tuple[Params, None, State]:
    """The update alone, in the form of :func:`pgkit.optim.update.move`."""
    updates, after = optimizer.update(*arguments, **signals)
    return updates, None, after


def _of_each_kind(kind: Tensor, count: int) -> list[Tensor]:
    """The members of each of so many kinds."""
    return [torch.nonzero(kind == index)[:, 0] for index in range(count)]


@torch.no_grad()
def _each_kind(
    optimizers: Sequence[Optimizer],
    one: One,
    grads: Params,
    state: State,
    params: Params,
    signals: Signals,
) -> tuple[Params, list[Any], State]:
    """What ``one`` makes of the members of each kind that has any: first results in one, second ones, and the state."""
    results, states, others = own(grads, params), [], []
    kinds = _of_each_kind(state["kind"], len(optimizers))
    for part, own_state, members in zip(optimizers, state["states"], kinds, strict=True):
        if len(members):
            sub_grads, sub_params = take_tree(results, members), take_tree(params, members)
            sub_signals = {name: _of_members(value, members) for name, value in signals.items()}
            sub, other, own_state = one(part, sub_grads, own_state, sub_params, **sub_signals)
            for name, leaf in sub.items():
                results[name].index_copy_(0, members.to(leaf.device), leaf)
            others.append(other)
        states.append(own_state)
    return results, others, {"kind": state["kind"], "states": states}


def of_one_member(data: Any) -> Any:
    """The dumped state of a single member as an optimizer made for it alone loads it: without others' kinds."""
    return data["states"][int(data["kind"])] if isinstance(data, dict) and "kind" in data else data


def _of_members(signal: Any, members: Tensor) -> Any:
    """A tensor ``(P,)`` gives its rows, anything else what its own ``take`` says."""
    return signal.index_select(0, members.to(signal.device)) if isinstance(signal, Tensor) else signal.take(members)


Groups = Mapping[str, tuple[Callable[[str], bool], Optimizer]]
"""By label: which parameter names belong to it, and their optimizer."""


def by_name(groups: Groups) -> Optimizer:
    """Each parameter is updated by the first group that accepts its name; states by label under ``"groups"``."""

    def split(params: Params) -> dict[str, Params]:
        parts: dict[str, Params] = {label: {} for label in groups}
        for name, leaf in params.items():
            label = next((label for label, (accepts, _) in groups.items() if accepts(name)), None)
            if label is None:
                raise PgkitError(f"no group of the optimizer takes the parameter {name!r}")
            parts[label][name] = leaf
        return {label: part for label, part in parts.items() if part}

    def init(params: Params) -> State:
        return {"groups": {label: groups[label][1].init(part) for label, part in split(params).items()}}

    def each_group(
        one: One, grads: Params, state: State, params: Params, signals: Signals
    ) -> tuple[Params, list[Any], State]:
        """What ``one`` makes of each group: first results in one, the second ones, and the state."""
        results, states, others = {}, {}, []
        for label, part in split(params).items():
            own_grads = {name: grads[name] for name in part}
            sub, other, states[label] = one(groups[label][1], own_grads, state["groups"][label], part, **signals)
            results.update(sub)
            others.append(other)
        return results, others, {"groups": states}

    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        updates, _, after = each_group(_update, grads, state, params, signals)
        return {name: updates[name] for name in params}, after

    def move_all(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, Tensor, State]:
        moved, blocks, after = each_group(move, grads, state, params, signals)
        names, largest = list(moved), torch.cat(blocks)
        rows = dict(zip(names, largest, strict=True))
        ordered = largest if names == list(params) else torch.stack([rows[name] for name in params])
        return {name: moved[name] for name in params}, ordered, after

    def load(data: Any, params: Params) -> State:
        parts = split(params)
        return {"groups": {label: groups[label][1].load(own, parts[label]) for label, own in data["groups"].items()}}

    return Optimizer(
        init=init,
        update=update,
        take=lambda state, members: {
            "groups": {label: groups[label][1].take(own, members) for label, own in state["groups"].items()}
        },
        dump=lambda state: {"groups": {label: groups[label][1].dump(own) for label, own in state["groups"].items()}},
        load=load,
        parts=tuple(optimizer for _, optimizer in groups.values()),
        needs=frozenset().union(*(optimizer.needs for _, optimizer in groups.values())),
        move=move_all,
    )


def matches(pattern: str) -> Callable[[str], bool]:
    """Whether a parameter name matches a shell pattern such as ``"critic.*"`` or ``"*.bias"``."""
    return lambda name: fnmatchcase(name, pattern)
