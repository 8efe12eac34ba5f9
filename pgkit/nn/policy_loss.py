"""The losses of a categorical policy and its critic as one node of autograd's graph: on CPU, two calls for all layers.

The forward pass reuses what the networks have computed while acting. The backward pass turns each member's samples into
gradients of outputs and values in closed form, and sends these through the layers while they are in the CPU's cache.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import address_of, flatten
from pgkit.kernels.activations import ACTIVATIONS, Activation
from pgkit.kernels.mlp import LayerOutputs, allocate_backward, contiguous_rows
from pgkit.kernels.signatures import LossGradients, LossMeans, Samples
from pgkit.nn.mlp import first_rows, forward_pass, layer_leaves
from pgkit.types import Batch, Params

_means_kernel = lazy_kernel("pgkit.kernels.codegen.policy_loss:compile_means")
_gradients_kernel = lazy_kernel("pgkit.kernels.codegen.policy_loss:compile_gradients")


def compiled_losses(
    params: Params, x: Tensor, activation: str, batch: Batch, critic: bool, sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Compute policy loss, value loss and mean entropy, ``(P,)`` each, as :func:`pgkit.losses.actor_critic_terms`.

    Args:
        params: of the networks ``"actor"``, which gives the outputs of a categorical distribution, and ``"critic"``.
        x: ``(P, B, D)``, the input of both networks.
        activation: of both networks.
        batch: the samples.
        critic: whether there is a value loss; without one the targets stand for the values.
        sizes: int64 ``(P,)``, how many samples of each member may be valid, if not all B; then no gradient flows to
            ``x``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
        RuntimeError: in the backward pass, if it is asked for a graph of itself (``create_graph=True``).
    """
    names = ("actor", "critic") if critic else ("actor",)
    passes = [_cached_or_computed(params, name, x, activation, batch, sizes) for name in names]
    leaves = [leaf for name in names for leaf in layer_leaves(params, name)]
    return _Losses.apply(ACTIVATIONS[activation], passes, batch, sizes, x, *leaves)  # type: ignore[no-untyped-call]


def _cached_or_computed(
    params: Params, name: str, x: Tensor, activation: str, batch: Batch, sizes: Tensor | None
) -> LayerOutputs:
    """Return the network's forward pass over ``x`` from the batch's cache, or compute it."""
    cached = batch.cache and batch.cache.lookup(name, batch.obs)
    if cached is None:
        return forward_pass(params, name, x, activation, sizes=sizes)
    first_rows(cached, x)  # raises if the pass is too short; the compiled loss takes the longer one as it is
    return cached


class _Losses(torch.autograd.Function):
    """``(activation, passes, batch, sizes, x, *leaves) -> `` the three losses, by one forward pass per network."""

    @staticmethod
    def forward(
        ctx: Any,
        activation: Activation,
        passes: Sequence[LayerOutputs],
        batch: Batch,
        sizes: Tensor | None,
        x: Tensor,
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        samples = _samples(passes, batch, x)
        means = x.new_empty(4, x.shape[0])
        arguments = LossMeans(
            members=x.shape[0],
            rows=x.shape[1],
            sizes=address_of(sizes),
            samples=_sample_arguments(samples),
            means=means.data_ptr(),
        )
        _means_kernel(samples[0].shape[2], x.dtype)(*flatten(arguments))
        ctx.activation = activation
        ctx.passes = passes
        ctx.sizes = sizes
        ctx.save_for_backward(x, means, *samples, *leaves)
        return means[:3].unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # create_graph=True: the compiled gradient is opaque to autograd, which would take its derivative for zero.
            raise RuntimeError("policy.losses is differentiable once: for second derivatives use policy.outputs")
        x, means, *others = ctx.saved_tensors
        samples = others[:6]
        members, rows, width = x.shape
        choices = samples[0].shape[2]
        source = contiguous_rows(x)
        term_grads = torch.stack(grads)
        buffers = [allocate_backward(x, outputs, ctx.needs_input_grad[4]) for outputs in ctx.passes]
        scratch = x.new_empty(rows * (choices + 1) + max(buffer.scratch for buffer in buffers))
        workspace = x.new_empty(max(buffer.workspace for buffer in buffers))
        arguments = LossGradients(
            members=members,
            rows=rows,
            sizes=address_of(ctx.sizes),
            samples=_sample_arguments(samples),
            grads=term_grads.data_ptr(),
            means=means.data_ptr(),
            x=source.data_ptr(),
            x_rows=source.stride(0) // width,
            scratch=scratch.data_ptr(),
            workspace=workspace.data_ptr(),
            networks=tuple(buffer.arguments for buffer in buffers),
        )
        _gradients_kernel(ctx.activation, choices, len(buffers), x.dtype)(*flatten(arguments))
        x_grads = [buffer.x_grad for buffer in buffers if buffer.x_grad is not None]
        leaf_grads = [grad for buffer in buffers for grad in buffer.leaf_grads]
        return None, None, None, None, sum(x_grads[1:], x_grads[0]) if x_grads else None, *leaf_grads


def _samples(passes: Sequence[LayerOutputs], batch: Batch, x: Tensor) -> list[Tensor]:
    """List outputs and values, maybe of more samples, then actions, advantages, targets and validity of the samples.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    others = [field.contiguous() for field in (batch.action, batch.advantage, batch.target, batch.valid)]
    dtypes = [torch.int64, x.dtype, x.dtype, torch.bool]
    fit = all(tensor.shape == x.shape[:2] and tensor.is_cpu for tensor in others)
    if not fit or [tensor.dtype for tensor in others] != dtypes:
        received = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in others)
        raise ValueError(
            f"expected action, advantage, target, valid of shape (P, B) = {tuple(x.shape[:2])} on cpu, got {received}"
        )
    outputs, *values = (forward.results[-1] for forward in passes)
    return [outputs, *(values or [others[2]]), *others]


def _sample_arguments(samples: Sequence[Tensor]) -> Samples:
    """Point compiled losses to the tensors of :func:`_samples`."""
    outputs, value, *others = samples
    addresses = (tensor.data_ptr() for tensor in others)
    return Samples(outputs.data_ptr(), outputs.shape[1], value.data_ptr(), value.shape[1], *addresses)
