"""When the members of a population are logged, evaluated and saved: at evenly spaced environment steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.training.population import Population

MAX_UNSEEN_STEPS = 100_000
"""With whole episodes: environment steps of all members between two looks at them. A number of steps, not of seconds,
so that log rows come in the same order on any machine."""


class StepSchedule:
    """Points at multiples of ``spacing`` environment steps, from ``first`` on, for each member.

    Args:
        members: how many members there are.
        spacing: environment steps between two points.
        first: the first point.
        limit: how many points there are, so that a last rollout longer than the spacing passes none beyond the budget.

    Attributes:
        passed: how many points each member has passed.
    """

    def __init__(self, members: int, spacing: float, first: float, limit: float = float("inf")) -> None:
        self.spacing = spacing
        self.first = first
        self.limit = limit
        self.passed = [0] * members

    def point(self, passed: int) -> float:
        """The environment steps of the next point, after this many; infinite if there is none."""
        return self.first + passed * self.spacing if passed < self.limit else float("inf")

    def due(self, members: Sequence[int], env_steps: Sequence[float]) -> list[int]:
        """Rows of the members that have passed a point since the last call, and count it as passed."""
        rows: list[int] = []
        fewest = min(map(self.passed.__getitem__, members), default=0)
        if max(env_steps, default=0.0) < self.first + fewest * self.spacing:
            return rows  # the usual case, decided without a loop over members
        for row, (member, steps) in enumerate(zip(members, env_steps, strict=True)):
            count = int(min((steps - self.first) // self.spacing + 1, self.limit))
            if count > self.passed[member]:
                self.passed[member] = count
                rows.append(row)
        return rows


class Schedules:
    """The schedules of a worker's members: log rows, evaluations and checkpoints.

    Args:
        configs: one for each member.
        saved: the state of the schedules (:meth:`state`) of a resumed run.
    """

    def __init__(self, configs: Sequence[TrainConfig], saved: Sequence[Sequence[int]] | None = None) -> None:
        first = configs[0]
        size = len(configs)
        points = first.evaluation.points
        checkpoint_spacing = first.steps / max(1, first.checkpoint_points)
        self.evaluates = points > 0
        self.log = StepSchedule(size, first.steps_per_log, first.steps_per_log)
        self.evaluation = StepSchedule(size, first.steps / max(1, points), 0, limit=points + 1)
        self.checkpoint = StepSchedule(1, checkpoint_spacing, checkpoint_spacing)  # of the mean member
        self._envs_per_member = first.envs_per_member
        if saved is not None:
            for schedule, passed in zip(self._all(), saved, strict=True):
                schedule.passed = list(passed)

    def state(self) -> list[list[int]]:
        """How many points of each schedule each member has passed."""
        return [schedule.passed for schedule in self._all()]

    def _all(self) -> tuple[StepSchedule, ...]:
        return self.log, self.evaluation, self.checkpoint

    def next_evaluation(self, population: Population) -> Tensor:
        """Environment steps of each member's next evaluation, float64 ``(P,)``; infinite with whole episodes.

        Members with whole episodes are looked at between two of them (see :meth:`next_event`).
        """
        fixed_length = population.rollout_steps is not None
        return self._next(self.evaluation, population, self.evaluates and fixed_length)

    def next_event(self, population: Population) -> Tensor | None:
        """Environment steps at which to look at each member, float64 ``(P,)``; None if rollouts have a fixed length.

        With fixed lengths updates are counted instead (:meth:`updates_until_event`).
        """
        if population.rollout_steps is not None:
            return None
        rows = self._next(self.log, population, True)
        evaluations = self._next(self.evaluation, population, self.evaluates)
        unseen = population.env_steps + MAX_UNSEEN_STEPS / population.size
        checkpoint = torch.full_like(unseen, self._next_checkpoint)
        checkpoint = torch.where(checkpoint > population.env_steps, checkpoint, torch.inf)  # others have to catch up
        return torch.stack([rows, evaluations, checkpoint, unseen]).amin(0).clamp(max=population.budget)

    def updates_until_event(self, population: Population, logging: bool, at_evaluations: bool = False) -> int:
        """How many updates may follow without a look at their results; only the last may be one for a log row.

        Args:
            population: the members in training.
            logging: whether the next update is one for a log row.
            at_evaluations: whether to look at members as soon as their evaluation is due.

        Returns:
            A number of updates. With whole episodes it is a bound, and :meth:`next_event` decides.
        """
        if population.rollout_steps is None:
            return 0 if logging else MAX_UNSEEN_STEPS
        each = population.rollout_steps * self._envs_per_member
        passed = min(self.log.passed[member] for member in population.members.tolist())
        to_row = self.log.point(passed) - population.updates * each
        spans = [1.0 if logging else to_row, population.budget - float(population.env_steps.max())]
        to_checkpoint = self._next_checkpoint - float(population.env_steps.min())
        if to_checkpoint > 0:  # else members that have failed hold the mean back, and others need not stop for it
            spans.append(to_checkpoint)
        if at_evaluations and self.evaluates:
            spans.append(float((self.next_evaluation(population) - population.env_steps).min()))
        evaluation_spacing = self.evaluation.spacing if self.evaluates else float("inf")
        return int(min(*(-(-span // each) for span in spans), evaluation_spacing // each))

    def steps_for_log(self, population: Population, env_steps: Sequence[float]) -> Sequence[float]:
        """The steps that the log schedule counts for each member.

        With rollouts of a fixed length they include steps that only reset an environment, which ``env_steps`` leaves
        out: so all members are due in the same update.
        """
        if population.rollout_steps is None:
            return env_steps
        steps = population.updates * population.rollout_steps * self._envs_per_member
        return [float(steps)] * len(env_steps)

    @property
    def _next_checkpoint(self) -> float:
        """Environment steps of the mean member at the next checkpoint."""
        return self.checkpoint.point(self.checkpoint.passed[0])

    def _next(self, schedule: StepSchedule, population: Population, enabled: bool) -> Tensor:
        """The next point of each member in a schedule, float64 ``(P,)``; infinite if it is not enabled."""
        points = [
            schedule.point(schedule.passed[member]) if enabled else float("inf")
            for member in population.members.tolist()
        ]
        return torch.tensor(points, dtype=torch.float64)
