"""What the monitor of a worker sends for callbacks: messages that own their tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pgkit.callbacks.views import copy_rollout, copy_tree
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training.evaluator import Evaluation, Snapshot
from pgkit.training.messages import EvaluationDetails, RolloutCollected, UpdateMade
from pgkit.training.population import Population
from pgkit.tree import select_members


def rollout_message(population: Population, rollout: MemberRollout) -> RolloutCollected:
    """What some members have done in the next update."""
    return RolloutCollected(
        members=select_members(population.members, rollout.rows).tolist(),
        env_steps=rollout.steps_before.tolist(),
        update=population.updates + 1,
        rollout=copy_rollout(rollout.rollout),
        unnormalized=copy_rollout(rollout.unnormalized),
    )


def update_message(population: Population, metrics: Mapping[str, Tensor]) -> UpdateMade:
    """What the last update has made of all members in training."""
    columns = torch.stack([metric.double() for metric in metrics.values()]).tolist() if metrics else []
    return UpdateMade(
        members=population.members.tolist(),
        env_steps=population.env_steps.tolist(),
        update=population.updates,
        params=copy_tree(population.params),
        metrics=dict(zip(metrics, columns, strict=True)),
    )


class History:
    """The mean returns of each member's evaluations.

    Args:
        evaluations: of a resumed run, those of a member in their order.
    """

    def __init__(self, evaluations: Sequence[Evaluation]) -> None:
        self._means: dict[int, list[float]] = {}
        for evaluation in evaluations:
            self._add(evaluation)

    def details(self, evaluation: Evaluation, snapshot: Snapshot) -> EvaluationDetails:
        """Take in an evaluation; what callbacks see of it, and of the snapshot that was evaluated."""
        params, obs_stats = copy_tree((snapshot.params, snapshot.obs_stats))
        return EvaluationDetails(evaluation.episodes, list(self._add(evaluation)), params, obs_stats)

    def _add(self, evaluation: Evaluation) -> list[float]:
        means = self._means.setdefault(evaluation.member, [])
        means.append(evaluation.episodes.returns.mean().item())
        return means
