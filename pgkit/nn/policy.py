"""Stochastic policies: what a network's outputs mean as a distribution over actions, and the networks themselves.

A head is a handful of pure functions of ``outputs``, the ``(P, B, L)`` numbers that the network gives for each
observation. Sampling is a function of uniform numbers in (0, 1) that the caller draws, so it is as reproducible
as the caller's stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.kernels.mlp import MLPSpec
from pgkit.losses import actor_critic_terms
from pgkit.nn.distributions import Head
from pgkit.nn.mlp import Tapes, init_mlp, kept_pass, layer_leaves, mlp
from pgkit.nn.policy_loss import compiled_losses
from pgkit.seeding import stream_keys
from pgkit.system.cpu import use_compiled
from pgkit.types import Batch, Params, Rollout


@dataclass(frozen=True)
class Policy:
    """An actor and a critic for every member: names and shapes of parameters, and how to apply them.

    Attributes:
        obs_dim: D.
        head: the action distribution.
        hidden: widths of the actor's hidden layers (of the trunk, if shared).
        critic_hidden: widths of the critic's hidden layers, when it has a network of its own.
        activation: one of ``activations.ACTIVATIONS``.
        shared: actor and critic are two linear heads on one trunk.
        orthogonal: initial weights, see :func:`pgkit.nn.mlp.init_mlp`.
        log_std: initial logarithm of the standard deviation (Gaussian head).
    """

    obs_dim: int
    head: Head
    hidden: tuple[int, ...] = (64, 64)
    critic_hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    shared: bool = False
    orthogonal: bool = True
    log_std: float = 0.0

    def init(self, seeds: Sequence[int]) -> Params:
        """Initial parameters ``(P, ...)``, each member's a function of its own seed alone.

        Gains are sqrt(2) for hidden layers, 0.01 for the actor's last and 1 for the critic's last
        (Andrychowicz et al. 2020, arXiv 2006.05990, found the small last policy layer to matter).
        """
        actor, critic, trunk = stream_keys(seeds, "weights", 3).unbind(1)
        outputs = self.head.width // 2 if self.head.name == "gaussian" else self.head.width
        params: Params = {}
        actor_sizes = [self.obs_dim, *self.hidden, outputs]
        critic_sizes = [self.obs_dim, *self.critic_hidden, 1]
        if self.shared:
            gains = [2**0.5] * len(self.hidden)
            params |= init_mlp("trunk", trunk, actor_sizes[:-1], gains, self.orthogonal)
            actor_sizes, critic_sizes = actor_sizes[-2:], [actor_sizes[-2], 1]
        for name, keys, sizes, last in (("actor", actor, actor_sizes, 0.01), ("critic", critic, critic_sizes, 1.0)):
            params |= init_mlp(name, keys, sizes, [*[2**0.5] * (len(sizes) - 2), last], self.orthogonal)
        if self.head.name == "gaussian":
            params["actor.log_std"] = torch.full((len(seeds), 1, outputs), self.log_std)
        return params

    @property
    def supports_packing(self) -> bool:
        """Whether on CPU a member's losses, by samples that are packed, do not depend on how many others have."""
        return self.head.is_written_down and not self.shared

    def outputs(self, params: Params, obs: Tensor, tapes: Tapes | None = None) -> Tensor:
        """``(P, B, D) -> (P, B, L)``, what the head turns into a distribution; for ``tapes`` see :func:`mlp`."""
        x = self._features(params, obs, tapes)
        outputs = mlp(params, "actor", x, self.activation, tapes=tapes)
        if self.head.name == "gaussian":
            outputs = torch.cat([outputs, params["actor.log_std"].expand_as(outputs)], -1)
        return outputs

    def acting_layers(self, params: Params) -> tuple[MLPSpec, list[Tensor]]:
        """The layers from observations to outputs, one after the other; not for a Gaussian head."""
        leaves = layer_leaves(params, "trunk") + layer_leaves(params, "actor")
        return MLPSpec(ACTIVATIONS[self.activation], len(leaves) // 2 - 1), leaves

    def value(self, params: Params, obs: Tensor, tapes: Tapes | None = None) -> Tensor:
        """``(P, B, D) -> (P, B)``, the critic's estimate of the discounted return; for ``tapes`` see :func:`mlp`."""
        x = self._features(params, obs, tapes)
        return mlp(params, "critic", x, self.activation, tapes=tapes).squeeze(-1)

    def losses(self, params: Params, batch: Batch, critic: bool = True) -> dict[str, Tensor]:
        """What agents make losses of, each a mean over samples, ``(P,)``, by the tags of their metrics.

        Args:
            params: the only ones that gradients flow to.
            batch: the samples.
            critic: with the loss of the values, see :func:`pgkit.losses.actor_critic_terms`.
        """
        sizes, batch = batch.packing and batch.packing.sizes, batch.without_padding()
        if self.head.is_written_down and use_compiled(batch.obs.dtype, batch.obs.device):
            x = self._features(params, batch.obs, batch.tapes)
            terms = compiled_losses(params, x, self.activation, batch, critic, sizes)
        else:
            outputs = self.outputs(params, batch.obs, batch.tapes)
            value = self.value(params, batch.obs, batch.tapes) if critic else batch.target
            log_prob, entropy = self.head.log_prob(outputs, batch.action), self.head.entropy(outputs)
            terms = actor_critic_terms(log_prob, entropy, value, batch.advantage, batch.target, batch.valid)
        named = dict(zip(("loss/policy", "loss/value", "policy/entropy"), terms, strict=True))
        return named if critic else {tag: term for tag, term in named.items() if tag != "loss/value"}

    def values(self, params: Params, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Values of the observations and of the true next observations of a rollout, both ``(T, P, N)``."""
        packed = rollout.packing is not None
        strip = self._packed_value(params, rollout) if packed else self._strip_value(params, rollout.obs, rollout.tapes)
        if rollout.final_obs is None:
            return strip[:-1], strip[1:]
        done = rollout.terminated | rollout.truncated
        return strip[:-1], torch.where(done, self._strip_value(params, rollout.final_obs), strip[1:])

    def _packed_value(self, params: Params, rollout: Rollout) -> Tensor:
        """``(T + 1, P, N)``, 0 where nothing is packed."""
        assert rollout.packing is not None
        steps, members, count = rollout.obs.shape[:3]
        packing, leaves = rollout.packing, layer_leaves(params, "critic")
        kept = kept_pass("critic", packing.obs, self.activation, leaves, rollout.tapes, packing.forward_sizes)
        rollout.tapes["critic"] = kept
        numbers = kept.layers.results[-1].squeeze(2)
        return packing.scatter(numbers, steps * count).view(members, steps, count).transpose(0, 1)

    def _strip_value(self, params: Params, obs: Tensor, tapes: Tapes | None = None) -> Tensor:
        """``(T, P, N, D) -> (T, P, N)``."""
        steps, members, count = obs.shape[:3]
        flat = obs.transpose(0, 1).reshape(members, steps * count, -1)
        return self.value(params, flat, tapes).view(members, steps, count).transpose(0, 1)

    def _features(self, params: Params, obs: Tensor, tapes: Tapes | None) -> Tensor:
        return mlp(params, "trunk", obs, self.activation, activate_last=True, tapes=tapes) if self.shared else obs
