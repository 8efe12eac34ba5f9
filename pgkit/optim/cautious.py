"""Cautious steps: no parameter moves against its own gradient."""

from dataclasses import replace

import torch
from torch import Tensor

from pgkit.optim.base import ExtraArgs, Leaf, Optimizer, Scalars, State, StepResult, Transform, copy_leaves, per_leaf
from pgkit.optim.chain import chain
from pgkit.optim.reductions import inner
from pgkit.optim.transforms import is_decoupled_decay
from pgkit.optim.update import finish
from pgkit.types import Params

LEAST_SHARE = 1e-3
"""The least share of kept elements that others are made longer for."""


def cautious(optimizer: Optimizer) -> Optimizer:
    """u = u where u g < 0, else 0; then u = u / max(share of elements kept, 0.001), leaf by leaf.

    g is the gradient that the optimizer gets, u its update, without the decoupled weight decay of a chain, which is
    added behind. Moments are those of the whole update.

    >>> import torch
    >>> from pgkit.optim import make
    >>> optimizer = make("momentum", lr=1.0, momentum=0.5, cautious=True)
    >>> params = {"w": torch.zeros(1, 4)}
    >>> _, state = optimizer.update({"w": torch.tensor([[1.0, 1.0, 1.0, 1.0]])}, optimizer.init(params), params)
    >>> optimizer.update({"w": torch.tensor([[1.0, 1.0, -0.25, -0.25]])}, state, params)[0]["w"]
    tensor([[-3., -3.,  0.,  0.]])

    Source: Liang et al. 2024 (arXiv 2411.16085), scaled as in its code since January 2025 and in timm; the paper has
    n / (number kept + 1).
    """
    if optimizer.transforms:
        decay = [part for part in optimizer.transforms if is_decoupled_decay(part)]
        others = [part for part in optimizer.transforms if not is_decoupled_decay(part)]
        remember = Transform(_remember, leaf_state={"g": 0.0})
        return chain(remember, *others, Transform(_mask, elementwise=False), *decay)

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        seen = copy_leaves(grads)
        updates, _, state = optimizer.step(grads, state, params, extra_args, False)
        return finish({name: masked(leaf, seen[name]) for name, leaf in updates.items()}, state, params, add)

    return replace(optimizer, step=step, parts=(optimizer,))


def masked(update: Tensor, grad: Tensor) -> Tensor:
    """Keep an update ``(P, ...)`` where it points downhill, and make it longer for what is dropped.

    Signs are compared, not the product, which may be too small for float32. NaN is kept: it must not be hidden.
    """
    opposes = ((update >= 0) & (grad >= 0)) | ((update <= 0) & (grad <= 0))
    kept = {"": (~opposes).to(update.dtype)}
    share = inner(kept, kept) / update[0].numel()  # a sum of ones, exact in any order
    return torch.where(opposes, 0.0, update) / per_leaf(share.clamp(min=LEAST_SHARE), update)


def _remember(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    leaf.state["g"] = grad
    return grad


def _mask(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    return masked(grad, leaf.state["g"])
