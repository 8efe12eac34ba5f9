"""Watch the members of a worker: log rows, evaluations, checkpoints. Nothing in here changes what is learnt."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.envs.base import Environments
from pgkit.rollouts.evaluate import EvalKey
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training.captured_outputs import Snapshots
from pgkit.training.evaluator import Evaluation, Evaluator, evaluations_from_state, evaluations_state
from pgkit.training.messages import Channel, Evaluated, Line, RowsLogged, StateSaved, StepsDone
from pgkit.training.observed import History, rollout_message, update_message
from pgkit.training.population import Population
from pgkit.training.result import TrainResult, evaluation_row
from pgkit.training.schedule import Schedules
from pgkit.training.stops import StoppedMembers
from pgkit.tree import concat_members

CHECKPOINT_SECONDS = 300.0
"""A checkpoint follows the previous one after this time at the latest, whatever the schedule says."""


class Monitor:
    """Reports what happens to the members of one worker, and evaluates them. A context that frees its environments.

    The training loop calls :meth:`begin` once, then for each update :meth:`record_update`, :meth:`retire` if members
    leave, and :meth:`maybe_checkpoint`, and at the end :meth:`finish`.

    Args:
        parts: populations that have left training, and last the one in training.
        configs: one for each member.
        channel: leads to the coordinator of the run.
        exact: whether the state of the environments can be saved.
        saved: the state of the monitor (:meth:`state`) of a resumed run.
        envs: for evaluations; None builds some when they are needed.

    Attributes:
        configs: one for each member.
        parts: as above; members that leave form a new part.
        reasons: for each member that has failed, by its position, the first number that was not finite.
    """

    def __init__(
        self,
        parts: Sequence[Population],
        configs: Sequence[TrainConfig],
        channel: Channel,
        exact: bool = True,
        saved: Mapping[str, Any] | None = None,
        envs: Environments | None = None,
    ) -> None:
        saved = saved or {}
        self.configs = configs
        self.parts = list(parts)
        self.reasons: dict[int, str] = dict(saved.get("reasons", {}))
        self._channel = channel
        self._watch = channel.watch
        self._stopped = StoppedMembers(saved.get("stopped", {}))
        self._exact = exact
        self._schedules = Schedules(configs, saved.get("schedules"))
        self._evaluator = Evaluator(parts[-1], configs, saved.get("evaluator"), envs)
        self._evaluations: list[Evaluation] = evaluations_from_state(saved["evaluations"]) if saved else []
        self._history = History(self._evaluations)
        self._note_sent = False
        self._to_log: set[int] = set(saved.get("to_log", ()))  # members whose next update is logged
        # Episode statistics of each member at its last log row, of which a row shows the change.
        self._logged_statistics = list(saved.get("logged_statistics", [[0.0] * 4] * len(configs)))
        self._retired_steps = sum(float(part.env_steps.sum()) for part in self.parts[:-1])
        self._total_steps = self._retired_steps + float(self.parts[-1].env_steps.sum())
        self._started = time.perf_counter() - saved.get("seconds", 0.0)
        self._state_sent = time.perf_counter()

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._evaluator.close()

    def begin(self) -> None:
        """Send the first state, and snapshot the initial parameters for the first evaluation."""
        self._send_state()
        population = self.parts[-1]
        if not any(self._schedules.evaluation.passed):  # a resumed run had its first evaluation before
            self._snapshot_due(population, population.members.tolist(), population.env_steps.tolist())

    def is_watched(self, population: Population) -> bool:
        """Whether a callback wants to see the next update."""
        return self._watch.unwatched(population.updates) == 0

    def rows_to_measure(self, population: Population) -> list[int]:
        """Rows of the members of whose next update more is measured."""
        every = "on_update" in self._watch.moments and self.is_watched(population)
        return list(range(population.size)) if every else self.rows_to_log(population)

    def rows_to_log(self, population: Population) -> list[int]:
        """Rows of the members whose next update is to be logged."""
        if not self._to_log:
            return []
        return [row for row, member in enumerate(population.members.tolist()) if member in self._to_log]

    def updates_until_event(self, population: Population) -> int:
        """How many updates may follow without a look at their results; only the last may be one for a log row."""
        logging = bool(self.rows_to_log(population))
        evaluating = "on_evaluation" in self._watch.moments
        updates = self._schedules.updates_until_event(population, logging, evaluating)
        unwatched = self._watch.unwatched(population.updates)
        if unwatched is None:
            return updates
        return (
            0 if population.rollout_steps is None else min(updates, unwatched)
        )  # of episodes, members make unlike many

    def next_evaluation(self, population: Population) -> Tensor:
        """See :meth:`pgkit.training.schedule.Schedules.next_evaluation`."""
        return self._schedules.next_evaluation(population)

    def next_event(self, population: Population) -> Tensor | None:
        """See :meth:`pgkit.training.schedule.Schedules.next_event`."""
        return self._schedules.next_event(population)

    def record_rollouts(self, population: Population, rollouts: Sequence[MemberRollout]) -> None:
        """Show to callbacks what members have done, before they learn from it."""
        if "on_rollout" in self._watch.moments and self.is_watched(population):
            for rollout in rollouts:
                self._channel.send(rollout_message(population, rollout))

    def record_update(
        self, population: Population, metrics: Mapping[str, Tensor], snapshots: Snapshots | None = None
    ) -> None:
        """Look at the population after one update or several.

        Args:
            population: the members in training.
            metrics: by tag, ``(P,)`` each, of the last update.
            snapshots: parameters of members at their evaluation, if it came before the last update.
        """
        self.parts[-1] = population
        members = population.members.tolist()
        env_steps = population.env_steps.tolist()
        self._total_steps = self._retired_steps + sum(env_steps)
        if "on_update" in self._watch.moments and self._watch.unwatched(population.updates - 1) == 0:
            self._channel.send(update_message(population, metrics))
        if rows := self.rows_to_log(population):
            self._log(population, rows, metrics)
        due = self._schedules.log.due(members, self._schedules.steps_for_log(population, env_steps))
        self._to_log.difference_update(members)
        self._to_log.update(members[row] for row in due)
        self._snapshot_due(population, members, env_steps, snapshots)
        self._channel.send(StepsDone(self._total_steps))

    def staying(self, population: Population) -> Tensor:
        """Bool ``(P,)``: the members that go on: they have steps left, have not failed, and nobody has stopped them."""
        for member, steps in self._stopped.add(self._channel.take_stops(), self.parts):
            reason = self._stopped.reasons[member]
            self._channel.send(Line(f"seed {self.configs[member].seed} stopped at step {steps:,.0f}: {reason}"))
        return self._stopped.going_on(population)

    def retire(self, leaving: Population, staying: Population, reasons: Mapping[int, str]) -> None:
        """Members leave training: they have used their budget, or have failed for these reasons, by position."""
        self.parts[-1:] = [leaving, staying]
        self._retired_steps += float(leaving.env_steps.sum())
        self.reasons |= reasons
        for member, alive, steps in zip(leaving.members, leaving.alive, leaving.env_steps, strict=True):
            if not alive:
                seed = self.configs[int(member)].seed
                reason = reasons.get(int(member), "unknown")
                text = f"seed {seed} failed before step {steps:,.0f}: first non-finite number: {reason}"
                self._channel.send(Line(text))

    def start_next_part(self) -> Population:
        """Bring members back that have left training and have steps left; an empty population if there are none."""
        for index, part in enumerate(self.parts[:-1]):
            left = self._stopped.going_on(part)
            if left.any():
                done, training = (part.take(rows.nonzero().squeeze(1)) for rows in (~left, left))
                self.parts[index : index + 1] = [done] if done.size else []
                self.parts[-1] = training
                self._retired_steps -= float(training.env_steps.sum())
                break
        return self.parts[-1]

    def maybe_checkpoint(self) -> None:
        """Send the state if that is due or somebody asks the run to stop, which then ends the training."""
        if self.parts[-1].size == 0:
            return  # finish() sends the last state
        due = self._schedules.checkpoint.due([0], [self._total_steps / len(self.configs)])
        late = time.perf_counter() - self._state_sent > CHECKPOINT_SECONDS
        if due or late or self._channel.stop_requested():
            self._send_state()
        self._channel.stop_if_requested()

    def finish(self) -> TrainResult:
        """Evaluate the final parameters, once every member has left training."""
        wall_seconds = time.perf_counter() - self._started
        self._send_state()
        if self._evaluator.waiting:
            self._evaluate_waiting()
            self._send_state()  # one of these evaluations may be a member's best
        parts = [part for part in self.parts if part.size]
        trees = [(part.eval_params, part.collector.state.obs_stats, part.alive, part.env_steps) for part in parts]
        params, obs_stats, alive, env_steps = concat_members(trees, [part.members for part in parts])
        keys = [EvalKey(config.seed, 0) for config in self.configs]
        final = self._evaluator.evaluate(params, obs_stats, keys, self.configs[0].evaluation.final_episodes, "report")
        self._send_note()
        table = [
            {"seed": config.seed, "failed": not bool(alive[k]), "env_steps": int(env_steps[k])}
            | evaluation_row(final.returns[k], final.lengths[k])
            for k, config in enumerate(self.configs)
        ]
        return TrainResult(
            table=table,
            evaluations=sorted(self._evaluations, key=lambda evaluation: evaluation[:2]),
            final=final,
            params=params,
            obs_stats=obs_stats,
            parts=[part.state(envs=False) for part in parts],
            directory=None,
            reasons=self.reasons,
            wall_seconds=wall_seconds,
            stopped=self._stopped.reasons,
        )

    def pause(self) -> StateSaved:
        """Evaluate what waits, and return from where the members train on."""
        self._evaluate_waiting()
        return self._whole_state()

    def state(self) -> dict[str, Any]:
        """What has been seen so far and what is due next, as plain data and tensors."""
        return {
            "evaluator": self._evaluator.state(),
            "evaluations": evaluations_state(self._evaluations),
            "to_log": sorted(self._to_log),
            "logged_statistics": self._logged_statistics,
            "reasons": self.reasons,
            "stopped": self._stopped.reasons,
            "schedules": self._schedules.state(),
            "seconds": time.perf_counter() - self._started,
        }

    def _send_state(self) -> None:
        if not self._channel.wants_states:
            return
        self._channel.send(self._whole_state())
        self._state_sent = time.perf_counter()

    def _whole_state(self) -> StateSaved:
        return StateSaved([part.state(envs=self._exact) for part in self.parts], self.state())

    def _log(self, population: Population, rows: Sequence[int], metrics: Mapping[str, Tensor]) -> None:
        """Log a row for each of these members: metrics of the update, and the episodes since its last row."""
        members = population.members.tolist()
        columns = torch.stack([metric.double() for metric in metrics.values()]).tolist()
        values = {tag: [column[row] for row in rows] for tag, column in zip(metrics, columns, strict=True)}
        statistics = torch.stack(population.collector.statistics, 1).tolist()
        mean_returns = []
        mean_lengths = []
        for row in rows:
            before = self._logged_statistics[members[row]]
            _, episodes, returns, lengths = (now - then for now, then in zip(statistics[row], before, strict=True))
            self._logged_statistics[members[row]] = statistics[row]
            mean_returns.append(returns / episodes if episodes else float("nan"))
            mean_lengths.append(lengths / episodes if episodes else float("nan"))
        values["train/episode_return"] = mean_returns
        values["train/episode_length"] = mean_lengths
        env_steps = [statistics[row][0] for row in rows]
        self._channel.send(RowsLogged([members[row] for row in rows], env_steps, values, self._total_steps))

    def _snapshot_due(
        self,
        population: Population,
        members: Sequence[int],
        env_steps: Sequence[float],
        snapshots: Snapshots | None = None,
    ) -> None:
        """Snapshot the members whose evaluation is due, and evaluate once enough of them wait."""
        if not self._schedules.evaluates:
            return
        if due := self._schedules.evaluation.due(members, env_steps):
            source = snapshots or Snapshots.of(population)
            for row in due:
                point = self._schedules.evaluation.passed[members[row]] - 1
                self._evaluator.snapshot(population, row, point, source)
        if "on_evaluation" in self._watch.moments or self._evaluator.enough_waiting(len(members)):
            self._evaluate_waiting()

    def _send_note(self) -> None:
        """Say once that episodes of evaluations were cut."""
        if self._evaluator.note is not None and not self._note_sent:
            self._note_sent = True
            self._channel.send(Line(f"note: {self._evaluator.note}"))

    def _evaluate_waiting(self) -> None:
        snapshots = self._evaluator.waiting if "on_evaluation" in self._watch.moments else []
        for index, evaluation in enumerate(self._evaluator.evaluate_waiting()):
            self._evaluations.append(evaluation)
            row = evaluation_row(*evaluation.episodes)
            values = {f"eval/{name}": number for name, number in row.items()}
            if evaluation.greedy is not None:
                values["eval/greedy_return_mean"] = evaluation.greedy.returns.mean().item()
            details = self._history.details(evaluation, snapshots[index]) if snapshots else None
            self._channel.send(Evaluated(evaluation.member, evaluation.env_steps, values, details))
        self._send_note()
