"""Different optimizers for different members, and for different parameters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import ExtraArgs, Optimizer, State, StepResult, check_grads, checked_grads
from pgkit.optim.roles import LeafSubset
from pgkit.tree import put_tree, take_tree
from pgkit.types import Params


def by_member(optimizers: Sequence[Optimizer], groups: Sequence[int]) -> Optimizer:
    """Make an optimizer that updates member k with ``optimizers[groups[k]]``.

    >>> import torch
    >>> from pgkit.optim import by_member, make
    >>> optimizer = by_member([make("sgd", lr=0.5), make("sgd", lr=[0.1, 0.2])], [1, 0, 1])
    >>> params = {"w": torch.zeros(3, 1)}
    >>> optimizer.update({"w": torch.ones(3, 1)}, optimizer.init(params), params)[0]["w"][:, 0]
    tensor([-0.1000, -0.5000, -0.2000])

    Each optimizer sees only its members, in their order, so a hyperparameter of ``optimizers[j]`` that is one per
    member has one value for each member of group j. State: ``{"group": int64 (P,), "states": [...]}``.

    Args:
        optimizers: one per group.
        groups: the group of each member; every group has at least one.

    Raises:
        PgkitError: a group has no member, or ``init`` gets another number of members.
    """
    count = len(optimizers)
    if set(groups) != set(range(count)):
        raise PgkitError(f"by_member: groups must use each of 0 ... {count - 1}, got {sorted(set(groups))}")

    def init(params: Params) -> State:
        members = {leaf.shape[0] for leaf in params.values()}
        if members != {len(groups)}:
            raise PgkitError(f"by_member: groups of {len(groups)} members, parameters of {sorted(members)}")
        group = torch.tensor(list(groups))
        pairs = zip(optimizers, _rows_by_group(group, count), strict=True)
        return {"group": group, "states": [part.init(take_tree(params, rows)) for part, rows in pairs]}

    return Optimizer(
        init=init,
        step=partial(_step_groups, optimizers),
        take=partial(_take_groups, optimizers),
        copy=partial(_copy_groups, optimizers),
        where=partial(_where_groups, optimizers),
        dump=partial(_dump_groups, optimizers),
        load=partial(_load_groups, optimizers),
        parts=tuple(optimizers),
        requires=frozenset().union(*(part.requires for part in optimizers)),
        eval_params=partial(_eval_groups, optimizers) if _any_eval_params(optimizers) else None,
    )


def _any_eval_params(optimizers: Iterable[Optimizer]) -> bool:
    return any(part.eval_params is not None for part in optimizers)


def _step_groups(
    optimizers: Sequence[Optimizer], grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool
) -> StepResult:
    """Run each group's optimizer on the rows of its members, and put the results together."""
    leaves = checked_grads(grads, params)
    rows_by_group = _rows_by_group(state["group"], len(optimizers))
    states = []
    maxima = []
    for part, part_state, rows in zip(optimizers, state["states"], rows_by_group, strict=True):
        if not len(rows):
            states.append(part_state)
            continue
        sub_args = {name: _take_arg(value, rows) for name, value in extra_args.items()}
        result = part.step(take_tree(leaves, rows), part_state, take_tree(params, rows), sub_args, add)
        for name, leaf in result.leaves.items():
            leaves[name].index_copy_(0, rows.to(leaf.device), leaf)
        states.append(result.state)
        if result.largest is not None:
            maxima.append((rows, result.largest))
    largest = _join_largest(maxima, len(leaves), len(state["group"])) if add else None
    return StepResult(leaves, largest, {"group": state["group"], "states": states})


def _eval_groups(optimizers: Sequence[Optimizer], params: Params, state: State) -> Params:
    """The evaluation parameters of each group's members, put together."""
    rows_by_group = _rows_by_group(state["group"], len(optimizers))
    for part, part_state, rows in zip(optimizers, state["states"], rows_by_group, strict=True):
        if part.eval_params is not None and len(rows):
            params = put_tree(params, rows, part.eval_params(take_tree(params, rows), part_state))
    return params


def _take_groups(optimizers: Sequence[Optimizer], state: State, members: Tensor) -> State:
    group = state["group"]
    members = members.cpu()
    row_in_group = torch.empty_like(group)
    for rows in _rows_by_group(group, len(optimizers)):
        row_in_group[rows] = torch.arange(len(rows))
    rows_to_take = [row_in_group[members[group[members] == index]] for index in range(len(optimizers))]
    triples = zip(optimizers, state["states"], rows_to_take, strict=True)
    return {"group": group[members], "states": [part.take(each, rows) for part, each, rows in triples]}


def _copy_groups(optimizers: Sequence[Optimizer], state: State) -> State:
    states = [part.copy(each) for part, each in zip(optimizers, state["states"], strict=True)]
    return {"group": state["group"], "states": states}


def _where_groups(optimizers: Sequence[Optimizer], condition: Tensor, state: State, other: State) -> State:
    rows_by_group = _rows_by_group(state["group"], len(optimizers))
    columns = zip(optimizers, rows_by_group, state["states"], other["states"], strict=True)
    states = [part.where(condition[rows.to(condition.device)], *pair) for part, rows, *pair in columns]
    return {"group": state["group"], "states": states}


def _dump_groups(optimizers: Sequence[Optimizer], state: State) -> Any:
    return state | {"states": [part.dump(each) for part, each in zip(optimizers, state["states"], strict=True)]}


def _load_groups(optimizers: Sequence[Optimizer], data: Any, params: Params) -> State:
    triples = zip(optimizers, data["states"], _rows_by_group(data["group"], len(optimizers)), strict=True)
    return data | {"states": [part.load(each, take_tree(params, rows)) for part, each, rows in triples]}


def take_groups(data: Any, groups: Sequence[int]) -> Any:
    """Reduce the dumped state of some members to what an optimizer made for these members alone loads.

    Args:
        data: dumped by an optimizer of more members, after ``take``.
        groups: there, of each of these members; the optimizer numbers them anew, as they come.
    """
    if not (isinstance(data, dict) and "group" in data):
        return data
    kept = list(dict.fromkeys(groups))
    if len(kept) == 1:
        return data["states"][kept[0]]
    new = torch.tensor([kept.index(group) for group in data["group"].tolist()], dtype=torch.int64)
    return {"group": new, "states": [data["states"][group] for group in kept]}


def _rows_by_group(group: Tensor, count: int) -> list[Tensor]:
    """List the members of each of ``count`` groups, int64 ``(M,)`` each."""
    return [torch.nonzero(group == index)[:, 0] for index in range(count)]


def _take_arg(value: Any, members: Tensor) -> Any:
    """Take the rows of a tensor ``(P,)``; anything else has a method ``take(members)``."""
    return value.index_select(0, members.to(value.device)) if isinstance(value, Tensor) else value.take(members)


def _join_largest(maxima: Sequence[tuple[Tensor, Tensor]], leaves: int, members: int) -> Tensor:
    """Join the largest magnitudes ``(L, M)`` of each group's members to ``(L, P)``."""
    like = maxima[0][1] if maxima else torch.empty(0)
    joined = like.new_empty(leaves, members)
    for rows, largest in maxima:
        joined[:, rows] = largest
    return joined


Groups = Mapping[str, tuple[Callable[[str], bool], Optimizer]]
"""By label: a predicate that says which parameter names belong to the group, and the group's optimizer."""


def by_name(groups: Groups) -> Optimizer:
    """Make an optimizer that updates each parameter with the first group that accepts its name.

    >>> import torch
    >>> from pgkit.optim import by_name, make, matches
    >>> slow_biases = by_name({
    ...     "bias": (matches("*.bias"), make("sgd", lr=0.1)),
    ...     "rest": (matches("*"), make("sgd", lr=1.0)),
    ... })
    >>> params = {"actor.weight": torch.zeros(1, 1), "actor.bias": torch.zeros(1, 1)}
    >>> grads = {"actor.weight": torch.ones(1, 1), "actor.bias": torch.ones(1, 1)}
    >>> updates, _ = slow_biases.update(grads, slow_biases.init(params), params)
    >>> {name: leaf.item() for name, leaf in updates.items()}
    {'actor.weight': -1.0, 'actor.bias': -0.10000000149011612}

    State: ``{"inner_states": {label: state}}``; groups without parameters have none.

    Raises:
        PgkitError: no group accepts a parameter (when it is first used).
    """
    optimizers = tuple(optimizer for _, optimizer in groups.values())

    def each_state(function: Callable[[str, Any], Any], states: Mapping[str, Any]) -> State:
        return {"inner_states": {label: function(label, each) for label, each in states.items()}}

    def load(data: Any, params: Params) -> State:
        parts = _split(groups, params)
        return each_state(lambda label, each: groups[label][1].load(each, parts[label]), data["inner_states"])

    return Optimizer(
        init=lambda params: each_state(lambda label, part: groups[label][1].init(part), _split(groups, params)),
        step=partial(_step_names, groups),
        take=lambda state, members: each_state(
            lambda label, each: groups[label][1].take(each, members), state["inner_states"]
        ),
        copy=lambda state: each_state(lambda label, each: groups[label][1].copy(each), state["inner_states"]),
        where=lambda condition, state, other: each_state(
            lambda label, each: groups[label][1].where(condition, each, other["inner_states"][label]),
            state["inner_states"],
        ),
        dump=lambda state: each_state(lambda label, each: groups[label][1].dump(each), state["inner_states"]),
        load=load,
        parts=optimizers,
        requires=frozenset().union(*(optimizer.requires for optimizer in optimizers)),
        eval_params=partial(_eval_names, groups) if _any_eval_params(optimizers) else None,
    )


def _split(groups: Groups, params: Params) -> dict[str, LeafSubset]:
    """Part parameters by the label of the first group that accepts them; groups without parameters are left out."""
    parts = {label: LeafSubset({}, tuple(params)) for label in groups}
    for name, leaf in params.items():
        label = next((label for label, (accepts, _) in groups.items() if accepts(name)), None)
        if label is None:
            raise PgkitError(f"no group of the optimizer accepts the parameter {name!r}")
        parts[label][name] = leaf
    return {label: part for label, part in parts.items() if part}


def _step_names(
    groups: Groups, grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool
) -> StepResult:
    """Run each group's optimizer on its parameters, and put the results together in the order of ``params``."""
    check_grads(grads, params)
    leaves: Params = {}
    states = {}
    maxima = []
    for label, part in _split(groups, params).items():
        part_grads = {name: grads[name] for name in part}
        result = groups[label][1].step(part_grads, state["inner_states"][label], part, extra_args, add)
        leaves.update(result.leaves)
        states[label] = result.state
        if result.largest is not None:
            maxima.append(result.largest)
    largest = _reorder(torch.cat(maxima), list(leaves), list(params)) if add else None
    return StepResult({name: leaves[name] for name in params}, largest, {"inner_states": states})


def _eval_names(groups: Groups, params: Params, state: State) -> Params:
    """The evaluation parameters of each group's parameters, in the order of ``params``."""
    results = dict(params)
    for label, part in _split(groups, params).items():
        eval_params = groups[label][1].eval_params
        if eval_params is not None:
            results |= eval_params(part, state["inner_states"][label])
    return results


def _reorder(rows: Tensor, names: Sequence[str], order: Sequence[str]) -> Tensor:
    """Bring rows ``(L, P)`` of these names into another order."""
    if names == order:
        return rows
    row_by_name = dict(zip(names, rows, strict=True))
    return torch.stack([row_by_name[name] for name in order])


def matches(pattern: str) -> Callable[[str], bool]:
    """Return a predicate: does a parameter name match a shell pattern such as ``"critic.*"`` or ``"*.bias"``?"""
    return lambda name: fnmatchcase(name, pattern)
