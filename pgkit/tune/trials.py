"""The trials of a search: asked for, trained together stretch by stretch, pruned or told."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pgkit.compare.execution.executors import Executor
from pgkit.compare.execution.worker import Trained
from pgkit.errors import PgkitError
from pgkit.system.progress import ProgressBar
from pgkit.tune.jobs import Job, Member, run_jobs, split, with_seed
from pgkit.tune.plan import Plan
from pgkit.tune.score import run_score
from pgkit.tune.study import Study

if TYPE_CHECKING:
    import optuna

TrialJob = Job[int]
"""Runs of trials, which are their owners by number."""


class Trials:
    """Runs trials until the study has so many.

    Args:
        plan: of the search.
        study: that proposes values and keeps scores.
        n_trials: that the study should have in the end, those of earlier calls included.
        population: trials that train together.
        bar: that shows the progress.
    """

    def __init__(self, plan: Plan, study: Study, n_trials: int, population: int, bar: ProgressBar) -> None:
        self._plan = plan
        self._study = study
        self._left = n_trials - sum(study.counts().values())
        self._population = population
        self._bar = bar
        self._waiting: deque[TrialJob] = deque()
        self._running: dict[int, optuna.Trial] = {}
        self._rows: dict[int, dict[int, dict[str, Any]]] = {}
        self._best: int | None = None
        self._workers = 1

    def run(self, executor: Executor) -> None:
        """Run what is left of the trials; a stop loses only what is running."""
        self._workers = executor.workers
        self._show(0.0)
        run_jobs(executor, self._plan.stretches, self._take, self._done, self._crashed, self._show)

    def _take(self) -> TrialJob | None:
        """Return runs that wait, else those of new trials."""
        while not self._waiting and self._left > 0:
            self._ask(min(self._population, -(-self._left // self._workers)))
        return self._waiting.popleft() if self._waiting else None

    def _ask(self, count: int) -> None:
        """Ask for new trials, and queue those that can be trained."""
        members: list[Member[int]] = []
        with self._study.stored():
            for trial in self._study.ask(count):
                self._left -= 1
                try:
                    config = self._plan.config(trial.params)
                except PgkitError as error:
                    self._study.refuse(trial, str(error))
                    continue
                self._running[trial.number] = trial
                self._rows[trial.number] = {}
                evaluation = config.evaluation.model_copy(update={"final_episodes": 1})  # no score needs these
                tuning_seeds, _ = self._plan.seeds
                members += [
                    Member(trial.number, with_seed(config, seed, evaluation=evaluation)) for seed in tuning_seeds
                ]
        self._waiting.extend(split(members, most=max(1, len(members))))

    def _done(self, job: TrialJob, trained: Trained) -> None:
        """Tell scores, prune, and queue the next stretch of the rest."""
        for member, row in zip(job.members, trained.rows, strict=True):
            self._rows[member.owner][member.config.seed] = row
        share = job.stretch / self._plan.stretches
        numbers = list(dict.fromkeys(member.owner for member in job.members))
        with self._study.stored():
            for number in numbers:
                self._report(number, share)
            for number in [number for number in numbers if number in self._running]:
                if self._study.prune(self._running[number]):
                    self._end(number)
        going_on = [
            index
            for index, (member, row) in enumerate(zip(job.members, trained.rows, strict=True))
            if member.owner in self._running and not row["diverged"]
        ]
        if going_on:
            self._waiting.append(job.next(going_on, trained.saved))
        self._announce()

    def _report(self, number: int, share: float) -> None:
        """Report a trial's scores so far; it ends at its last step, or, without a score, where all its seeds fail."""
        rows = self._rows[number]
        trial = self._running[number]
        if all(row["diverged"] for row in rows.values()):
            self._study.refuse(trial, "every seed failed: its numbers are not finite")
            self._end(number)
        elif share == 1:
            self._study.complete(trial, _scores(rows, 1.0))
            self._end(number)
        else:
            self._study.report(trial, _scores(rows, share), round(share * self._plan.base.steps))

    def _crashed(self, job: TrialJob, reason: str) -> None:
        numbers = sorted({member.owner for member in job.members})
        with self._study.stored():
            for number in numbers:
                self._study.fail(self._running[number], reason)
                self._end(number)
        self._bar.print(f"trials {', '.join(map(str, numbers))}: {reason}")

    def _end(self, number: int) -> None:
        del self._running[number], self._rows[number]

    def _announce(self) -> None:
        """Print a line if there is a new best trial."""
        best = self._study.best()
        if best is not None and best.number != self._best:
            self._best = best.number
            values = ", ".join(f"{key}={_short(value)}" for key, value in best.params.items())
            self._bar.print(f"best so far {best.values[0]:,.1f}, trial {best.number}: {values}")

    def _show(self, steps: float) -> None:
        """Show what is done: a trial that was pruned has nothing left to do."""
        counts = self._study.counts()
        of_trial = self._plan.tuning_seeds * self._plan.base.steps
        waiting = sum(job.steps_before(self._plan.stretches) for job in self._waiting)
        self._bar.show(sum(counts.values()) * of_trial + waiting + steps)
        self._bar.note(", ".join(f"{count} {state}" for state, count in counts.items() if count))


def _scores(rows: dict[int, dict[str, Any]], share: float) -> Sequence[float]:
    """Return the scores of a trial's runs, in the order of their seeds."""
    return [run_score(rows[seed], share) for seed in sorted(rows)]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
