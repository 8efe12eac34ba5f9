"""The study of a search: an ordinary Optuna study in a SQLite file, which Optuna's dashboard and functions open."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkit.errors import PgkitError, describe_exception
from pgkit.tune.plan import Plan
from pgkit.tune.space import Choice, Range

if TYPE_CHECKING:
    import optuna

MISSING = "pgkit tune needs the package optuna: pip install 'pgkit-rl[tune]'"

SCORES = "scores"
"""Attribute of a trial: the score of each tuning seed, as far as it has trained."""

REASON = "reason"
"""Attribute of a trial without a score: why, in one line."""

FIRST_PRUNED_AFTER = 5
"""Complete trials before any is pruned: Optuna's default."""


def check_installed() -> None:
    """Check that Optuna is installed.

    Raises:
        PgkitError: it is not; the message says how to install it.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise PgkitError(MISSING) from None


class Study:
    """Ask for parameters, tell scores; every call is stored at once.

    Args:
        path: of the SQLite file, created when missing.
        plan: of the search.
        seed: of Optuna's sampler.
        population: trials that are asked for before any of them is told.

    Raises:
        PgkitError: the file is damaged or cannot be written.
    """

    def __init__(self, path: Path, plan: Plan, seed: int, population: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._path = path
        self._distributions = {key: self._distribution(each) for key, each in plan.space.items()}
        with self.stored():
            storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            self._study = optuna.create_study(
                storage=storage, study_name=plan.base.name, direction="maximize", load_if_exists=True
            )
            self._requeue(storage)
            trials = self._study.get_trials(deepcopy=False)
            # Random numbers of its own for each session: the same ones again would be the same parameters again.
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed + len(trials), n_startup_trials=max(10, population), constant_liar=True
            )
            self._study.pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST_PRUNED_AFTER)
            if not trials and (params := plan.as_it_stands()) is not None:
                self._study.enqueue_trial(params)

    @contextmanager
    def stored(self) -> Iterator[None]:
        """Turn what SQLite has against the file into one line."""
        import sqlalchemy.exc

        try:
            yield
        except (self._optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            reason = describe_exception(error.__cause__ or error).partition(" [SQL")[0]
            raise PgkitError(f"cannot use {self._path}: {reason}") from None

    def ask(self, count: int) -> "list[optuna.Trial]":
        """Return new trials, those first that a killed process has left."""
        return [self._study.ask(self._distributions) for _ in range(count)]

    def report(self, trial: "optuna.Trial", scores: Sequence[float], step: int) -> None:
        """Store the scores of a trial's seeds after so many steps; what is stored already stays, it is the same."""
        trial.set_user_attr(SCORES, list(scores))
        if step not in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(sum(scores) / len(scores), step)

    def complete(self, trial: "optuna.Trial", scores: Sequence[float]) -> None:
        """End a trial with the mean score of its seeds."""
        trial.set_user_attr(SCORES, list(scores))
        self._study.tell(trial, sum(scores) / len(scores))

    def prune(self, trial: "optuna.Trial") -> bool:
        """End a trial if Optuna's pruner says so; return whether it did."""
        if not trial.should_prune():
            return False
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
        return True

    def refuse(self, trial: "optuna.Trial", reason: str) -> None:
        """End a trial without a score, and say why; the sampler takes it for one of the worst."""
        trial.set_user_attr(REASON, reason)
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, trial: "optuna.Trial", reason: str) -> None:
        """End a trial whose process crashed."""
        trial.set_user_attr(REASON, reason)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def counts(self) -> dict[str, int]:
        """Return the number of trials that are complete, pruned and failed; refused ones are among the pruned."""
        states = [trial.state.name.lower() for trial in self._study.get_trials(deepcopy=False)]
        return {state: states.count(word) for state, word in _STATES.items()}

    def best(self) -> "optuna.trial.FrozenTrial | None":
        """Return the complete trial with the highest score, the earliest of several; None if none is complete."""
        complete = self._study.get_trials(deepcopy=False, states=[self._optuna.trial.TrialState.COMPLETE])
        return max(complete, key=lambda trial: trial.values[0], default=None)

    def trials(self) -> "Sequence[optuna.trial.FrozenTrial]":
        """Return all trials."""
        return self._study.get_trials(deepcopy=False)

    def _requeue(self, storage: "optuna.storages.RDBStorage") -> None:
        """Let trials that a killed process was running wait again, under their numbers.

        The directory is locked, so no other process is running them.
        """
        state = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=[state.RUNNING]):
            storage.set_trial_state_values(trial._trial_id, state.WAITING)

    def _distribution(self, dimension: Range | Choice) -> Any:
        kinds = self._optuna.distributions
        if isinstance(dimension, Choice):
            return kinds.CategoricalDistribution([dimension.label(value) for value in dimension.values])
        if dimension.whole:
            return kinds.IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        return kinds.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


_STATES: Mapping[str, str] = {"complete": "complete", "pruned": "pruned", "failed": "fail"}
