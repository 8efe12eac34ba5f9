"""The shapes and records that every part of pgkit shares.

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

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from pgkit.kernels.packing import Packing

Params = dict[str, Tensor]
"""Parameters by name (``"actor.0.weight"``); every leaf has shape ``(P, ...)``."""

Scalar = float | Tensor
"""A number shared by all members, or one per member with shape ``(P,)``."""


@dataclass(frozen=True)
class Rollout:
    """What ``P * N`` environments did for T steps.

    Transition t leads from ``obs[t]`` to ``obs[t + 1]``, except where ``final_obs`` says otherwise.

    Attributes:
        obs: ``(T + 1, P, N, D)`` observations.
        action: ``(T, P, N)`` or ``(T, P, N, A)`` what the policy chose, before any clipping into bounds.
        reward: ``(T, P, N)`` rewards as the learner sees them (after scaling or normalisation).
        terminated: ``(T, P, N)`` bool, the task ended: nothing follows.
        truncated: ``(T, P, N)`` bool, a time limit cut the episode: its value goes on.
        valid: ``(T, P, N)`` bool, False for transitions that are none: the reset step of NEXT_STEP
            autoreset, and environments that idle.
        final_obs: ``(T, P, N, D)`` true next observations where an episode ended, for environments whose
            ``obs[t + 1]`` is already the first of the next episode (SAME_STEP, DISABLED); None when
            ``obs[t + 1]`` is always the true next observation (NEXT_STEP).
        tapes: what networks have computed of observations, by name, see :func:`pgkit.nn.mlp.mlp`.
        packing: where what is valid is, if networks are to see nothing else.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_obs: Tensor | None = None
    tapes: dict[str, Any] = field(default_factory=dict, kw_only=True)
    packing: Packing | None = field(default=None, kw_only=True)


class Batch(NamedTuple):
    """Samples of an update, member by member, all gradients stopped.

    Attributes:
        obs: ``(P, B, D)``.
        action: ``(P, B)`` or ``(P, B, A)``.
        advantage: ``(P, B)`` weight of each log-probability's gradient.
        target: ``(P, B)`` what the critic shall predict.
        valid: ``(P, B)`` bool, samples that count.
        tapes: those of the rollout.
        packing: that of the rollout.
    """

    obs: Tensor
    action: Tensor
    advantage: Tensor
    target: Tensor
    valid: Tensor
    tapes: dict[str, Any]
    packing: Packing | None = None

    @staticmethod
    def from_rollout(rollout: Rollout, advantage: Tensor, target: Tensor) -> "Batch":
        """A rollout's samples with these ``(T, P, N)`` advantages and targets, ``B = T * N``."""
        columns = (rollout.obs[:-1], rollout.action, advantage, target, rollout.valid)
        own = [column.transpose(0, 1).flatten(1, 2) for column in columns]
        return Batch._make([*own, rollout.tapes, rollout.packing])

    def without_padding(self) -> "Batch":
        """The same samples for networks: if there is a packing, with no more that are none than it has."""
        if self.packing is None:
            return self
        columns = (self.action, self.advantage, self.target, self.valid)
        action, advantage, target, valid = map(self.packing.gather, columns)
        obs, valid = self.packing.gather_obs(self.obs), valid & self.packing.valid
        return Batch(obs, action, advantage, target, valid, self.tapes)

    def take(self, members: Tensor) -> "Batch":
        """Those of some members (int64 ``(M,)``), without what networks have computed."""
        fields = (self.obs, self.action, self.advantage, self.target, self.valid)
        return Batch._make([*(field.index_select(0, members) for field in fields), {}, None])
