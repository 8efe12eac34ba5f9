"""The losses of a policy and its critic as one node of autograd's graph: on CPU, two calls for all layers.

The forward pass reuses what the networks have computed while acting. The backward pass turns each member's samples into
gradients of outputs and values in closed form, and sends these through the layers while they are in the CPU's cache.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit import losses
from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import address_of, flatten
from pgkit.kernels.activations import ACTIVATIONS, Activation
from pgkit.kernels.distribution import LossSpec
from pgkit.kernels.mlp import LayerOutputs, allocate_backward, contiguous_rows
from pgkit.kernels.signatures import LossGradients, LossMeans, Samples
from pgkit.nn.mlp import first_rows, forward_pass, layer_leaves
from pgkit.types import Batch, Params

LOSS_TAGS = ("loss/policy", "loss/value", "policy/entropy", "update/approx_kl", "update/clip_fraction")
"""Metric tags of the means, in order."""

_means_kernel = lazy_kernel("pgkit.kernels.codegen.policy_loss:compile_means")
_gradients_kernel = lazy_kernel("pgkit.kernels.codegen.policy_loss:compile_gradients")


class Clipping(NamedTuple):
    """Limits of clipped losses, ``(P,)`` each; None where a loss is not clipped.

    Attributes:
        ratio: see :func:`pgkit.losses.clipped_surrogate_loss`.
        value: see :func:`pgkit.losses.clipped_value_loss`.
    """

    ratio: Tensor | None = None
    value: Tensor | None = None


def compiled_losses(
    spec: LossSpec,
    params: Params,
    x: Tensor,
    activation: str,
    batch: Batch,
    critic: bool,
    clipping: Clipping,
    sizes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Compute policy loss, value loss and mean entropy, ``(P,)`` each, and the other means of the spec.

    Args:
        spec: which losses.
        params: of the networks ``"actor"``, which gives the distribution's outputs, and ``"critic"``; and
            ``"actor.log_std"`` of a Gaussian policy.
        x: ``(P, B, D)``, the input of both networks.
        activation: of both networks.
        batch: the samples.
        critic: whether there is a value loss; without one the targets stand for the values.
        clipping: the limits.
        sizes: int64 ``(P,)``, how many samples of each member may be valid, if not all B; then no gradient flows to
            ``x``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
        RuntimeError: in the backward pass, if it is asked for a graph of itself (``create_graph=True``).
    """
    names = ("actor", "critic") if critic else ("actor",)
    passes = [_cached_or_computed(params, name, x, activation, batch, sizes) for name in names]
    leaves = [leaf for name in names for leaf in layer_leaves(params, name)]
    log_std = params["actor.log_std"] if spec.distribution.log_stds else None
    return _Losses.apply(  # type: ignore[no-untyped-call]
        spec, ACTIVATIONS[activation], passes, (batch, clipping), sizes, x, log_std, *leaves
    )


def tensor_losses(
    log_prob: Tensor, entropy: Tensor, value: Tensor, batch: Batch, clipping: Clipping
) -> tuple[Tensor, ...]:
    """Compute by tensor operations what :func:`compiled_losses` does, from numbers ``(P, B)`` of each sample."""
    policy, value_loss, mean_entropy = losses.actor_critic_terms(
        log_prob, entropy, value, batch.advantage, batch.target, batch.valid
    )
    if clipping.value is not None:
        assert batch.value is not None
        value_loss = losses.clipped_value_loss(value, batch.value, batch.target, batch.valid, clipping.value)
    if batch.log_prob is None:
        return policy, value_loss, mean_entropy
    pair = (log_prob, batch.log_prob)
    kl = losses.sample_kl(*pair, batch.valid)
    if clipping.ratio is None:
        return policy, value_loss, mean_entropy, kl
    policy = losses.clipped_surrogate_loss(*pair, batch.advantage, batch.valid, clipping.ratio)
    return policy, value_loss, mean_entropy, kl, losses.clip_fraction(*pair, batch.valid, clipping.ratio)


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
    """``(spec, activation, passes, (batch, clipping), sizes, x, log_std or None, *leaves) -> `` all means, by one
    forward pass per network."""

    @staticmethod
    def forward(
        ctx: Any,
        spec: LossSpec,
        activation: Activation,
        passes: Sequence[LayerOutputs],
        data: tuple[Batch, Clipping],
        sizes: Tensor | None,
        x: Tensor,
        log_std: Tensor | None,
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        samples = _samples(spec, passes, data, x)
        log_std = None if log_std is None else log_std.contiguous()
        means = x.new_empty(spec.means + 1, x.shape[0])
        arguments = LossMeans(
            members=x.shape[0],
            rows=x.shape[1],
            sizes=address_of(sizes),
            samples=_sample_arguments(samples, log_std),
            means=means.data_ptr(),
        )
        _means_kernel(spec, x.dtype)(*flatten(arguments))
        ctx.spec = spec
        ctx.activation = activation
        ctx.passes = passes
        ctx.sizes = sizes
        ctx.save_for_backward(x, log_std, means, *samples, *leaves)
        return means[: spec.means].unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # create_graph=True: the compiled gradient is opaque to autograd, which would take its derivative for zero.
            raise RuntimeError("policy.losses is differentiable once: for second derivatives use policy.outputs")
        x, log_std, means, *others = ctx.saved_tensors
        samples = others[:_SAMPLE_TENSORS]
        members, rows, width = x.shape
        size = ctx.spec.distribution.network_outputs
        source = contiguous_rows(x)
        term_grads = torch.stack(grads[:3])  # the others are measurements
        buffers = [allocate_backward(x, outputs, ctx.needs_input_grad[5]) for outputs in ctx.passes]
        log_std_grad = None if log_std is None else torch.empty_like(log_std)
        scratch = x.new_empty(rows * (size + 1) + max(buffer.scratch for buffer in buffers))
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
        _gradients_kernel(ctx.activation, ctx.spec, len(buffers), x.dtype)(*flatten(arguments))
        x_grads = [buffer.x_grad for buffer in buffers if buffer.x_grad is not None]
        leaf_grads = [grad for buffer in buffers for grad in buffer.leaf_grads]
        x_grad = sum(x_grads[1:], x_grads[0]) if x_grads else None
        return None, None, None, None, None, x_grad, log_std_grad, *leaf_grads


_SAMPLE_TENSORS = 10
"""How many tensors :func:`_samples` lists."""


def _samples(
    spec: LossSpec, passes: Sequence[LayerOutputs], data: tuple[Batch, Clipping], x: Tensor
) -> list[Tensor | None]:
    """List outputs and values, maybe of more samples, then actions, advantages, targets and validity of the samples,
    and what clipping needs: old log-probabilities, old values, limits of both; None where it needs nothing.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    batch, clipping = data
    shape = tuple(x.shape[:2])
    distribution = spec.distribution
    columns = (
        ("action", batch.action, distribution.action_dtype(x.dtype), distribution.action_shape(shape)),
        ("advantage", batch.advantage, x.dtype, shape),
        ("target", batch.target, x.dtype, shape),
        ("valid", batch.valid, torch.bool, shape),
        ("log_prob", batch.log_prob if spec.ratio else None, x.dtype, shape),
        ("value", batch.value if spec.clip_value else None, x.dtype, shape),
        ("clip_range", clipping.ratio, x.dtype, shape[:1]),
        ("clip_range_vf", clipping.value, x.dtype, shape[:1]),
    )
    for name, tensor, dtype, expected in columns:
        if tensor is not None and (tensor.dtype != dtype or tensor.shape != expected or not tensor.is_cpu):
            received = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            raise ValueError(f"expected {name} of {dtype} {expected} on cpu, got {received}")
    others = [None if tensor is None else tensor.contiguous() for _, tensor, _, _ in columns]
    outputs, *values = (forward.results[-1] for forward in passes)
    return [outputs, values[0] if values else others[2], *others]


def _sample_arguments(samples: Sequence[Tensor | None], log_std: Tensor | None) -> Samples:
    """Point compiled losses to the tensors of :func:`_samples`."""
    outputs, value, *others = samples
    assert outputs is not None
    assert value is not None
    action, advantage, target, valid, old_log_prob, old_value, clip_range, clip_range_vf = map(address_of, others)
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
        old_log_prob=old_log_prob,
        old_value=old_value,
        clip_range=clip_range,
        clip_range_vf=clip_range_vf,
    )
