"""What a run that begins with another run's parameters (``init``) takes from it."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import Optimizer
from pgkit.tree import map_tree, take_tree
from pgkit.types import Params

KEPT = ("member_state", "leaf_state")
"""The entries of an optimizer's state that are taken: moments and counters, not settings that follow a schedule."""


class InitialState(NamedTuple):
    """What members begin with, one row each.

    Attributes:
        run: where it is from, for messages.
        params: leaves ``(P, ...)``.
        obs_stats: statistics of observations, leaves ``(P, ...)``.
        opt_state: the dumped optimizer states, leaves ``(P, ...)``; None lets the optimizer begin anew.
    """

    run: str
    params: Params
    obs_stats: dict[str, Tensor]
    opt_state: Any = None

    def take(self, members: Sequence[int]) -> "InitialState":
        """The rows of these members."""
        rows = torch.tensor(list(members))
        tree = (self.params, self.obs_stats, self.opt_state)
        return InitialState(self.run, *take_tree(tree, rows))


def split_initial(initial: InitialState | None, sizes: Sequence[int]) -> list[InitialState | None]:
    """The rows of each worker, whose members follow each other."""
    if initial is None:
        return [None] * len(sizes)
    bounds = [0, *accumulate(sizes)]
    return [initial.take(range(begin, end)) for begin, end in pairwise(bounds)]


def initial_params(initial: InitialState, fresh: Params) -> Params:
    """The parameters that members begin with.

    Args:
        initial: what is taken from another run.
        fresh: parameters as they would be drawn, leaves ``(P, ...)``; they say what fits, and on which device.

    Raises:
        PgkitError: naming each parameter that is missing or has another shape.
    """
    here_by_name = {name: tuple(leaf.shape[1:]) for name, leaf in fresh.items()}
    there_by_name = {name: tuple(leaf.shape[1:]) for name, leaf in initial.params.items()}
    differing = [
        f"{name} is {there_by_name.get(name, 'missing')} there and {here_by_name.get(name, 'missing')} in this run"
        for name in {**here_by_name, **there_by_name}
        if here_by_name.get(name) != there_by_name.get(name)
    ]
    if differing:
        raise PgkitError(f"init.run: the networks of {initial.run} do not fit: {'; '.join(differing)}")
    return {name: initial.params[name].to(leaf.device) for name, leaf in fresh.items()}


def initial_obs_stats(initial: InitialState, device: torch.device) -> dict[str, Tensor]:
    """The statistics of observations that members begin with."""
    return {name: leaf.to(device) for name, leaf in initial.obs_stats.items()}


def initial_opt_state(initial: InitialState | None, optimizer: Optimizer, params: Params) -> Any:
    """The optimizer's state for these parameters, with the moments and counters of another run if they are wanted.

    Raises:
        PgkitError: that run has another optimizer.
    """
    fresh = optimizer.init(params)
    if initial is None or initial.opt_state is None:
        return fresh
    device = next(iter(params.values())).device
    try:
        merged = _merged(optimizer.dump(fresh), map_tree(lambda leaf: leaf.to(device), initial.opt_state))
    except _Differs:
        raise PgkitError(
            f"init.optimizer_state: the optimizer of {initial.run} keeps another state than this run's: name, critic, "
            "groups and options such as max_grad_norm must be the same"
        ) from None
    return optimizer.load(merged, params)


def concat_opt_states(states: Sequence[Any], run: str) -> Any:
    """Join the dumped optimizer states of single members to one, leaves ``(P, ...)``.

    Raises:
        PgkitError: they differ, or hold more than tensors, as those of classes such as ``torch.optim:Adam`` do.
    """
    first = states[0]
    if isinstance(first, Tensor) and all(isinstance(state, Tensor) for state in states):
        return torch.cat(list(states))
    if isinstance(first, Mapping) and "instances" not in first and all(set(first) == set(state) for state in states):
        return {key: concat_opt_states([state[key] for state in states], run) for key in first}
    if isinstance(first, list) and all(len(first) == len(state) for state in states):
        return [concat_opt_states(column, run) for column in zip(*states, strict=True)]
    raise PgkitError(
        f"init.optimizer_state: the optimizers of {run} keep their settings in their state, or are different ones: "
        "only the state of one optimizer of pgkit's can be taken"
    )


class _Differs(Exception):
    """Two states belong to different optimizers."""


def _merged(fresh: Any, other: Any) -> Any:
    """A dumped state with the moments and counters of another one."""
    if isinstance(fresh, list) and isinstance(other, list) and len(fresh) == len(other):
        return [_merged(*pair) for pair in zip(fresh, other, strict=True)]
    if not isinstance(fresh, Mapping) or not isinstance(other, Mapping) or set(fresh) != set(other):
        raise _Differs
    if set(KEPT) <= set(fresh):
        if any(_shapes(fresh[key]) != _shapes(other[key]) for key in KEPT):
            raise _Differs
        return {**fresh, **{key: other[key] for key in KEPT}}
    if "inner_states" not in fresh:
        raise _Differs
    inner, other_inner = fresh["inner_states"], other["inner_states"]
    if set(inner) != set(other_inner):
        raise _Differs
    return {**fresh, "inner_states": {label: _merged(inner[label], other_inner[label]) for label in inner}}


def _shapes(tree: Any) -> Any:
    return map_tree(lambda leaf: tuple(leaf.shape), tree)
