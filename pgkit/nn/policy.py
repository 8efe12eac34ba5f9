"""Stochastic policies: the networks of an actor and a critic, and what their outputs mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.kernels.distribution import LossSpec
from pgkit.kernels.gaussian import append_log_std
from pgkit.kernels.mlp import MLPSpec
from pgkit.nn.distributions import Head
from pgkit.nn.mlp import forward_pass, init_mlp, layer_leaves, mlp
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
        activation: one of :data:`pgkit.kernels.activations.ACTIVATIONS`: tanh, relu, elu or silu.
        shared: whether actor and critic are two linear layers on one trunk.
        orthogonal: whether initial weights are orthogonal, see :func:`pgkit.nn.mlp.init_mlp`.
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
        """Draw initial parameters ``(P, ...)``; each member's depend on its seed alone.

        Weights are scaled by sqrt(2) in hidden layers, 0.01 in the actor's last layer and 1 in the critic's last layer
        (Andrychowicz et al. 2020, arXiv 2006.05990, found the small last layer of the policy to matter).
        """
        actor, critic, trunk = stream_keys(seeds, "weights", 3).unbind(1)
        outputs = self.head.width // 2 if self.head.name == "gaussian" else self.head.width
        params: Params = {}
        actor_sizes = [self.obs_dim, *self.hidden, outputs]
        critic_sizes = [self.obs_dim, *self.critic_hidden, 1]
        if self.shared:
            gains = [2**0.5] * len(self.hidden)
            params |= init_mlp("trunk", trunk, actor_sizes[:-1], gains, self.orthogonal)
            actor_sizes = actor_sizes[-2:]
            critic_sizes = [actor_sizes[0], 1]
        for name, keys, sizes, last in (("actor", actor, actor_sizes, 0.01), ("critic", critic, critic_sizes, 1.0)):
            params |= init_mlp(name, keys, sizes, [*[2**0.5] * (len(sizes) - 2), last], self.orthogonal)
        if self.head.name == "gaussian":
            params["actor.log_std"] = torch.full((len(seeds), 1, outputs), self.log_std)
        return params

    @property
    def supports_packing(self) -> bool:
        """Whether the losses can skip padded samples on CPU, with each member's bits independent of the others'."""
        return self.head.distribution is not None and not self.shared

    def outputs(self, params: Params, obs: Tensor, cache: ForwardCache | None = None) -> Tensor:
        """Compute ``(P, B, D) -> (P, B, L)``, the numbers that the head turns into a distribution.

        Args:
            params: leaves ``(P, ...)``.
            obs: observations.
            cache: forward passes over ``obs`` with these parameters, used instead of computing them again.
        """
        x = self._features(params, obs, cache)
        outputs = mlp(params, "actor", x, self.activation, cached=cache and cache.lookup("actor", obs))
        if self.head.name == "gaussian":
            outputs = append_log_std(outputs, params["actor.log_std"])
        return outputs

    def acting_layers(self, params: Params) -> tuple[MLPSpec, list[Tensor]]:
        """List the layers from observations to outputs; of a Gaussian head, to the means among its outputs."""
        leaves = layer_leaves(params, "trunk") + layer_leaves(params, "actor")
        return MLPSpec(ACTIVATIONS[self.activation], len(leaves) // 2 - 1), leaves

    def value(self, params: Params, obs: Tensor, cache: ForwardCache | None = None) -> Tensor:
        """Compute ``(P, B, D) -> (P, B)``, the critic's estimates of the discounted return.

        Arguments as :meth:`outputs`.
        """
        x = self._features(params, obs, cache)
        return mlp(params, "critic", x, self.activation, cached=cache and cache.lookup("critic", obs)).squeeze(-1)

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
        distribution = self.head.distribution
        if distribution is not None and use_compiled(batch.obs.dtype, batch.obs.device):
            x = self._features(params, batch.obs, batch.cache)
            spec = LossSpec(distribution, batch.log_prob is not None, clip_range is not None, clip_range_vf is not None)
            terms = compiled_losses(spec, params, x, self.activation, batch, critic, clipping, sizes)
        else:
            outputs = self.outputs(params, batch.obs, batch.cache)
            value = self.value(params, batch.obs, batch.cache) if critic else batch.target
            log_prob = self.head.log_prob(outputs, batch.action)
            terms = tensor_losses(log_prob, self.head.entropy(outputs), value, batch, clipping)
        by_tag = dict(zip(LOSS_TAGS, terms, strict=False))
        return by_tag if critic else {tag: term for tag, term in by_tag.items() if tag != "loss/value"}

    @torch.no_grad()
    def values(self, params: Params, rollout: Rollout) -> tuple[Tensor, Tensor, ForwardCache]:
        """Compute the critic's values of a rollout, without gradient.

        Returns:
            Values of the observations ``(T, P, N)``, values of the true next observations ``(T, P, N)``, and the
            rollout's cache with the critic's forward pass, for :meth:`pgkit.types.Batch.from_rollout`.
        """
        value, cache = (self._all_values if rollout.packing is None else self._packed_values)(params, rollout)
        if rollout.final_obs is None:
            return value[:-1], value[1:], cache
        done = rollout.terminated | rollout.truncated
        final_value = _by_time(self.value(params, member_samples(rollout.final_obs)), rollout.final_obs.shape)
        return value[:-1], torch.where(done, final_value, value[1:]), cache

    def _all_values(self, params: Params, rollout: Rollout) -> tuple[Tensor, ForwardCache]:
        """Compute the values of all ``T + 1`` observations ``(T + 1, P, N)``, and the cache with these passes."""
        x = member_samples(rollout.obs)
        cache = rollout.cache
        layer_outputs = dict(cache.layer_outputs) if cache is not None and cache.obs is rollout.obs else {}
        if self.shared and self.hidden:
            layer_outputs["trunk"] = forward_pass(params, "trunk", x, self.activation, activate_last=True)
            x = layer_outputs["trunk"].results[-1]
        layer_outputs["critic"] = forward_pass(params, "critic", x, self.activation)
        value = layer_outputs["critic"].results[-1].squeeze(-1)
        return _by_time(value, rollout.obs.shape), ForwardCache(rollout.obs, layer_outputs)

    def _packed_values(self, params: Params, rollout: Rollout) -> tuple[Tensor, ForwardCache]:
        """Compute the same from packed observations; values of observations that were not packed are 0."""
        assert rollout.packing is not None
        steps, _, count = rollout.obs.shape[:3]
        packing = rollout.packing
        critic = forward_pass(params, "critic", packing.obs, self.activation, sizes=packing.forward_sizes)
        value = packing.scatter(critic.results[-1].squeeze(2), steps * count)
        return _by_time(value, rollout.obs.shape), ForwardCache(packing.obs, {"critic": critic})

    def _features(self, params: Params, obs: Tensor, cache: ForwardCache | None) -> Tensor:
        """Compute what actor and critic see: the trunk's features, or the observations themselves."""
        if not self.shared:
            return obs
        cached = cache and cache.lookup("trunk", obs)
        return mlp(params, "trunk", obs, self.activation, activate_last=True, cached=cached)


def _per_member(limit: Scalar | None, like: Tensor) -> Tensor | None:
    """A limit as one number of each member, ``(P,)``."""
    if limit is None:
        return None
    return limit.to(like) if isinstance(limit, Tensor) else like.new_full((len(like),), limit)


def _by_time(samples: Tensor, shape: torch.Size) -> Tensor:
    """Give ``(P, T * N)`` the axes ``(T, P, N)``, where ``shape`` is ``(T, P, N, ...)``."""
    steps, members, count = shape[:3]
    return samples.view(members, steps, count).transpose(0, 1)
