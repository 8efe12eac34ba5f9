"""The losses of a categorical policy and its critic as one node of autograd's graph: on CPU, two calls for all layers.

Forward, what the networks have computed while acting is taken from their tapes. Backward, each member's samples are
turned into gradients of outputs and values in closed form, which go through the layers while they are in the cache.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pgkit.compiler.signature import address_of, flatten
from pgkit.kernels.activations import Activation
from pgkit.kernels.categorical import entropy, log_prob
from pgkit.kernels.mlp import allocate_backward, contiguous_rows
from pgkit.losses import actor_critic_terms
from pgkit.nn.mlp import CachedForward, kept_pass, layer_by_layer, layer_leaves
from pgkit.types import Batch, Params


def compiled_losses(
    params: Params, x: Tensor, activation: str, batch: Batch, critic: bool, sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Policy loss, value loss and mean entropy, ``(P,)`` each, see :func:`pgkit.losses.actor_critic_terms`.

    Args:
        params: those of the networks "actor", which gives the outputs of a categorical head, and "critic".
        x: ``(P, B, D)``, what the networks see.
        activation: of both.
        batch: the samples.
        critic: without, the values are the targets.
        sizes: int64 ``(P,)``, how many of a member's samples may count, if not all; then ``x`` has no gradient.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    names = ("actor", "critic") if critic else ("actor",)
    leaves = [layer_leaves(params, name) for name in names]
    pairs = zip(names, leaves, strict=True)
    networks = [kept_pass(name, x, activation, own, batch.tapes, sizes) for name, own in pairs]
    return _Losses.apply(networks, batch, sizes, x, *(leaf for own in leaves for leaf in own))  # type: ignore[no-untyped-call]


class _Losses(torch.autograd.Function):
    """``(networks, batch, sizes, x, *leaves) -> `` the three losses; ``networks`` are the passes through them."""

    @staticmethod
    def forward(
        ctx: Any, networks: Sequence[CachedForward], batch: Batch, sizes: Tensor | None, x: Tensor, *leaves: Tensor
    ) -> tuple[Tensor, ...]:
        samples, means = _samples(networks, batch, x), x.new_empty(4, x.shape[0])
        arguments = address_of(sizes), *_arguments(samples)
        _means(samples[0].shape[2], x.dtype)(*x.shape[:2], *arguments, means.data_ptr())
        ctx.networks, ctx.sizes = networks, sizes
        ctx.save_for_backward(x, means, *samples, *leaves)
        return means[:3].unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, means, *others), networks = ctx.saved_tensors, ctx.networks
        samples, leaves = others[:6], others[6:]
        if torch.is_grad_enabled():  # somebody asks for second derivatives
            return None, None, None, *_differentiable_backward(networks, samples, x, leaves, grads)
        source = contiguous_rows(x)
        buffers = [allocate_backward(x, network.layers, ctx.needs_input_grad[3]) for network in networks]
        (members, rows, width), choices, given = x.shape, samples[0].shape[2], torch.stack(grads)
        scratch = x.new_empty(rows * (choices + 1) + max(buffer.scratch for buffer in buffers))
        workspace = x.new_empty(max(buffer.workspace for buffer in buffers))
        _gradients(networks[0].spec.activation, choices, len(networks), x.dtype)(
            *(members, rows, address_of(ctx.sizes), *_arguments(samples), given.data_ptr(), means.data_ptr()),
            *(source.data_ptr(), source.stride(0) // width, scratch.data_ptr(), workspace.data_ptr()),
            *flatten(buffer.arguments for buffer in buffers),
        )
        of_x = [buffer.x_grad for buffer in buffers if buffer.x_grad is not None]
        of_leaves = [grad for buffer in buffers for grad in buffer.leaf_grads]
        return None, None, None, sum(of_x[1:], of_x[0]) if of_x else None, *of_leaves


def _samples(networks: Sequence[CachedForward], batch: Batch, x: Tensor) -> list[Tensor]:
    """Outputs and values of samples, maybe more of them; their actions, advantages, targets, and which of them count.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
    """
    others = [field.contiguous() for field in (batch.action, batch.advantage, batch.target, batch.valid)]
    kinds = [torch.int64, x.dtype, x.dtype, torch.bool]
    fit = all(tensor.shape == x.shape[:2] and tensor.is_cpu for tensor in others)
    if not fit or [tensor.dtype for tensor in others] != kinds:
        given = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in others)
        raise ValueError(
            f"expected action, advantage, target, valid of samples {tuple(x.shape[:2])} on cpu, got {given}"
        )
    outputs, *values = (network.layers.results[-1] for network in networks)
    return [outputs, *(values or [others[2]]), *others]


def _arguments(samples: Sequence[Tensor]) -> tuple[int, ...]:
    """The arguments :data:`pgkit.kernels.codegen.policy_loss.SAMPLES`."""
    outputs, value, *others = samples
    first = outputs.data_ptr(), outputs.shape[1], value.data_ptr(), value.shape[1]
    return *first, *(tensor.data_ptr() for tensor in others)


def _differentiable_backward(
    networks: Sequence[CachedForward],
    samples: Sequence[Tensor],
    x: Tensor,
    leaves: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradients of input and leaves by autograd, so that they can be differentiated."""
    (action, *weighed), of_actor = samples[2:], len(networks[0].layers.leaves)
    parts = zip(networks, (leaves[:of_actor], leaves[of_actor:]), strict=False)
    outputs, *values = (layer_by_layer(network.spec, x, own) for network, own in parts)
    value = values[0].squeeze(-1) if values else samples[4]
    of_samples = log_prob(outputs, action), entropy(outputs), value
    results = zip(actor_critic_terms(*of_samples, *weighed), grads, strict=True)
    terms, given = zip(*(pair for pair in results if pair[0].requires_grad), strict=True)
    wanted = [leaf for leaf in (x, *leaves) if leaf.requires_grad]
    found = iter(torch.autograd.grad(terms, wanted, given, create_graph=True))
    return [next(found) if leaf.requires_grad else None for leaf in (x, *leaves)]


@lru_cache
def _means(choices: int, dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.kernels.codegen.policy_loss import compile_means  # LLVM is loaded where something is compiled

    return compile_means(choices, dtype)


@lru_cache
def _gradients(activation: Activation, choices: int, networks: int, dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.kernels.codegen.policy_loss import compile_gradients

    return compile_gradients(activation, choices, networks, dtype)
