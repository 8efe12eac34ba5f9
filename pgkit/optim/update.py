"""Add updates to parameters, and keep the parameters of members that have failed."""

import torch
from torch import Tensor

from pgkit.optim.base import State, StepResult, copy_leaves, per_leaf
from pgkit.optim.fused import run_stage
from pgkit.types import Params


@torch.no_grad()
def apply_updates(params: Params, updates: Params, alive: Tensor | None = None, *, donate: bool = False) -> Params:
    """Compute ``param + update`` for every leaf.

    >>> import torch
    >>> from pgkit.optim import apply_updates
    >>> apply_updates({"w": torch.ones(2, 1)}, {"w": torch.full((2, 1), -0.5)}, torch.tensor([True, False]))["w"]
    tensor([[0.5000],
            [1.0000]])

    Args:
        params: leaves ``(P, ...)``.
        updates: leaves like them.
        alive: bool ``(P,)``; members that are not alive keep their parameters. None: all are alive.
        donate: allow the result to take the memory of ``updates``; by default nothing is overwritten.

    Returns:
        New leaves ``(P, ...)``; those whose parameter requires a gradient require one, too.
    """
    added, _ = add_updates(params, updates, donate=donate)
    if alive is not None:
        added = freeze(added, params, alive)
    for name, param in params.items():
        if param.requires_grad:
            added[name].requires_grad_()
    return added


@torch.no_grad()
def add_updates(params: Params, updates: Params, *, donate: bool = False) -> tuple[Params, Tensor]:
    """Compute ``param + update``, and the largest magnitude in each leaf of the sums.

    Args:
        params: leaves ``(P, ...)``.
        updates: leaves like them.
        donate: allow the result to take the memory of ``updates``.

    Returns:
        The sums, and ``(L, P)``, where NaN counts as largest.
    """
    updates = updates if donate else copy_leaves(updates)
    added = {name: updates[name].contiguous() for name in params}
    largest = run_stage([], added, params, {}, [], add=True)
    assert largest is not None
    return added, largest


def finish(updates: Params, state: State, params: Params, add: bool) -> StepResult:
    """End a step that has computed updates: with ``add``, add them to the parameters in their own memory."""
    if not add:
        return StepResult(updates, None, state)
    return StepResult(*add_updates(params, updates, donate=True), state)


def freeze(added: Params, params: Params, alive: Tensor) -> Params:
    """Undo the update of members that are not ``alive`` (bool ``(P,)``), in the memory of ``added``."""
    if alive.is_cpu and alive.all():
        return added  # on a GPU, looking costs more than selecting
    with torch.no_grad():
        for name, param in params.items():
            torch.where(per_leaf(alive, param), added[name], param, out=added[name])
    return added
