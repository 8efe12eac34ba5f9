"""Stochastic policies: what a network's outputs mean as a distribution over actions, and the networks themselves.

A head is a handful of pure functions of ``outputs``, the ``(P, B, L)`` numbers that the network gives for each
observation. Sampling is a function of uniform numbers in (0, 1) that the caller draws, so it is as reproducible
as the caller's stream.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.activations import ACTIVATIONS
from pgkit.categorical import MOST_COMPILED, compiled_kl, compiled_sample, entropy, is_compiled, log_prob, log_probs
from pgkit.compiled_losses import compiled_losses
from pgkit.compiled_passes import Form
from pgkit.losses import actor_critic_terms
from pgkit.machine import compiles
from pgkit.networks import Tapes, init_mlp, kept_pass, layer_leaves, mlp
from pgkit.seeding import stream_keys
from pgkit.types import Batch, Params, PgkitError, Rollout

if TYPE_CHECKING:
    from gymnasium import Space

LOG_TWO_PI = math.log(2 * math.pi)


class Head(NamedTuple):
    """A family of action distributions.

    Attributes:
        name: of the family.
        width: L, how many numbers describe the distribution at one observation.
        noise: how many uniform numbers one sample takes.
        sample: ``(outputs (..., B, L), uniform (..., B, noise)) -> action (..., B)`` or ``(..., B, A)``.
        mode: ``outputs -> `` the most likely action.
        log_prob: ``(outputs, action) -> (..., B)``, natural logarithm of the probability (density).
        entropy: ``outputs -> (..., B)``, in nats.
        kl: ``(outputs, other) -> (..., B)``, the divergence KL(outputs || other) in nats.
    """

    name: str
    width: int
    noise: int
    sample: Callable[[Tensor, Tensor], Tensor]
    mode: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]
    entropy: Callable[[Tensor], Tensor]
    kl: Callable[[Tensor, Tensor], Tensor]

    @property
    def is_written_down(self) -> bool:
        """Whether acting and losses can be compiled: :mod:`pgkit.categorical` has this distribution for one sample."""
        return self.name == "categorical" and self.width <= MOST_COMPILED


def categorical(choices: int) -> Head:
    """One of ``choices`` actions, by the softmax of the outputs; sampled by inverting the distribution function."""

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        if is_compiled(outputs):
            return compiled_sample(outputs, uniform.squeeze(-1))
        cumulative = torch.softmax(outputs.mT, -2)[..., :-1, :].cumsum(-2)
        return torch.sum(cumulative < uniform.mT, -2)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        if is_compiled(outputs) and not (outputs.requires_grad or other.requires_grad):
            return compiled_kl(outputs, other)
        logs = log_probs(outputs)
        return (logs.exp() * (logs - log_probs(other))).sum(-2)

    return Head("categorical", choices, 1, sample, lambda outputs: outputs.argmax(-1), log_prob, entropy, kl)


def multi_categorical(choices: Sequence[int]) -> Head:
    """Independent categorical components, ``choices[a]`` actions in component a; actions are ``(..., A)``."""
    parts = [categorical(count) for count in choices]
    sizes = list(choices)

    def each(outputs: Tensor) -> list[tuple[Head, Tensor]]:
        return list(zip(parts, outputs.split(sizes, -1), strict=True))

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        return torch.stack([part.sample(o, uniform[..., a : a + 1]) for a, (part, o) in enumerate(each(outputs))], -1)

    def mode(outputs: Tensor) -> Tensor:
        return torch.stack([part.mode(o) for part, o in each(outputs)], -1)

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        terms = [part.log_prob(o, action[..., a]) for a, (part, o) in enumerate(each(outputs))]
        return torch.stack(terms, -1).sum(-1)

    def entropy(outputs: Tensor) -> Tensor:
        return torch.stack([part.entropy(o) for part, o in each(outputs)], -1).sum(-1)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        pairs = zip(each(outputs), other.split(sizes, -1), strict=True)
        return torch.stack([part.kl(o, p) for (part, o), p in pairs], -1).sum(-1)

    return Head("multi-categorical", sum(sizes), len(sizes), sample, mode, log_prob, entropy, kl)


def bernoulli(components: int) -> Head:
    """Independent yes/no components, P(1) = sigmoid(output); actions are ``(..., A)`` of 0 and 1."""

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        return (uniform < torch.sigmoid(outputs)).long()

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        return -functional.softplus((1 - 2 * action) * outputs).sum(-1)

    def entropy(outputs: Tensor) -> Tensor:
        return (functional.softplus(outputs) - outputs * torch.sigmoid(outputs)).sum(-1)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        difference = torch.sigmoid(outputs) * (outputs - other)
        return (difference - functional.softplus(outputs) + functional.softplus(other)).sum(-1)

    return Head("bernoulli", components, components, sample, lambda o: (o > 0).long(), log_prob, entropy, kl)


def gaussian(components: int) -> Head:
    """Independent normal components; outputs are A means, then A logarithms of standard deviations.

    The log-probability is that of the drawn action. Environments see it clipped into their bounds.
    """

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        mean, log_std = outputs.chunk(2, -1)
        return mean + log_std.exp() * torch.special.ndtri(uniform)

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        mean, log_std = outputs.chunk(2, -1)
        return (-0.5 * ((action - mean) * (-log_std).exp()) ** 2 - log_std - 0.5 * LOG_TWO_PI).sum(-1)

    def entropy(outputs: Tensor) -> Tensor:
        return (outputs.chunk(2, -1)[1] + 0.5 * (1 + LOG_TWO_PI)).sum(-1)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        (mean, log_std), (other_mean, other_log_std) = outputs.chunk(2, -1), other.chunk(2, -1)
        variance_ratio = (2 * (log_std - other_log_std)).exp()
        distance = ((mean - other_mean) * (-other_log_std).exp()) ** 2
        return 0.5 * (variance_ratio + distance - 1 - 2 * (log_std - other_log_std)).sum(-1)

    def mode(outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0]

    return Head("gaussian", 2 * components, components, sample, mode, log_prob, entropy, kl)


def head_for(space: "Space[Any]") -> Head:
    """The head for a Gymnasium action space.

    Raises:
        PgkitError: the space is none of Discrete, Box, MultiDiscrete and MultiBinary.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return multi_categorical([int(count) for count in space.nvec.ravel()])
    if isinstance(space, spaces.MultiBinary):
        return bernoulli(math.prod(space.shape))
    if isinstance(space, spaces.Box):
        return gaussian(math.prod(space.shape))
    raise PgkitError(f"action space {space} is not supported: use Discrete, Box, MultiDiscrete or MultiBinary")


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
        orthogonal: initial weights, see :func:`pgkit.networks.init_mlp`.
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
    def packs(self) -> bool:
        """Whether on CPU a member's losses, by samples that are packed, do not depend on how many others have."""
        return self.head.is_written_down and not self.shared

    def outputs(self, params: Params, obs: Tensor, tapes: Tapes | None = None) -> Tensor:
        """``(P, B, D) -> (P, B, L)``, what the head turns into a distribution; for ``tapes`` see :func:`mlp`."""
        x = self._features(params, obs, tapes)
        outputs = mlp(params, "actor", x, self.activation, tapes=tapes)
        if self.head.name == "gaussian":
            outputs = torch.cat([outputs, params["actor.log_std"].expand_as(outputs)], -1)
        return outputs

    def acting_layers(self, params: Params) -> tuple[Form, list[Tensor]]:
        """The layers from observations to outputs, one after the other; not for a Gaussian head."""
        leaves = layer_leaves(params, "trunk") + layer_leaves(params, "actor")
        return (ACTIVATIONS[self.activation], len(leaves) // 2 - 1), leaves

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
        sizes, batch = batch.packing and batch.packing.sizes, batch.packed()
        if self.head.is_written_down and compiles(batch.obs.dtype, batch.obs.device):
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
        kept = kept_pass("critic", packing.obs, self.activation, leaves, rollout.tapes, packing.read)
        rollout.tapes["critic"] = kept
        numbers = kept.tape.after[-1].squeeze(2)
        return packing.spread(numbers, steps * count).view(members, steps, count).transpose(0, 1)

    def _strip_value(self, params: Params, obs: Tensor, tapes: Tapes | None = None) -> Tensor:
        """``(T, P, N, D) -> (T, P, N)``."""
        steps, members, count = obs.shape[:3]
        flat = obs.transpose(0, 1).reshape(members, steps * count, -1)
        return self.value(params, flat, tapes).view(members, steps, count).transpose(0, 1)

    def _features(self, params: Params, obs: Tensor, tapes: Tapes | None) -> Tensor:
        return mlp(params, "trunk", obs, self.activation, activate_last=True, tapes=tapes) if self.shared else obs
