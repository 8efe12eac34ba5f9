"""The honest end of a search: the best trial and the configuration as it stands, on seeds that chose nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.compare.execution.executors import Executor
from pgkit.compare.execution.worker import Trained
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.stats import Difference, welch
from pgkit.system.files import read_json, write_text
from pgkit.system.progress import ProgressBar
from pgkit.tune.jobs import Job, Member, run_jobs, split, with_seed
from pgkit.tune.plan import Plan
from pgkit.tune.score import run_score, with_interval
from pgkit.tune.study import SCORES

if TYPE_CHECKING:
    import optuna

AS_IT_STANDS = "as it stands"

MOST_TOGETHER = 32
"""Runs of the report that train together."""


class Unfinished(PgkitError):
    """Runs crashed; all others are stored, the same command tries these again."""

    exit_code = 1


@dataclass(frozen=True)
class TuneResult:
    """What a search has found.

    Attributes:
        directory: of the search.
        config: of the best trial, as in ``best.toml``.
        trial: its number.
        params: its values, by key.
        counts: trials that are complete, pruned and failed.
        table: a row for the configuration as it stands and one for the best trial: scores as text, with intervals.
        difference: best minus as it stands, of the scores on fresh seeds; None if they are the same configuration.
        verdict: of this difference, in words.
    """

    directory: Path
    config: TrainConfig
    trial: int
    params: Mapping[str, Any]
    counts: Mapping[str, int]
    table: list[dict[str, Any]]
    difference: Difference | None
    verdict: str


def run_report(
    plan: Plan, best: "optuna.trial.FrozenTrial", path: Path, executor: Executor, bar: ProgressBar
) -> dict[str, list[dict[str, Any]]]:
    """Train the best trial and the configuration as it stands on fresh seeds, or what is missing of that.

    Args:
        plan: of the search.
        best: the best trial.
        path: of the JSON file that holds the runs, written after every job.
        executor: that trains them.
        bar: that shows the progress.

    Returns:
        For each of the two, one row for each seed: ``seed``, ``score``, ``final`` (mean return of the final policy)
        and ``failed``. There is only one of them if the best trial is the configuration as it stands.

    Raises:
        Unfinished: runs crashed.
    """
    _, seeds = plan.seeds
    configs = {
        AS_IT_STANDS: plan.base,
        **({} if _is_base(plan, best) else {f"trial {best.number}": _config(plan, best)}),
    }
    stored: dict[str, list[dict[str, Any]]] = read_json(path) if path.is_file() else {}
    present = {(name, row["seed"]) for name, rows in stored.items() for row in rows}
    members = [
        Member(name, with_seed(config, seed))
        for name, config in configs.items()
        for seed in seeds
        if (name, seed) not in present
    ]
    jobs = list(split(members, min(MOST_TOGETHER, max(1, -(-len(members) // executor.workers)))))
    crashes: list[str] = []
    done_before = len(configs) * len(seeds) - len(members)

    def done(job: Job[str], trained: Trained) -> None:
        for member, row in zip(job.members, trained.rows, strict=True):
            stored.setdefault(member.owner, []).append(_row(member, row))
        write_text(path, json.dumps(stored, indent=1) + "\n")

    def show(steps: float) -> None:
        runs = done_before + sum(len(rows) for rows in stored.values()) - len(present)
        bar.show(runs * plan.base.steps + steps)

    run_jobs(executor, 1, lambda: jobs.pop(0) if jobs else None, done, lambda job, why: crashes.append(why), show)
    if crashes:
        raise Unfinished(f"{'; '.join(dict.fromkeys(crashes))} (the same command tries again)")
    return {name: [row for row in stored[name] if row["seed"] in seeds] for name in configs}


def make_result(
    plan: Plan,
    directory: Path,
    best: "optuna.trial.FrozenTrial",
    trials: "Sequence[optuna.trial.FrozenTrial]",
    counts: Mapping[str, int],
    runs: Mapping[str, list[dict[str, Any]]],
) -> TuneResult:
    """Summarize a search and its report."""
    stands = best if _is_base(plan, best) else _complete_as_it_stands(plan, trials)
    scores = {name: [row["score"] for row in rows] for name, rows in runs.items()}
    table = [
        {
            "configuration": name,
            "score on tuning seeds [95 %]": _tuned(stands if name == AS_IT_STANDS else best),
            "score on fresh seeds [95 %]": with_interval(scores[name]),
            "final return on fresh seeds [95 %]": with_interval([row["final"] for row in rows]),
            "failed": sum(row["failed"] for row in rows),
        }
        for name, rows in runs.items()
    ]
    difference = welch(scores[f"trial {best.number}"], scores[AS_IT_STANDS]) if len(scores) > 1 else None
    verdict = _verdict(best.number, difference)
    return TuneResult(directory, best_config(plan, best), best.number, best.params, counts, table, difference, verdict)


def best_config(plan: Plan, best: "optuna.trial.FrozenTrial") -> TrainConfig:
    """Return the configuration of the best trial, with a name and the seeds of its own."""
    config = plan.base if _is_base(plan, best) else _config(plan, best)
    return config.model_copy(update={"name": f"{plan.base.name}-tuned"})


def _config(plan: Plan, trial: "optuna.trial.FrozenTrial") -> TrainConfig:
    return plan.config(trial.params)


def _is_base(plan: Plan, trial: "optuna.trial.FrozenTrial") -> bool:
    return _config(plan, trial) == plan.base or dict(trial.params) == plan.as_it_stands()


def _complete_as_it_stands(
    plan: Plan, trials: "Sequence[optuna.trial.FrozenTrial]"
) -> "optuna.trial.FrozenTrial | None":
    params = plan.as_it_stands()
    return next((trial for trial in trials if trial.params == params and trial.state.name == "COMPLETE"), None)


def _tuned(trial: "optuna.trial.FrozenTrial | None") -> str:
    return "not measured to the end" if trial is None else with_interval(trial.user_attrs[SCORES])


def _row(member: Member[str], row: Mapping[str, Any]) -> dict[str, Any]:
    """Summarize a run; one that failed ends with its worst evaluation."""
    failed = bool(row["diverged"])
    final = float(np.nanmin(row["returns"]) if failed else np.mean(row["final"]))
    return {"seed": member.config.seed, "score": run_score(row), "final": final, "failed": failed}


def _verdict(number: int, difference: Difference | None) -> str:
    if difference is None:
        return "the configuration as it stands is the best trial: the search confirms it"
    text = f"{difference.value:+,.1f}"
    if np.isfinite(difference.low):
        text += f" [{difference.low:+,.1f}, {difference.high:+,.1f}]"
    what = f"trial {number} minus the configuration as it stands, on fresh seeds: {text}"
    if difference.low > 0:
        return f"{what}: it is better"
    if difference.high < 0:
        return f"{what}: it is worse"
    return f"{what}: no difference is shown"
