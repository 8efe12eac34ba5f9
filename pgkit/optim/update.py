"""From gradients to new parameters: the update and its addition, in one pass over memory where that is possible."""

from typing import Any

import torch
from torch import Tensor

from pgkit.optim.base import Optimizer, State, freeze
from pgkit.optim.fused import act
from pgkit.types import Params


def move(
    optimizer: Optimizer, grads: Params, state: State, params: Params, **signals: Any
) -> tuple[Params, Tensor, State]:
    """What :meth:`Optimizer.update` and :func:`add_updates` do, to the last bit; returns both results and the state."""
    if optimizer.move is not None:
        return optimizer.move(grads, state, params, **signals)
    updates, state = optimizer.update(grads, state, params, **signals)
    return *add_updates(params, updates), state


@torch.no_grad()
def add_updates(params: Params, updates: Params) -> tuple[Params, Tensor]:
    """``param + update`` in the buffers of the updates.

    Also the largest magnitude in each leaf of the sums, ``(L, P)``, where NaN is largest.
    """
    moved = {name: updates[name].contiguous() for name in params}
    largest = act([], moved, params, {}, [], moves=True)
    assert largest is not None
    return moved, largest


@torch.no_grad()
def apply_updates(params: Params, updates: Params, alive: Tensor | None = None) -> Params:
    """``param + update`` in the buffers of the updates; members where ``alive`` ``(P,)`` is False keep ``param``."""
    moved = add_updates(params, updates)[0]
    moved = moved if alive is None else freeze(moved, params, alive)
    for name, param in params.items():
        if param.requires_grad:
            moved[name].requires_grad_()
    return moved
