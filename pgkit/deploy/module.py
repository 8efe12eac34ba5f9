"""A trained policy as a plain ``torch.nn.Module``: for ``torch.export``, ONNX, safetensors, or further training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pgkit.deploy.spaces import PolicySpaces
from pgkit.envs import normalize
from pgkit.envs.rescale import far_components
from pgkit.nn.policy import Policy
from pgkit.types import Params


class PolicyModule(nn.Module):
    """One member's actor, normalization of observations included.

    ``forward`` takes observations ``(B, D)`` float32, flattened (``TrainedPolicy.flatten``) but not normalized. It
    returns a tuple, whose names are in :attr:`output_names`:

    - of discrete actions ``(logits (B, L), action)``: probabilities are their softmax, for each component of a
      MultiDiscrete space its slice; of MultiBinary their sigmoid;
    - of continuous actions ``(mean (B, A), log_std (B, A), action)``, before clipping and rescaling.

    ``action`` ``(B, ...)`` is the most likely one as the environment takes it: in the space's dtype and shape, clipped,
    rescaled or squashed, from the space's start on; action masks are not applied. A recurrent policy has a second
    input, its memory ``(B, M)``, zeros at the first step of an episode, and returns the new one as the last output. The
    module computes with the functions that training computes with; they consist of PyTorch's operations when PyTorch
    traces them. Parameters have pgkit's names and shapes without the member axis: weights ``(in, out)``, biases
    ``(1, out)``.

    Attributes:
        output_names: names of the outputs, as ``torch.onnx.export`` takes them.
    """

    def __init__(self, policy: Policy, params: Params, obs_stats: normalize.Stats | None, spaces: PolicySpaces) -> None:
        super().__init__()
        self._policy = policy
        self._has_stats = obs_stats is not None
        self._count = len(_parts(spaces))
        self.output_names = (*_parts(spaces), "action", *["memory"] * bool(policy.memory))
        for name, leaf in acting_params(params).items():
            _container(self, name).register_parameter(name.rpartition(".")[2], nn.Parameter(leaf[0].clone()))
        for name, leaf in (obs_stats or {}).items():
            _container(self, f"obs_stats.{name}").register_buffer(name, leaf[0].clone())
        self._to_space = _BoxActions(spaces) if _is_box(spaces) else _DiscreteActions(spaces)

    def forward(self, obs: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs for observations ``(B, D)`` and, of a recurrent policy, its memory ``(B, M)``."""
        x = obs[None]
        if self._has_stats:
            stats = {name: buffer[None] for name, buffer in self.get_submodule("obs_stats").named_buffers()}
            x = normalize.apply(stats, x)
        params = {name: leaf[None] for name, leaf in self.named_parameters()}
        after: tuple[Tensor, ...] = ()
        if memory:
            outputs, new_memory = self._policy.step(params, x, memory[0][None])
            after = (new_memory[0],)
        else:
            outputs = self._policy.outputs(params, x)
        action = self._to_space(self._policy.head.mode(outputs)[0])
        return (*outputs[0].chunk(self._count, -1), action, *after)


class _DiscreteActions(nn.Module):
    """From actions counted from 0 to those of Discrete, MultiDiscrete and MultiBinary."""

    def __init__(self, spaces: PolicySpaces) -> None:
        super().__init__()
        space = spaces.action
        self._shape = tuple(space.shape or ())
        start = np.asarray(getattr(space, "start", 0), dtype=space.dtype)
        self.register_buffer("start", torch.from_numpy(np.array(start)), persistent=False)

    def forward(self, action: Tensor) -> Tensor:
        start: Tensor = self.get_buffer("start")
        return action.reshape(-1, *self._shape).to(start.dtype) + start


class _BoxActions(nn.Module):
    """From actions of the learner to those of a Box, as :mod:`pgkit.envs.actions`, ``rescale`` and ``squash`` do it."""

    def __init__(self, spaces: PolicySpaces) -> None:
        super().__init__()
        seen: Any = spaces.info.action_space
        space: Any = spaces.action
        neutral = np.zeros(seen.shape, seen.dtype).clip(seen.low, seen.high)
        arrays = {
            "seen_low": seen.low,
            "seen_high": seen.high,
            "neutral": neutral,
            "low": space.low,
            "high": space.high,
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array.copy()), persistent=False)
        far = far_components(space) if spaces.rescales else np.zeros(space.shape, dtype=bool)
        self.register_buffer("far", torch.from_numpy(far), persistent=False)
        self._rescales = bool(far.any())
        self._squashes = spaces.squashes

    def forward(self, action: Tensor) -> Tensor:
        buffers = dict(self.named_buffers())
        low, high = buffers["low"], buffers["high"]
        action = action.reshape(-1, *low.shape).to(low.dtype)
        if self._squashes:
            share = (torch.tanh(action.double()) + 1.0) / 2.0
            within = (low.double() + share * (high.double() - low.double())).to(low.dtype)
            return torch.minimum(torch.maximum(within, low), high)
        action = torch.minimum(torch.maximum(action, buffers["seen_low"]), buffers["seen_high"])
        action = torch.where(action.abs() < torch.inf, action, buffers["neutral"])  # NaN is not below infinity
        if not self._rescales:
            return action
        low64 = low.double()
        within = low64 + (action.clamp(-1.0, 1.0).double() + 1.0) / 2 * (high.double() - low64)
        scaled = torch.where(buffers["far"], within, action.double()).to(low.dtype)
        return torch.minimum(torch.maximum(scaled, low), high)


def acting_params(params: Mapping[str, Tensor]) -> Params:
    """The parameters that acting needs: all but the critic's."""
    return {name: leaf for name, leaf in params.items() if not name.startswith("critic.")}


def _parts(spaces: PolicySpaces) -> tuple[str, ...]:
    """What the outputs of the networks are."""
    return ("mean", "log_std") if _is_box(spaces) else ("logits",)


def _is_box(spaces: PolicySpaces) -> bool:
    return type(spaces.action).__name__ == "Box"


def _container(module: nn.Module, name: str) -> nn.Module:
    """The submodule for a dotted name, whose parts before the last become modules in each other."""
    for part in name.split(".")[:-1]:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module
