"""Search for hyperparameters: what ``pgkit tune`` and scripts call."""

import json
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pgkit.compare.execution.executors import LocalExecutor
from pgkit.config.load import to_toml
from pgkit.config.overrides import Overrides
from pgkit.errors import PgkitError, PgkitWarning
from pgkit.runs import provenance
from pgkit.runs.directory import as_directory
from pgkit.system.files import as_write_error, lock, read_json, write_text
from pgkit.system.progress import ProgressBar
from pgkit.tune.plan import Plan, make_plan
from pgkit.tune.report import TuneResult, best_config, make_result, run_report
from pgkit.tune.study import Study, check_installed
from pgkit.tune.trials import Trials

TUNING = Path("tuning")
"""Parent directory of searches, relative to the working directory."""

POPULATION = 8
STRETCHES = 4
TUNING_SEEDS = 3
REPORT_SEEDS = 20


def search(
    name_or_path: str | Path,
    space: Sequence[str],
    n_trials: int,
    overrides: Overrides = (),
    directory: str | Path | None = None,
    workers: int = 1,
    population: int = POPULATION,
    stretches: int = STRETCHES,
    tuning_seeds: int = TUNING_SEEDS,
    report_seeds: int = REPORT_SEEDS,
    sampler_seed: int = 0,
    progress: bool = False,
) -> TuneResult:
    """Search for the values of some keys that give the highest mean return, or continue a search.

    In a script, call it below ``if __name__ == "__main__":``, because worker processes import the script.

    >>> from pgkit import tune
    >>> space = ["optimizer.lr=1e-4:1e-1:log", "optimizer.name=adam,rmsprop"]
    >>> result = tune.search("cartpole-actor-critic", space, n_trials=200)  # doctest: +SKIP
    >>> result.params, result.verdict  # doctest: +SKIP

    Args:
        name_or_path: name of a shipped configuration, or path of a TOML file.
        space: what varies, see :func:`pgkit.tune.space.parse_space`.
        n_trials: trials of the whole search, those of earlier calls included.
        overrides: of the configuration, as of :func:`pgkit.load_config`.
        directory: where the search is stored; default: ``tuning/<name>``.
        workers: populations that train at the same time, one core each.
        population: trials that train together, as far as they can share a population.
        stretches: parts of training, between which Optuna's pruner ends trials; 1: none is ended.
        tuning_seeds: seeds that each trial trains on: 0, 1, 2, ...
        report_seeds: fresh seeds of the report: 1000, 1001, ...
        sampler_seed: of Optuna's sampler.
        progress: show a progress bar.

    Raises:
        PgkitError: a mistake in the configuration or the space, Optuna is missing, or another search is stored there.
        Unfinished: runs of the report crashed.
    """
    check_installed()
    for name, number in {"n_trials": n_trials, "workers": workers, "population": population}.items():
        if type(number) is not int or number < 1:
            raise PgkitError(f"{name} must be a whole number from 1, got {number!r}")
    parent = as_directory(TUNING)
    chosen = None if directory is None else as_directory(directory)
    plan = make_plan(name_or_path, overrides, space, tuning_seeds, report_seeds, stretches)
    place = chosen or parent / plan.base.name
    _check_directory(place, plan)
    with as_write_error(place):
        place.mkdir(parents=True, exist_ok=True)
    with (
        lock(place / ".lock", f"{place} is in use by another process"),
        closing(LocalExecutor(workers)) as executor,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", PgkitWarning)
        _begin(place, plan)
        return _search(plan, place, n_trials, population, sampler_seed, executor, progress)


def _search(
    plan: Plan, place: Path, n_trials: int, population: int, seed: int, executor: LocalExecutor, progress: bool
) -> TuneResult:
    study = Study(place / "study.db", plan, seed, population)
    with closing(_Bar(n_trials * plan.tuning_seeds * plan.base.steps, progress)) as bar:
        Trials(plan, study, n_trials, population, bar).run(executor)
    best = study.best()
    if best is None:
        raise PgkitError(f"no trial is complete ({study.counts()}): more trials, fewer stretches, or another space")
    write_text(place / "best.toml", to_toml(best_config(plan, best)))
    with closing(_Bar(2 * plan.report_seeds * plan.base.steps, progress)) as bar:
        runs = run_report(plan, best, place / "report.json", executor, bar)
    return make_result(plan, place, best, study.trials(), study.counts(), runs)


class _Bar(ProgressBar):
    """A bar that is shown at once, and closed."""

    def __init__(self, total: int, shown: bool) -> None:
        super().__init__(total, shown)
        self.start()

    def close(self) -> None:
        self.stop()


def _check_directory(place: Path, plan: Plan) -> None:
    """Check that a directory holds this search, or nothing.

    Raises:
        PgkitError: it holds something else.
    """
    if place.exists() and not place.is_dir():
        raise PgkitError(f"{place} is a file: --out chooses another place")
    if not place.exists() or not any(entry.name != ".lock" for entry in place.iterdir()):
        return
    if not (place / "plan.json").is_file():
        raise PgkitError(f"{place} holds no search (no plan.json): --out chooses another place")
    stored = read_json(place / "plan.json")
    wanted = json.loads(json.dumps(plan.as_data()))
    if stored == wanted:
        return
    names = ("config", "space", "tuning_seeds", "stretches")
    name = next(name for name in names if stored.get(name) != wanted[name])
    if name in ("config", "space"):
        both = sorted({*stored.get(name, {}), *wanted[name]})
        key = next(key for key in both if stored.get(name, {}).get(key) != wanted[name].get(key))
        name = f"{name}, {key}"
    raise PgkitError(f"{place} holds another search (they differ in {name}): name=... or --out chooses another place")


def _begin(place: Path, plan: Plan) -> None:
    """Write what is searched, and with what, if it is not stored yet."""
    if (place / "plan.json").is_file():
        return
    seeds, fresh = plan.seeds
    record = provenance.collect([*seeds, *fresh])
    write_text(place / "provenance.json", json.dumps(record, indent=2, default=str) + "\n")
    write_text(place / "plan.json", json.dumps(plan.as_data(), indent=2) + "\n")
