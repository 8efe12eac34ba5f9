"""Shapes and records that every part of pgkit shares.

Axis letters, used in every docstring:

====== ==========================================================================
letter axis
====== ==========================================================================
T      time steps of one rollout
P      members of the population: independent runs, each with its own seed,
       optimizer and hyperparameters
N      environments per member
B      samples of one member in an update batch
D      observation features
A      actions (categories, or components of an action vector)
====== ==========================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from pgkit.kernels.mlp import LayerOutputs
from pgkit.kernels.packing import Packing

Params = dict[str, Tensor]
"""Parameters by name, such as ``"actor.0.weight"``; every leaf has shape ``(P, ...)``.

``pgkit.Params`` is what :meth:`pgkit.nn.policy.Policy.init` returns, and what optimizers take and return: weights are
``(P, in, out)``, biases ``(P, 1, out)``, a Gaussian policy's ``"actor.log_std"`` is ``(P, 1, A)``.
"""

Scalar = float | Tensor
"""A number that all members share, or one number per member with shape ``(P,)``."""


class ForwardCache(NamedTuple):
    """Forward passes through a policy's networks, so that a gradient need not compute them again.

    The cache belongs to ``obs`` and to the parameters that collected the rollout. Whoever changes the parameters drops
    the cache, as the training loop does after each optimizer step.

    Attributes:
        obs: the observations that the networks have seen, as held by the rollout or batch that the cache belongs to.
        layer_outputs: what each network computed, by the network's name: ``"actor"``, ``"critic"`` or ``"trunk"``.
            The first B rows of each member belong to the first B samples.
    """

    obs: Tensor
    layer_outputs: Mapping[str, LayerOutputs]

    def lookup(self, network: str, obs: Tensor) -> LayerOutputs | None:
        """Return the pass of ``network`` over ``obs``; None if there is none, or if it saw another tensor than this."""
        return self.layer_outputs.get(network) if obs is self.obs else None


@dataclass(frozen=True)
class Rollout:
    """What ``P * N`` environments did for T steps.

    Transition t leads from ``obs[t]`` to ``obs[t + 1]``, except where ``final_obs`` says otherwise.

    >>> import torch
    >>> never = torch.zeros(5, 3, 2, dtype=torch.bool)  # T = 5, P = 3, N = 2
    >>> rollout = Rollout(
    ...     obs=torch.zeros(6, 3, 2, 4),
    ...     action=torch.zeros(5, 3, 2, dtype=torch.int64),
    ...     reward=torch.ones(5, 3, 2),
    ...     terminated=never,
    ...     truncated=never,
    ...     valid=~never,
    ... )

    Attributes:
        obs: ``(T + 1, P, N, D)`` observations, float; ``D + M`` numbers with action masks, see
            :mod:`pgkit.nn.action_masks`.
        action: ``(T, P, N)`` or ``(T, P, N, A)``, what the policy chose, before any clipping into bounds.
        reward: ``(T, P, N)`` rewards as the learner sees them, after scaling or normalization.
        terminated: ``(T, P, N)`` bool, the task ended: nothing follows.
        truncated: ``(T, P, N)`` bool, a time limit cut the episode: the value of the next observation stands for the
            rest.
        valid: ``(T, P, N)`` bool, False for steps to ignore: the reset step of NEXT_STEP autoreset, and environments
            that wait for others to finish their episodes.
        final_obs: ``(T, P, N, D)`` true next observations where an episode ended, for environments whose
            ``obs[t + 1]`` is already the first of the next episode (SAME_STEP, DISABLED). None if ``obs[t + 1]`` is
            always the true next observation (NEXT_STEP).
        cache: forward passes over ``obs`` that acting has computed.
        packing: where the valid samples are, if networks skip the others.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_obs: Tensor | None = None
    cache: ForwardCache | None = field(default=None, kw_only=True)
    packing: Packing | None = field(default=None, kw_only=True)


class Batch(NamedTuple):
    """Samples of an update, member by member, without gradients. An agent's ``targets`` makes it of a rollout.

    >>> import torch
    >>> zeros = torch.zeros(5, 3, 2)  # T = 5, P = 3, N = 2
    >>> never = zeros.bool()
    >>> rollout = Rollout(torch.zeros(6, 3, 2, 4), zeros.long(), zeros, never, never, ~never)
    >>> Batch.from_rollout(rollout, advantage=zeros, target=zeros).obs.shape  # P = 3, B = T * N = 10, D = 4
    torch.Size([3, 10, 4])

    Attributes:
        obs: ``(P, B, D)``.
        action: ``(P, B)`` or ``(P, B, A)``.
        advantage: ``(P, B)``, the weight of each log-probability's gradient.
        target: ``(P, B)``, what the critic should predict.
        valid: ``(P, B)`` bool, samples that count.
        cache: forward passes over ``obs`` with the parameters that collected the rollout.
        packing: where the valid samples are, if networks skip the others.
        log_prob: ``(P, B)``, log-probabilities of the actions when the policy acted; None if nobody needs them.
        value: ``(P, B)``, the critic's values when the policy acted; None if nobody needs them.
    """

    obs: Tensor
    action: Tensor
    advantage: Tensor
    target: Tensor
    valid: Tensor
    cache: ForwardCache | None = None
    packing: Packing | None = None
    log_prob: Tensor | None = None
    value: Tensor | None = None

    @staticmethod
    def from_rollout(rollout: Rollout, advantage: Tensor, target: Tensor, cache: ForwardCache | None = None) -> "Batch":
        """Flatten a rollout into ``B = T * N`` samples per member.

        Args:
            rollout: the rollout.
            advantage: ``(T, P, N)``.
            target: ``(T, P, N)``.
            cache: what :meth:`pgkit.nn.policy.Policy.values` returned, or ``rollout.cache``. Without it the loss is the
                same and takes longer.

        Raises:
            ValueError: advantages or targets are not ``(T, P, N)``.
        """
        if not advantage.shape == target.shape == rollout.valid.shape:
            raise ValueError(
                f"expected advantage and target of shape (T, P, N) = {tuple(rollout.valid.shape)}, "
                f"got {tuple(advantage.shape)} and {tuple(target.shape)}"
            )
        columns = (rollout.obs[:-1], rollout.action, advantage, target, rollout.valid)
        obs, action, advantage, target, valid = (column.transpose(0, 1).flatten(1, 2) for column in columns)
        if cache is not None and cache.obs is rollout.obs:
            cache = cache._replace(obs=obs)
        return Batch(obs, action, advantage, target, valid, cache, rollout.packing)

    def without_padding(self) -> "Batch":
        """Drop padding, so that networks skip padded rows. Without a packing, return the batch as it is."""
        packing = self.packing
        if packing is None:
            return self
        columns = (self.action, self.advantage, self.target, self.valid)
        action, advantage, target, valid = map(packing.gather, columns)
        obs = packing.gather_obs(self.obs)
        cache = self.cache
        if cache is not None and cache.obs is packing.obs and obs.data_ptr() == packing.obs.data_ptr():
            cache = cache._replace(obs=obs)  # the first rows of what was packed, so the cache is of these, too
        log_prob, value = (None if column is None else packing.gather(column) for column in (self.log_prob, self.value))
        return Batch(obs, action, advantage, target, valid & packing.valid, cache, log_prob=log_prob, value=value)

    def take(self, members: Tensor) -> "Batch":
        """Select the members ``members`` (int64 ``(M,)``), without the cache."""
        return Batch.of_columns({name: column.index_select(0, members) for name, column in self.columns.items()})

    @property
    def columns(self) -> dict[str, Tensor]:
        """The tensors of this batch, ``(P, B, ...)`` by name."""
        return {name: column for name, column in self._asdict().items() if isinstance(column, Tensor)}

    @staticmethod
    def of_columns(columns: Mapping[str, Tensor]) -> "Batch":
        """The batch of such tensors, without cache and packing."""
        batch: Batch = Batch(**columns)  # type: ignore[arg-type] # of names that are tensors
        return batch
