"""Stacked multi-layer perceptrons: one batched matrix product per layer for the whole population."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.seeding import uniform
from pgkit.types import Params

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "elu": functional.elu,
    "silu": functional.silu,
}

_LAYER_STRIDE = 1 << 32  # counters of one layer's weights never reach the next layer's


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` for each member: ``(P, B, in)``, ``(P, in, out)``, ``(P, 1, out)`` -> ``(P, B, out)``.

    A width of one is padded to two: the matrix-vector kernels that BLAS takes for width one round
    differently for one member than for many, and a member must not depend on its neighbours.
    """
    if weight.shape[1] == 1:
        x, weight = functional.pad(x, (0, 1)), functional.pad(weight, (0, 0, 0, 1))
    if weight.shape[2] == 1:
        return torch.baddbmm(functional.pad(bias, (0, 1)), x, functional.pad(weight, (0, 1)))[..., :1]
    return torch.baddbmm(bias, x, weight)


def mlp(params: Params, name: str, x: Tensor, activation: str, activate_last: bool = False) -> Tensor:
    """Apply the layers ``name.0``, ``name.1``, ... to ``x`` of shape ``(P, B, D)``.

    The activation stands between layers, and after the last one if ``activate_last``.
    """
    activate = ACTIVATIONS[activation]
    layers = layer_count(params, name)
    for layer in range(layers):
        x = linear(x, params[f"{name}.{layer}.weight"], params[f"{name}.{layer}.bias"])
        if layer < layers - 1 or activate_last:
            x = activate(x)
    return x


def layer_count(params: Params, name: str) -> int:
    """The number of layers stored under ``name``."""
    count = 0
    while f"{name}.{count}.weight" in params:
        count += 1
    return count


def init_mlp(name: str, keys: Tensor, sizes: Sequence[int], gains: Sequence[float], orthogonal: bool = True) -> Params:
    """Weights ``(P, in, out)`` and zero biases ``(P, 1, out)`` of the layers ``sizes[0] -> sizes[1] -> ...``.

    Args:
        name: prefix of the parameter names; distinct prefixes need distinct keys.
        keys: int64 ``(P,)``, one random stream per member.
        sizes: widths, input first.
        gains: factor of each layer's weights, ``len(sizes) - 1`` of them.
        orthogonal: semi-orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), the custom of policy-gradient
            code; otherwise normal with standard deviation ``gain / sqrt(in)`` (LeCun).
    """
    params = {}
    for layer, (fan_in, fan_out, gain) in enumerate(zip(sizes[:-1], sizes[1:], gains, strict=True)):
        normal = _normal(keys, layer, (fan_in, fan_out))
        weight = _orthogonal(normal) if orthogonal else normal / fan_in**0.5
        params[f"{name}.{layer}.weight"] = gain * weight
        params[f"{name}.{layer}.bias"] = torch.zeros(len(keys), 1, fan_out)
    return params


def _normal(keys: Tensor, layer: int, shape: tuple[int, int]) -> Tensor:
    """Standard normal numbers ``(P, *shape)``, a function of each member's key and the layer alone."""
    counter = torch.arange(shape[0] * shape[1]).reshape(1, *shape) + layer * _LAYER_STRIDE
    return torch.special.ndtri(uniform(keys[:, None, None], counter))


def _orthogonal(normal: Tensor) -> Tensor:
    """Uniformly random semi-orthogonal matrices by QR, signs fixed so that the distribution is uniform."""
    tall = normal if normal.shape[1] >= normal.shape[2] else normal.mT
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    return (q if tall is normal else q.mT).contiguous()
