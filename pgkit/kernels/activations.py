"""The activation functions of networks, with their derivatives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional


class Activation(NamedTuple):
    """An element-wise function of tensors, which compiled passes trace for one element (:mod:`pgkit.compiler.tracer`).

    Attributes:
        plain: the function ``y = f(x)``.
        backward: ``backward(grad, stored)``, the gradient with respect to x, given that with respect to y. ``stored``
            is y; with ``keeps_argument`` it is x.
        keeps_argument: the derivative cannot be computed from y, so forward passes store x, too.
    """

    plain: Callable[[Any], Any]
    backward: Callable[[Any, Any], Any]
    keeps_argument: bool = False


def _silu_backward(grad: Any, x: Any) -> Any:
    gate = torch.sigmoid(x)
    return grad * (gate * (x * (1.0 - gate) + 1.0))


_GELU_SCALE = (2.0 / math.pi) ** 0.5
_GELU_CUBIC = 0.044715


def _gelu(x: Any) -> Any:
    """Hendrycks and Gimpel 2016 (arXiv 1606.08415), their approximation by tanh, which is JAX's default, too."""
    return 0.5 * x * (1.0 + torch.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x)))


def _gelu_backward(grad: Any, x: Any) -> Any:
    gate = torch.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x))
    slope = _GELU_SCALE * (1.0 + 3.0 * _GELU_CUBIC * x * x)
    return grad * (0.5 * (1.0 + gate) + 0.5 * x * (1.0 - gate * gate) * slope)


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, lambda grad, y: grad * (1.0 - y * y)),
    "relu": Activation(torch.relu, lambda grad, y: torch.where(y > 0.0, grad, 0.0)),
    "elu": Activation(functional.elu, lambda grad, y: torch.where(y > 0.0, grad, grad * (y + 1.0))),
    "gelu": Activation(_gelu, _gelu_backward, keeps_argument=True),
    "silu": Activation(functional.silu, _silu_backward, keeps_argument=True),
}
"""By the names that configurations use."""
