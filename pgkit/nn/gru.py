"""A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078), with the equations of ``torch.nn.GRU``:

    r = sigmoid(x W_r + b_r + h U_r + c_r)          z = sigmoid(x W_z + b_z + h U_z + c_z)
    n = tanh(x W_n + b_n + r (h U_n + c_n))         h' = (1 - z) n + z h

h is the memory, 0 at the first step of an episode. While acting, members step one step at a time. A learner sees whole
sequences, and gradients flow back through all their steps. So that samples stay rows of one tensor wherever they go,
each carries what its sequence needs, in columns behind its observation: the memory at the sequence's start, whether an
episode begins with this step, and how many steps of the sequence precede it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS, Activation
from pgkit.nn.layers import activate, linear
from pgkit.nn.mlp import init_weight
from pgkit.seeding import stream_keys
from pgkit.types import Params

_SIGMOID = Activation(torch.sigmoid, lambda grad, y: grad * (y * (1.0 - y)))

_GATES = 3

MARKS = 2
"""Columns behind the memory: whether an episode begins, and the step's number."""


def sequences(obs: Tensor, memory: Tensor, begins: Tensor) -> Tensor:
    """Append to observations what :meth:`GRU.apply` needs.

    >>> x = sequences(torch.zeros(5, 3, 2, 4), torch.zeros(3, 2, 8), torch.zeros(5, 3, 2, dtype=torch.bool))
    >>> x.shape  # D + M + 2
    torch.Size([5, 3, 2, 14])

    Args:
        obs: ``(T, P, N, D)``.
        memory: ``(P, N, M)`` at the first step, or ``(T, P, N, M)``, of which each step is a sequence of its own.
        begins: bool ``(T, P, N)``, whether an episode begins with a step; its first one needs no mark where the memory
            is 0.
    """
    steps = len(obs)
    if memory.dim() == obs.dim():
        number = torch.zeros(steps, device=obs.device)
    else:
        number = torch.arange(steps, device=obs.device)
        memory = memory.expand(steps, *memory.shape)
    marks = torch.stack([begins.to(obs.dtype), number.to(obs.dtype).view(-1, 1, 1).expand(begins.shape)], -1)
    return torch.cat([obs, memory, marks], -1)


@dataclass(frozen=True)
class GRU:
    """The unit as a :class:`pgkit.nn.network.Network`; its features are its memory after the step.

    >>> network = GRU(inputs=4, hidden_size=8)
    >>> params = network.init("net", seeds=[0, 1], stream=3)
    >>> network.step(params, "net", torch.zeros(2, 5, 4), torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])

    Attributes:
        inputs: D.
        hidden_size: M, as ``torch.nn.GRU`` calls it.
    """

    inputs: int
    hidden_size: int = 64

    @property
    def features(self) -> int:
        """M."""
        return self.hidden_size

    @property
    def memory(self) -> int:
        """M."""
        return self.hidden_size

    def init(self, name: str, seeds: Sequence[int], stream: int) -> Params:
        """Draw orthogonal weights of each gate, as most recurrent policies have, and zero biases."""
        keys = stream_keys(seeds, "weights", stream + 1)[:, stream]
        params: Params = {}
        for part, inputs in (("input", self.inputs), ("memory", self.hidden_size)):
            first = 0 if part == "input" else _GATES
            shape = (inputs, self.hidden_size)
            gates = [init_weight(keys, layer, shape) for layer in range(first, first + _GATES)]
            params[f"{name}.{part}.weight"] = torch.cat(gates, 2)
            params[f"{name}.{part}.bias"] = torch.zeros(len(seeds), 1, _GATES * self.hidden_size)
        return params

    def step(self, params: Params, name: str, x: Tensor, memory: Tensor) -> Tensor:
        """The memory ``(P, B, M)`` after a step with observations ``(P, B, D)``."""
        return self._advance(params, name, self._inputs(params, name, x), memory)

    def apply(self, params: Params, name: str, x: Tensor) -> Tensor:
        """Compute features ``(P, T * N, M)`` of sequences, see :func:`sequences`: ``(P, T * N, D + M + 2)``.

        Samples stand in the order of their steps, those of all N environments together.
        """
        obs, memory, marks = x.split([self.inputs, self.hidden_size, MARKS], -1)
        steps = int(marks[0, -1, 1]) + 1
        members, count = len(x), x.shape[1] // steps
        gates = self._inputs(params, name, obs).view(members, steps, count, -1)
        begins = marks[..., 0].view(members, steps, count, 1) > 0
        state = memory.view(members, steps, count, -1)[:, 0]
        features = []
        for step in range(steps):
            state = torch.where(begins[:, step], 0.0, state)
            state = self._advance(params, name, gates[:, step], state)
            features.append(state)
        return torch.stack(features, 1).flatten(1, 2)

    def _inputs(self, params: Params, name: str, x: Tensor) -> Tensor:
        """What observations add to the gates, ``(P, B, 3 M)``."""
        return linear(x, params[f"{name}.input.weight"], params[f"{name}.input.bias"])

    def _advance(self, params: Params, name: str, inputs: Tensor, memory: Tensor) -> Tensor:
        remembered = linear(memory, params[f"{name}.memory.weight"], params[f"{name}.memory.bias"])
        reset_x, update_x, new_x = inputs.chunk(_GATES, -1)
        reset_h, update_h, new_h = remembered.chunk(_GATES, -1)
        reset = activate(reset_x + reset_h, _SIGMOID)
        update = activate(update_x + update_h, _SIGMOID)
        new = activate(new_x + reset * new_h, ACTIVATIONS["tanh"])
        return (1.0 - update) * new + update * memory
