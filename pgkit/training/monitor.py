"""Watching members that are trained together: log rows, evaluations, states. Nothing here changes what is learnt."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.rollouts.evaluate import EvalKey
from pgkit.training.captured import Snapshots
from pgkit.training.evaluator import Evaluator, packed, unpacked
from pgkit.training.population import Population
from pgkit.training.result import TrainResult, evaluation_row
from pgkit.training.schedule import StepSchedule
from pgkit.tree import concat_members

CHECKPOINT_SECONDS = 300.0  # at least so often, beside the evenly spaced ones

UNSEEN_STEPS = 100_000  # of whole episodes, all members together: not by time, so that rows come in the same order


class Channel(Protocol):
    """Where a slice of a run tells what it sees, and hears that it is to stop.

    Attributes:
        recorded: whether states are wanted.
    """

    recorded: bool

    def tell(self, kind: str, content: Any) -> None:
        """Tell what :meth:`pgkit.training.coordinator.Coordinator.hear` understands."""

    def stop_wanted(self) -> bool:
        """Whether a state and :meth:`stop_here` are asked for."""

    def stop_here(self) -> None:
        """Raises something if a stop was asked for: nothing would be lost now."""


class Monitor:
    """A context: what happens to the members of a slice inside is told.

    Args:
        parts: the members that have left, and last the population in training.
        configs: of all of them.
        outlet: whom to tell.
        exact: whether environments can be saved.
        saved: the state of the observer of a run that goes on.
    """

    def __init__(
        self,
        parts: Sequence[Population],
        configs: Sequence[TrainConfig],
        outlet: Channel,
        exact: bool = True,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        first, size = configs[0], len(configs)
        self.configs, self.parts = configs, list(parts)
        self._outlet, self._exact = outlet, exact
        self._log_marks = StepSchedule(size, first.steps_per_log, first.steps_per_log)
        points, apart = first.evaluation.points, first.steps / max(1, first.checkpoint_points)
        self._evaluation_marks = StepSchedule(size, first.steps / max(1, points), 0, most=points + 1)
        self._checkpoint_marks = StepSchedule(1, apart, apart)
        self._evaluator = Evaluator(parts[-1], configs, saved and saved["evaluator"])
        self._evaluations = unpacked(saved["evaluations"]) if saved else []
        self.reasons: dict[int, str] = dict(saved["reasons"]) if saved else {}
        self._to_log = set(saved["to_log"] if saved else ())
        self._counts = list(saved["counts"]) if saved else [[0.0] * 4] * size  # statistics at the last log row
        if saved:
            marks = (self._log_marks, self._evaluation_marks, self._checkpoint_marks)
            for own, passed in zip(marks, saved["marks"], strict=True):
                own.passed = list(passed)
        self._steps_left = sum(float(part.env_steps.sum()) for part in self.parts[:-1])  # of members that have left
        self._steps = self._steps_left + float(self.parts[-1].env_steps.sum())  # of all together
        self._started = time.perf_counter() - (saved["seconds"] if saved else 0.0)
        self._saved_at = time.perf_counter()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._evaluator.close()

    def rows_to_log(self, population: Population) -> list[int]:
        """Rows of the members of whom the next update is to be logged."""
        return [row for row, member in enumerate(population.members.tolist()) if member in self._to_log]

    def begin(self) -> None:
        """Before the first update: the first state, the first evaluation."""
        self._save()
        population = self.parts[-1]
        if not any(self._evaluation_marks.passed):  # resumed, the next update comes first, as it would have
            self._snapshot(population, population.members.tolist(), population.env_steps.tolist())

    def updates_until_event(self, population: Population) -> int:
        """How many updates nobody needs to look at but the last, which may be for a log row, or the end.

        With whole episodes it is for :meth:`next_event` to say.
        """
        if population.rollout_steps is None:
            return 0 if self._to_log else UNSEEN_STEPS
        first = self.configs[0]
        each = population.rollout_steps * first.envs_per_member
        passed = min(self._log_marks.passed[member] for member in population.members.tolist())
        to_row = self._log_marks.at(passed) - population.updates * each
        spans = [1.0 if self._to_log else to_row, population.budget - float(population.env_steps.max())]
        marks = self._evaluation_marks.spacing if first.evaluation.points else float("inf")
        return int(min(*(-(-span // each) for span in spans), marks // each))

    def next_evaluation(self, population: Population) -> Tensor:
        """Environment steps, float64 ``(P,)``, from which on each member is to be put aside for an evaluation.

        Not with whole episodes, after which each member is looked at then.
        """
        fixed = population.rollout_steps is not None
        return self._at(self._evaluation_marks, population, fixed and self.configs[0].evaluation.points > 0)

    def next_event(self, population: Population) -> Tensor | None:
        """Environment steps, float64 ``(P,)``, with which to look at each member; None if updates are counted."""
        if population.rollout_steps is not None:
            return None
        evaluated = self.configs[0].evaluation.points > 0
        rows = self._at(self._log_marks, population, True)
        evaluations = self._at(self._evaluation_marks, population, evaluated)
        unseen = population.env_steps + UNSEEN_STEPS / population.size
        return torch.stack([rows, evaluations, unseen]).amin(0).clamp(max=population.budget)

    def _at(self, marks: StepSchedule, population: Population, wanted: bool) -> Tensor:
        """Where each member passes the next of these marks, float64 ``(P,)``."""
        at = [marks.at(marks.passed[member]) if wanted else float("inf") for member in population.members.tolist()]
        return torch.tensor(at, dtype=torch.float64)

    def record_update(
        self, population: Population, metrics: Mapping[str, Tensor], aside: Snapshots | None = None
    ) -> None:
        """Look at the population after an update, or a stretch of them in which members were put aside."""
        self.parts[-1] = population
        members, env_steps = population.members.tolist(), population.env_steps.tolist()
        self._steps = self._steps_left + sum(env_steps)
        if self._to_log:
            self._log(population, metrics)
        self._to_log = {members[row] for row in self._log_marks.due(members, self._taken(population, env_steps))}
        self._snapshot(population, members, env_steps, aside)
        self._outlet.tell("steps", self._steps)

    def retire(self, leaving: Population, staying: Population, reasons: Mapping[int, str]) -> None:
        """Some members are done: they have used their budget, or diverged, for these reasons by member."""
        self.parts[-1:] = [leaving, staying]
        self._steps_left += float(leaving.env_steps.sum())
        self.reasons |= reasons
        for member, alive, steps in zip(leaving.members, leaving.alive, leaving.env_steps, strict=True):
            if not alive:
                seed = self.configs[int(member)].seed
                reason = reasons.get(int(member), "unknown")
                self._outlet.tell("line", f"seed {seed} diverged before step {steps:,.0f}: first bad number: {reason}")

    def maybe_checkpoint(self) -> None:
        """Between two updates: tell the state if that is due, and stop if somebody asks for it."""
        if self.parts[-1].size == 0:
            return  # the end, which saves by itself
        due = self._checkpoint_marks.due([0], [self._steps / len(self.configs)])
        late = time.perf_counter() - self._saved_at > CHECKPOINT_SECONDS
        if due or late or self._outlet.stop_wanted():
            self._save()
        self._outlet.stop_here()

    def finish(self) -> TrainResult:
        """The final evaluation, once every member is done."""
        wall = time.perf_counter() - self._started
        self._save()
        if self._evaluator.waiting:
            self._play_waiting()
            self._save()  # one of these may be a member's best
        parts = [part for part in self.parts if part.size]
        rows = [part.members for part in parts]
        trees = [(part.params, part.collector.obs_stats, part.alive, part.env_steps) for part in parts]
        params, obs_stats, alive, env_steps = concat_members(trees, rows)
        settings = self.configs[0].evaluation
        players = [EvalKey(config.seed, 0) for config in self.configs]
        episodes = self._evaluator.play(params, obs_stats, players, settings.final_episodes, "report")
        table = [
            {"seed": config.seed, "failed": not bool(alive[k]), "env_steps": int(env_steps[k])}
            | evaluation_row(episodes.returns[k], episodes.lengths[k])
            for k, config in enumerate(self.configs)
        ]
        return TrainResult(
            table=table,
            evaluations=sorted(self._evaluations, key=lambda evaluation: evaluation[:2]),
            final=episodes,
            params=params,
            obs_stats=obs_stats,
            parts=parts,
            directory=None,
            reasons=self.reasons,
            wall_seconds=wall,
        )

    def state(self) -> dict[str, Any]:
        """What was seen so far and what is due next, as plain data."""
        marks = (self._log_marks, self._evaluation_marks, self._checkpoint_marks)
        return {
            "evaluator": self._evaluator.state(),
            "evaluations": packed(self._evaluations),
            "to_log": sorted(self._to_log),
            "counts": self._counts,
            "reasons": self.reasons,
            "marks": [own.passed for own in marks],
            "seconds": time.perf_counter() - self._started,
        }

    def _save(self) -> None:
        if not self._outlet.recorded:
            return
        left, training = self.parts[:-1], self.parts[-1]
        states = [*(part.state(envs=False) for part in left), training.state(envs=self._exact)]
        self._outlet.tell("state", {"parts": states, "observer": self.state()})
        self._saved_at = time.perf_counter()

    def _snapshot(
        self, population: Population, members: list[int], env_steps: list[float], aside: Snapshots | None = None
    ) -> None:
        if self.configs[0].evaluation.points == 0:
            return
        for row in self._evaluation_marks.due(members, env_steps):
            self._evaluator.snapshot(population, row, self._evaluation_marks.passed[members[row]] - 1, aside)
        if self._evaluator.enough(len(members)):
            self._play_waiting()

    def _taken(self, population: Population, env_steps: Sequence[float]) -> Sequence[float]:
        """What log marks count: after rollouts of fixed length resets too, so that all are due in one update."""
        if population.rollout_steps is None:
            return env_steps
        steps = population.updates * population.rollout_steps * self.configs[0].envs_per_member
        return [float(steps)] * len(env_steps)

    def _play_waiting(self) -> None:
        for evaluation in self._evaluator.play_waiting():
            self._evaluations.append(evaluation)
            row = evaluation_row(*evaluation.episodes)
            numbers = {f"eval/{name}": number for name, number in row.items()}
            if evaluation.greedy is not None:
                numbers["eval/greedy_return_mean"] = evaluation.greedy.returns.mean().item()
            self._outlet.tell("evaluated", {evaluation.member: (evaluation.env_steps, numbers)})

    def _log(self, population: Population, metrics: Mapping[str, Tensor]) -> None:
        """One row of each member that is due: what the update did, and the episodes since its last row."""
        members, statistics = population.members.tolist(), torch.stack(population.collector.statistics, 1).tolist()
        tags = list(metrics)
        numbers = torch.stack([metrics[tag].double() for tag in tags], 1).tolist()
        rows = {}
        for row, member in enumerate(members):
            if member in self._to_log:
                counts = statistics[row]
                _, episodes, returns, lengths = (a - b for a, b in zip(counts, self._counts[member], strict=True))
                self._counts[member] = counts
                values = dict(zip(tags, numbers[row], strict=True))
                values["train/episode_return"] = returns / episodes if episodes else float("nan")
                values["train/episode_length"] = lengths / episodes if episodes else float("nan")
                rows[member] = (counts[0], values)
        self._outlet.tell("trained", (self._steps, rows))
