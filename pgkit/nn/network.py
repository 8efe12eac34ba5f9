"""What stands between observations and the heads of a policy, if that is more than :mod:`pgkit.nn.mlp` has.

A network turns observations into features. The layers of actor and critic follow, and end in the head's outputs and in
the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.nn.layers import activate, layer_norm, linear
from pgkit.nn.mlp import init_mlp
from pgkit.seeding import stream_keys
from pgkit.types import Params


class Network(Protocol):
    """A network for every member of a population; it holds no parameters, as :class:`pgkit.nn.policy.Policy`.

    Attributes:
        features: F, the number of features that come out.
        memory: M, the numbers that it remembers from one step of an episode to the next; 0 if it is not recurrent.
    """

    @property
    def features(self) -> int: ...

    @property
    def memory(self) -> int: ...

    def init(self, name: str, seeds: Sequence[int], stream: int) -> Params:
        """Draw initial parameters ``(P, ...)``, whose names begin with ``name``.

        Args:
            name: prefix of the names.
            seeds: P of them; each member's parameters depend on its seed alone.
            stream: number of the stream of "weights"; two networks of one member need different ones.
        """
        ...

    def apply(self, params: Params, name: str, x: Tensor) -> Tensor:
        """Compute ``(P, B, D) -> (P, B, F)``; a recurrent network takes what :func:`pgkit.nn.gru.sequences` makes."""
        ...


@dataclass(frozen=True)
class LayerNormMLP:
    """Hidden layers with layer norm before each activation: ``activation(norm(x @ weight + bias))``.

    >>> import torch
    >>> network = LayerNormMLP(4, (8,), "tanh", (1.0,))
    >>> params = network.init("net", seeds=[0, 1], stream=3)
    >>> network.apply(params, "net", torch.zeros(2, 5, 4)).shape
    torch.Size([2, 5, 8])

    Attributes:
        inputs: D.
        hidden: widths of the layers.
        activation: one of ``ACTIVATIONS``.
        gains: factor of each layer's initial weights.
        orthogonal: see :func:`pgkit.nn.mlp.init_mlp`.
    """

    inputs: int
    hidden: tuple[int, ...]
    activation: str
    gains: tuple[float, ...]
    orthogonal: bool = True

    @property
    def features(self) -> int:
        """Width of the last layer."""
        return self.hidden[-1] if self.hidden else self.inputs

    @property
    def memory(self) -> int:
        """None is needed."""
        return 0

    def init(self, name: str, seeds: Sequence[int], stream: int) -> Params:
        """Draw weights as :func:`pgkit.nn.mlp.init_mlp`; norms begin with weight 1 and bias 0."""
        keys = stream_keys(seeds, "weights", stream + 1)[:, stream]
        params = init_mlp(name, keys, [self.inputs, *self.hidden], self.gains, self.orthogonal)
        for layer in range(len(self.hidden)):
            bias = params[f"{name}.{layer}.bias"]
            params[f"{name}.{layer}.norm.weight"] = bias + 1.0
            params[f"{name}.{layer}.norm.bias"] = bias.clone()
        return params

    def apply(self, params: Params, name: str, x: Tensor) -> Tensor:
        """Apply the layers."""
        for layer in range(len(self.hidden)):
            place = f"{name}.{layer}"
            x = linear(x, params[f"{place}.weight"], params[f"{place}.bias"])
            x = layer_norm(x, params[f"{place}.norm.weight"], params[f"{place}.norm.bias"])
            x = activate(x, ACTIVATIONS[self.activation])
        return x
