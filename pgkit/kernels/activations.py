"""The activation functions of networks, with their derivatives."""

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


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, lambda grad, y: grad * (1.0 - y * y)),
    "relu": Activation(torch.relu, lambda grad, y: torch.where(y > 0.0, grad, 0.0)),
    "elu": Activation(functional.elu, lambda grad, y: torch.where(y > 0.0, grad, grad * (y + 1.0))),
    "silu": Activation(functional.silu, _silu_backward, keeps_argument=True),
}
"""By the names that configurations use."""
