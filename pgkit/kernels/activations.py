"""The functions that stand between layers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional


class Activation(NamedTuple):
    """An element-wise function, of tensors or of what is written down for one element (:mod:`pgkit.compiler.tracer`).

    Attributes:
        plain: the function.
        backward: ``backward(grad, kept)``, the gradient of the argument from that of the result and from what the
            function gave, or was given if ``keeps_argument``.
        keeps_argument: the backward pass wants the argument.
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
