"""Stochastic policies: the networks of an actor and a critic, and what their outputs mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.kernels.distribution import Distribution, LossSpec
from pgkit.kernels.gaussian import append_log_std
from pgkit.kernels.mlp import LayerOutputs, MLPSpec
from pgkit.nn.action_masks import exclude, split_mask
from pgkit.nn.distributions import Head
from pgkit.nn.gru import GRU, MARKS
from pgkit.nn.mlp import forward_pass, init_mlp, layer_leaves, mlp
from pgkit.nn.network import Network
from pgkit.nn.policy_loss import LOSS_TAGS, Clipping, compiled_losses, tensor_losses
from pgkit.seeding import stream_keys
from pgkit.system.cpu import use_compiled
from pgkit.tree import member_samples
from pgkit.types import Batch, ForwardCache, Params, Rollout, Scalar


@dataclass(frozen=True)
class Policy:
    """An actor and a critic for every member of a population: how they are initialized and applied.

    A policy holds no parameters: they are passed to each method, leaves ``(P, ...)``. Actions are sampled from uniform
    numbers that the caller draws, so they are as reproducible as the caller's random stream.

    >>> from pgkit.nn import categorical
    >>> policy = Policy(obs_dim=4, head=categorical(2), hidden=(32,))
    >>> params = policy.init(seeds=[0, 1, 2])  # P = 3
    >>> obs = torch.zeros(3, 5, 4)  # (P, B, D)
    >>> policy.outputs(params, obs).shape
    torch.Size([3, 5, 2])
    >>> policy.value(params, obs).shape
    torch.Size([3, 5])

    Attributes:
        obs_dim: D.
        head: the action distribution, see :class:`pgkit.nn.distributions.Head`.
        hidden: widths of the actor's hidden layers, or of the trunk's layers if ``shared``.
        critic_hidden: widths of the critic's hidden layers, unless ``shared``.
        activation: one of :data:`pgkit.kernels.activations.ACTIVATIONS`: tanh, relu, elu, gelu or silu.
        shared: whether actor and critic are two linear layers on one trunk, or share ``network``.
        orthogonal: whether initial weights are orthogonal, see :func:`pgkit.nn.mlp.init_mlp`.
        log_std: initial logarithm of the standard deviation (Gaussian heads); where it depends on the state, the bias.
        gains: factors of the initial weights of the actor's layers (with ``shared``: of the trunk's, then of the
            actor's); default: sqrt(2) in hidden layers, 0.01 in the last.
        critic_gains: the same of the critic; default: sqrt(2) in hidden layers, 1 in the last.
        network: what stands between observations and these layers; None for nothing.
        critic_network: the same of the critic, unless ``shared``.
    """

    obs_dim: int
    head: Head
    hidden: tuple[int, ...] = (64, 64)
    critic_hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    shared: bool = False
    orthogonal: bool = True
    log_std: float = 0.0
    gains: tuple[float, ...] | None = None
    critic_gains: tuple[float, ...] | None = None
    network: Network | None = None
    critic_network: Network | None = None

    def init(self, seeds: Sequence[int]) -> Params:
        """Draw initial parameters ``(P, ...)``; each member's depend on its seed alone.

        By default weights are scaled by sqrt(2) in hidden layers, 0.01 in the actor's last layer and 1 in the critic's
        last layer (Andrychowicz et al. 2020, arXiv 2006.05990, found the small last layer of the policy to matter).
        """
        actor, critic, trunk = stream_keys(seeds, "weights", 3).unbind(1)
        outputs = self.head.width - self.head.log_stds
        params: Params = {}
        for stream, (name, network) in enumerate(self._networks.items(), 3):
            params |= network.init(name, seeds, stream)
        actor_sizes = [self._width(self.network), *self.hidden, outputs]
        critic_sizes = [self._width(self.network if self.shared else self.critic_network), *self.critic_hidden, 1]
        gains = self.gains or default_gains(len(self.hidden), 0.01)
        critic_gains = self.critic_gains or default_gains(len(critic_sizes) - 2, 1.0)
        if self._has_trunk:
            params |= init_mlp("trunk", trunk, actor_sizes[:-1], gains[:-1], self.orthogonal)
            actor_sizes = actor_sizes[-2:]
            critic_sizes = [actor_sizes[0], 1]
            gains = gains[-1:]
            critic_gains = critic_gains[-1:]
        params |= init_mlp("actor", actor, actor_sizes, gains, self.orthogonal)
        params |= init_mlp("critic", critic, critic_sizes, critic_gains, self.orthogonal)
        if self.head.log_stds:
            params["actor.log_std"] = torch.full((len(seeds), 1, outputs), self.log_std)
        elif self.head.family is not None and self.head.family.state_dependent_std:
            last_bias = params[f"actor.{len(actor_sizes) - 2}.bias"]
            last_bias[..., outputs // 2 :] = self.log_std
        return params

    @property
    def memory(self) -> int:
        """M, the numbers that a recurrent policy remembers from one step to the next; 0 for others."""
        return self.network.memory if self.network else 0

    @property
    def distribution(self) -> Distribution | None:
        """What acting and losses are compiled for; None if they cannot be."""
        return None if self.network else self.head.distribution

    @property
    def _networks(self) -> dict[str, Network]:
        """The networks in front of the layers, by the prefixes of their parameters."""
        if self.network is None:
            return {}
        if self.critic_network is None:
            return {"network": self.network}
        return {"actor.network": self.network, "critic.network": self.critic_network}

    @property
    def _has_trunk(self) -> bool:
        return self.shared and self.network is None

    def _width(self, network: Network | None) -> int:
        return network.features if network else self.obs_dim

    @property
    def supports_packing(self) -> bool:
        """Whether the losses can skip padded samples on CPU, with each member's bits independent of the others'."""
        return self.distribution is not None and not self.shared

    def has_masks(self, obs: Tensor) -> bool:
        """Whether observations have action masks behind their D features, see :mod:`pgkit.nn.action_masks`."""
        return self._split(obs)[1] is not None

    def outputs(self, params: Params, obs: Tensor, cache: ForwardCache | None = None) -> Tensor:
        """Compute ``(P, B, D) -> (P, B, L)``, the numbers that the head turns into a distribution.

        Args:
            params: leaves ``(P, ...)``.
            obs: observations, ``(P, B, D + M)`` with action masks, see :mod:`pgkit.nn.action_masks`: the outputs of
                choices that are not allowed are -inf.
            cache: forward passes over ``obs`` with these parameters, used instead of computing them again.
        """
        outputs = self._outputs(params, self._features(params, obs, cache), cache and cache.lookup("actor", obs))
        return self._allowed(outputs, self._split(obs)[1])

    def step(self, params: Params, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Compute outputs ``(P, B, L)`` at one step of B episodes, and what is remembered of them.

        Args:
            params: leaves ``(P, ...)``.
            obs: as for :meth:`outputs`.
            memory: ``(P, B, M)``, 0 at the first step of an episode; M is 0 unless the policy is recurrent.

        Returns:
            The outputs, and the memory ``(P, B, M)`` after this step.
        """
        if not isinstance(self.network, GRU):
            return self.outputs(params, obs), memory
        x, action_mask = split_mask(obs, self.obs_dim)
        memory = self.network.step(params, "network", x, memory)
        return self._allowed(self._outputs(params, memory), action_mask), memory

    def acting_layers(self, params: Params) -> tuple[MLPSpec, list[Tensor]]:
        """List the layers from observations to outputs; of a Gaussian head, to the means among its outputs."""
        leaves = layer_leaves(params, "trunk") + layer_leaves(params, "actor")
        return MLPSpec(ACTIVATIONS[self.activation], len(leaves) // 2 - 1), leaves

    def value(self, params: Params, obs: Tensor, cache: ForwardCache | None = None) -> Tensor:
        """Compute ``(P, B, D) -> (P, B)``, the critic's estimates of the discounted return.

        Arguments as :meth:`outputs`.
        """
        x = self._features(params, obs, cache, "critic")
        return self._value(params, x, cache and cache.lookup("critic", obs))

    @torch.no_grad()
    def log_prob(self, params: Params, batch: Batch) -> Tensor:
        """Compute the log-probabilities of a batch's actions, ``(P, B)``, without gradient."""
        return self.head.log_prob(self.outputs(params, batch.obs, batch.cache), batch.action)

    def losses(
        self,
        params: Params,
        batch: Batch,
        critic: bool = True,
        clip_range: Scalar | None = None,
        clip_range_vf: Scalar | None = None,
    ) -> dict[str, Tensor]:
        """Compute what agents make losses of, each a mean over a member's valid samples, ``(P,)``, by metric tags.

        Args:
            params: leaves ``(P, ...)``, the only tensors that gradients flow to.
            batch: the samples. Its cache, if any, must be of these parameters.
            critic: whether to include ``"loss/value"``.
            clip_range: makes the policy loss :func:`pgkit.losses.clipped_surrogate_loss`, of a batch with log_prob.
            clip_range_vf: makes the value loss :func:`pgkit.losses.clipped_value_loss`, of a batch with value.

        Returns:
            ``"loss/policy"``, ``"loss/value"`` and ``"policy/entropy"`` (in nats), the means of
            :func:`pgkit.losses.actor_critic_terms`. If the batch has ``log_prob``, also ``"update/approx_kl"``
            (:func:`pgkit.losses.sample_kl`), and with ``clip_range`` ``"update/clip_fraction"``.

        Raises:
            ValueError: shapes, dtypes or devices do not fit together, or the batch lacks what clipping needs.
        """
        for needed, limit, name in ((batch.log_prob, clip_range, "log_prob"), (batch.value, clip_range_vf, "value")):
            if limit is not None and needed is None:
                raise ValueError(f"clipping needs a batch with {name}, the numbers of the policy that acted")
        clipping = Clipping(*(_per_member(limit, batch.advantage) for limit in (clip_range, clip_range_vf)))
        sizes = batch.packing and batch.packing.sizes
        batch = batch.without_padding()
        distribution = None if self.has_masks(batch.obs) else self.distribution
        if distribution is not None and use_compiled(batch.obs.dtype, batch.obs.device):
            x = self._features(params, batch.obs, batch.cache)
            spec = LossSpec(distribution, batch.log_prob is not None, clip_range is not None, clip_range_vf is not None)
            terms = compiled_losses(spec, params, x, self.activation, batch, critic, clipping, sizes)
        else:
            outputs, value = self._outputs_and_value(params, batch, critic)
            log_prob = self.head.log_prob(outputs, batch.action)
            terms = tensor_losses(log_prob, self.head.entropy(outputs), value, batch, clipping)
        by_tag = dict(zip(LOSS_TAGS, terms, strict=False))
        return by_tag if critic else {tag: term for tag, term in by_tag.items() if tag != "loss/value"}

    @torch.no_grad()
    def values(self, params: Params, rollout: Rollout) -> tuple[Tensor, Tensor, ForwardCache | None]:
        """Compute the critic's values of a rollout, without gradient.

        Returns:
            Values of the observations ``(T, P, N)``, values of the true next observations ``(T, P, N)``, and the
            rollout's cache with the critic's forward pass, if there is one, for
            :meth:`pgkit.types.Batch.from_rollout`.
        """
        value, cache = (self._all_values if rollout.packing is None else self._packed_values)(params, rollout)
        if rollout.final_obs is None:
            return value[:-1], value[1:], cache
        done = rollout.terminated | rollout.truncated
        final_value = _by_time(self.value(params, member_samples(rollout.final_obs)), rollout.final_obs.shape)
        return value[:-1], torch.where(done, final_value, value[1:]), cache

    def _all_values(self, params: Params, rollout: Rollout) -> tuple[Tensor, ForwardCache | None]:
        """Compute the values of all ``T + 1`` observations ``(T + 1, P, N)``, and the cache with these passes."""
        x = member_samples(rollout.obs)
        if self.network is not None:
            return _by_time(self.value(params, x), rollout.obs.shape), None
        x, _ = split_mask(x, self.obs_dim)
        cache = rollout.cache
        layer_outputs = dict(cache.layer_outputs) if cache is not None and cache.obs is rollout.obs else {}
        if self.shared and self.hidden:
            layer_outputs["trunk"] = forward_pass(params, "trunk", x, self.activation, activate_last=True)
            x = layer_outputs["trunk"].results[-1]
        layer_outputs["critic"] = forward_pass(params, "critic", x, self.activation)
        value = layer_outputs["critic"].results[-1].squeeze(-1)
        return _by_time(value, rollout.obs.shape), ForwardCache(rollout.obs, layer_outputs)

    def _packed_values(self, params: Params, rollout: Rollout) -> tuple[Tensor, ForwardCache | None]:
        """Compute the same from packed observations; values of observations that were not packed are 0."""
        assert rollout.packing is not None
        steps, _, count = rollout.obs.shape[:3]
        packing = rollout.packing
        critic = forward_pass(params, "critic", packing.obs, self.activation, sizes=packing.forward_sizes)
        value = packing.scatter(critic.results[-1].squeeze(2), steps * count)
        return _by_time(value, rollout.obs.shape), ForwardCache(packing.obs, {"critic": critic})

    def _features(self, params: Params, obs: Tensor, cache: ForwardCache | None, role: str = "actor") -> Tensor:
        """Compute what the layers of actor or critic see: features, or the observations themselves."""
        x, _ = self._split(obs)
        if self.network is not None:
            name = "network" if self.critic_network is None else f"{role}.network"
            return self._networks[name].apply(params, name, x)
        if not self.shared:
            return x
        cached = cache and cache.lookup("trunk", obs)
        return mlp(params, "trunk", x, self.activation, activate_last=True, cached=cached)

    def _split(self, obs: Tensor) -> tuple[Tensor, Tensor | None]:
        """What networks see (a recurrent one with the columns of its memory), and the action masks or None."""
        if obs.shape[-1] == self.obs_dim:
            return obs, None
        if not self.memory:
            return split_mask(obs, self.obs_dim)
        x, memory = obs.split([obs.shape[-1] - self.memory - MARKS, self.memory + MARKS], -1)
        x, action_mask = split_mask(x, self.obs_dim)
        return (obs if action_mask is None else torch.cat([x, memory], -1)), action_mask

    def _allowed(self, outputs: Tensor, action_mask: Tensor | None) -> Tensor:
        """The outputs, -inf where a choice is excluded."""
        return outputs if action_mask is None else exclude(outputs, action_mask, self.head.choices)

    def _outputs(self, params: Params, x: Tensor, cached: LayerOutputs | None = None) -> Tensor:
        outputs = mlp(params, "actor", x, self.activation, cached=cached)
        if self.head.log_stds:
            outputs = append_log_std(outputs, params["actor.log_std"])
        return outputs

    def _value(self, params: Params, x: Tensor, cached: LayerOutputs | None = None) -> Tensor:
        return mlp(params, "critic", x, self.activation, cached=cached).squeeze(-1)

    def _outputs_and_value(self, params: Params, batch: Batch, critic: bool) -> tuple[Tensor, Tensor]:
        """Outputs and values of a batch, from one pass of what actor and critic share; targets stand for values where
        there is no critic."""
        cache = batch.cache
        x = self._features(params, batch.obs, cache)
        outputs = self._outputs(params, x, cache and cache.lookup("actor", batch.obs))
        outputs = self._allowed(outputs, self._split(batch.obs)[1])
        if not critic:
            return outputs, batch.target
        if not self.shared:
            x = self._features(params, batch.obs, cache, "critic")
        return outputs, self._value(params, x, cache and cache.lookup("critic", batch.obs))


def default_gains(hidden_layers: int, last: float) -> tuple[float, ...]:
    """The factors of initial weights where none are stated."""
    return (*[2**0.5] * hidden_layers, last)


def _per_member(limit: Scalar | None, like: Tensor) -> Tensor | None:
    """A limit as one number of each member, ``(P,)``."""
    if limit is None:
        return None
    return limit.to(like) if isinstance(limit, Tensor) else like.new_full((len(like),), limit)


def _by_time(samples: Tensor, shape: torch.Size) -> Tensor:
    """Give ``(P, T * N)`` the axes ``(T, P, N)``, where ``shape`` is ``(T, P, N, ...)``."""
    steps, members, count = shape[:3]
    return samples.view(members, steps, count).transpose(0, 1)
