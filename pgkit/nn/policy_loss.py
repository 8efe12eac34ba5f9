"""The losses of a policy and its critic as one node of autograd's graph: on CPU, two calls for all layers.

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
from pgkit.kernels.distribution import Distribution
from pgkit.kernels.mlp import LayerOutputs, allocate_backward, contiguous_rows
from pgkit.kernels.signatures import LossGradients, LossMeans, Samples
from pgkit.nn.mlp import first_rows, forward_pass, layer_leaves
from pgkit.types import Batch, Params

_means_kernel = lazy_kernel("pgkit.kernels.codegen.policy_loss:compile_means")
_gradients_kernel = lazy_kernel("pgkit.kernels.codegen.policy_loss:compile_gradients")


def compiled_losses(
    distribution: Distribution,
    params: Params,
    x: Tensor,
    activation: str,
    batch: Batch,
    critic: bool,
    sizes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Compute policy loss, value loss and mean entropy, ``(P,)`` each, as :func:`pgkit.losses.actor_critic_terms`.

    Args:
        distribution: of the actions.
        params: of the networks ``"actor"``, which gives the distribution's outputs, and ``"critic"``; and
            ``"actor.log_std"`` of a Gaussian policy.
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
    log_std = params["actor.log_std"] if distribution.log_stds else None
    return _Losses.apply(  # type: ignore[no-untyped-call]
        distribution, ACTIVATIONS[activation], passes, batch, sizes, x, log_std, *leaves
    )


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
    """``(distribution, activation, passes, batch, sizes, x, log_std or None, *leaves) -> `` the three losses, by one
    forward pass per network."""

    @staticmethod
    def forward(
        ctx: Any,
        distribution: Distribution,
        activation: Activation,
        passes: Sequence[LayerOutputs],
        batch: Batch,
        sizes: Tensor | None,
        x: Tensor,
        log_std: Tensor | None,
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        samples = _samples(distribution, passes, batch, x)
        log_std = None if log_std is None else log_std.contiguous()
        means = x.new_empty(4, x.shape[0])
        arguments = LossMeans(
            members=x.shape[0],
            rows=x.shape[1],
            sizes=address_of(sizes),
            samples=_sample_arguments(samples, log_std),
            means=means.data_ptr(),
        )
        _means_kernel(distribution, x.dtype)(*flatten(arguments))
        ctx.distribution = distribution
        ctx.activation = activation
        ctx.passes = passes
        ctx.sizes = sizes
        ctx.save_for_backward(x, log_std, means, *samples, *leaves)
        return means[:3].unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # create_graph=True: the compiled gradient is opaque to autograd, which would take its derivative for zero.
            raise RuntimeError("policy.losses is differentiable once: for second derivatives use policy.outputs")
        x, log_std, means, *others = ctx.saved_tensors
        samples = others[:6]
        members, rows, width = x.shape
        distribution = ctx.distribution
        source = contiguous_rows(x)
        term_grads = torch.stack(grads)
        buffers = [allocate_backward(x, outputs, ctx.needs_input_grad[5]) for outputs in ctx.passes]
        log_std_grad = None if log_std is None else torch.empty_like(log_std)
        scratch = x.new_empty(rows * (distribution.size + 1) + max(buffer.scratch for buffer in buffers))
        workspace = x.new_empty(max(buffer.workspace for buffer in buffers))
        arguments = LossGradients(
            members=members,
            rows=rows,
            sizes=address_of(ctx.sizes),
            samples=_sample_arguments(samples, log_std),
            grads=term_grads.data_ptr(),
            means=means.data_ptr(),
            x=source.data_ptr(),
            x_rows=source.stride(0) // width,
            log_std_grad=address_of(log_std_grad),
            scratch=scratch.data_ptr(),
            workspace=workspace.data_ptr(),
            networks=tuple(buffer.arguments for buffer in buffers),
        )
        _gradients_kernel(ctx.activation, distribution, len(buffers), x.dtype)(*flatten(arguments))
        x_grads = [buffer.x_grad for buffer in buffers if buffer.x_grad is not None]
        leaf_grads = [grad for buffer in buffers for grad in buffer.leaf_grads]
        x_grad = sum(x_grads[1:], x_grads[0]) if x_grads else None
        return None, None, None, None, None, x_grad, log_std_grad, *leaf_grads


def _samples(distribution: Distribution, passes: Sequence[LayerOutputs], batch: Batch, x: Tensor) -> list[Tensor]:
    """List outputs and values, maybe of more samples, then actions, advantages, targets and validity of the samples.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    others = [field.contiguous() for field in (batch.action, batch.advantage, batch.target, batch.valid)]
    dtypes = [distribution.action_dtype(x.dtype), x.dtype, x.dtype, torch.bool]
    shape = tuple(x.shape[:2])
    shapes = [distribution.action_shape(shape), shape, shape, shape]
    if [(*tensor.shape,) for tensor in others] != shapes or [tensor.dtype for tensor in others] != dtypes:
        received = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in others)
        expected = ", ".join(f"{dtype} {shape}" for dtype, shape in zip(dtypes, shapes, strict=True))
        raise ValueError(f"expected action, advantage, target, valid of {expected}, got {received}")
    if not all(tensor.is_cpu for tensor in others):
        raise ValueError(f"expected samples on cpu, got {[str(tensor.device) for tensor in others]}")
    outputs, *values = (forward.results[-1] for forward in passes)
    return [outputs, *(values or [others[2]]), *others]


def _sample_arguments(samples: Sequence[Tensor], log_std: Tensor | None) -> Samples:
    """Point compiled losses to the tensors of :func:`_samples`."""
    outputs, value, *others = samples
    action, advantage, target, valid = (tensor.data_ptr() for tensor in others)
    return Samples(
        outputs=outputs.data_ptr(),
        output_rows=outputs.shape[1],
        log_std=address_of(log_std),
        value=value.data_ptr(),
        value_rows=value.shape[1],
        action=action,
        advantage=advantage,
        target=target,
        valid=valid,
    )
