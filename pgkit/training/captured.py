"""Updates without Python: captured once for one member, then repeated for each.

A member's updates have the same bits alone and among others. So members run one after the other here, each for many
updates before the next one's turn: what one member works on stays in the processor's cache, which the numbers of a
whole population do not.

Where environments are compiled, whole updates are captured. Elsewhere, each rollout is collected by Python, and the
rest of the update is captured. What cannot be captured (:mod:`pgkit.compiler.graph_ops`), and the update in which a
member breaks, are left to :func:`pgkit.training.loop.update`.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.graph import GraphStatus
from pgkit.rollouts.compiled import compiled_envs
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.system.cpu import use_graphs
from pgkit.training.captured_member import CapturedUpdate, ComputeUpdate, capture_update
from pgkit.training.captured_outputs import Outputs, Snapshots
from pgkit.training.optimizer_groups import OptimizerGroup, group_by_optimizer
from pgkit.training.population import Population
from pgkit.types import Rollout

SECONDS = 0.2
"""About how long updates may run without Python: so long no signal is noticed and no progress shown."""


class UpdateOutput(NamedTuple):
    """What there is to see of one or more updates.

    Attributes:
        metrics: ``(P,)`` by tag, of the last update; NaN where a member has no such number.
        snapshots: parameters on the way, if anybody asked for them.
    """

    metrics: dict[str, Tensor]
    snapshots: Snapshots | None = None


class _Key(NamedTuple):
    """What a captured update is for.

    Attributes:
        acts: it collects its rollout.
        diagnoses: it gives metrics.
        group: index of the optimizer.
    """

    acts: bool
    diagnoses: bool
    group: int


class CapturedUpdates:
    """The updates of a population that need no Python, also after members have left it.

    Args:
        compute_update: the update after its rollouts, :func:`pgkit.training.loop.compute_update`.

    Attributes:
        max_updates: how many updates take about ``SECONDS``, as measured the last time; at least 2.
    """

    def __init__(self, compute_update: ComputeUpdate) -> None:
        self.max_updates = 2
        self._compute_update = compute_update
        self._captured: dict[_Key, CapturedUpdate | None] = {}  # None: impossible

    def run(
        self,
        population: Population,
        max_updates: int,
        snapshot_at: Tensor,
        stop_at: Tensor | None = None,
        diagnose: bool = False,
    ) -> UpdateOutput | None:
        """Make whole updates of every member, until it has enough steps, or before one breaks.

        Args:
            population: is changed.
            max_updates: of each member; none of them uses up its budget before the last one.
            snapshot_at: float64 ``(P,)``, environment steps from which on a member's parameters are wanted, once.
            stop_at: float64 ``(P,)``, environment steps from which on a member makes no more updates; by default none.
            diagnose: give the metrics of the last update.

        Returns:
            None if nothing has happened, because the next update needs Python.
        """
        collector = population.collector
        if not max_updates or collector.normalization.uses_statistics:
            return None
        envs = compiled_envs(collector.envs, population.policy, population.params)
        groups = [] if envs is None else self._groups(population, True, diagnose)
        if not groups:
            return None
        inputs = [snapshot_at, torch.full_like(snapshot_at, torch.inf) if stop_at is None else stop_at]
        started = time.perf_counter()
        updates = max_updates
        while updates:
            outputs = Outputs(population, envs, inputs, diagnose)
            status = self._run(outputs, groups, updates)
            if status.ok.all():
                outputs.commit(int(status.updates.max()))
                if not diagnose:
                    self.max_updates = max(2, int(updates * SECONDS / (time.perf_counter() - started)))
                return UpdateOutput(outputs.metrics, outputs.snapshots if outputs.snapshots.params else None)
            # Members whose turn came before have made updates that the one that broke will never make beside them. So
            # all outputs are dropped, and everybody makes the updates before that one; Python computes the update in
            # which the member breaks, and says why.
            updates = int(status.updates[~status.ok].min())
        return None

    def update_from_rollouts(
        self, population: Population, rollouts: Sequence[MemberRollout], diagnose: bool = False
    ) -> dict[str, Tensor] | None:
        """Make the rest of an update after its rollouts.

        Args:
            population: is changed.
            rollouts: of all members.
            diagnose: give metrics.

        Returns:
            Metrics ``(P,)``; None if nothing has happened, because the update needs Python.
        """
        groups = self._groups(population, False, diagnose)
        if not groups or not population.collector.finite(population.alive).all():
            return None
        (rollout,) = rollouts  # of fixed length: all members have one
        inputs = [rollout.steps_before, *_member_first(rollout.rollout)]
        outputs = Outputs(population, None, inputs, diagnose)
        if not self._run(outputs, groups, 1).ok.all():
            return None
        outputs.commit(1)
        return outputs.metrics

    def _groups(self, population: Population, acts: bool, diagnose: bool) -> list[OptimizerGroup]:
        """The groups that have members; none if graphs are switched off, or one group is known not to be captured."""
        if not use_graphs():
            return []
        groups = group_by_optimizer(population, acts)
        keys = [_Key(acts, diagnose, group.number) for group in groups]
        impossible = any(self._captured.get(key, ...) is None for key in keys)
        return [] if impossible else groups

    def _run(self, outputs: Outputs, groups: Sequence[OptimizerGroup], max_updates: int) -> GraphStatus:
        """Run the updates of every group, captured first where they are not yet.

        Returns:
            The status of all members, group by group; a group that cannot be captured is not ok after no update.
        """
        statuses = []
        for group in groups:
            key = _Key(outputs.envs is not None, outputs.diagnose, group.number)
            if key not in self._captured:
                self._captured[key] = capture_update(outputs, group, self._compute_update)
            captured = self._captured[key]
            refused = GraphStatus(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
            statuses.append(refused if captured is None else captured.run(outputs, group, max_updates))
        return GraphStatus(*(torch.cat(column) for column in zip(*statuses, strict=True)))


def _member_first(rollout: Rollout) -> list[Tensor]:
    """The tensors of a rollout as ``(P, T, ...)``, those of a member one behind the other."""
    fields = (rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    final_obs = [] if rollout.final_obs is None else [rollout.final_obs]
    return [tensor.transpose(0, 1).contiguous() for tensor in (*fields, *final_obs)]
