"""Why the arms of a comparison did what they did: stage 4 of the protocol, after the results are there.

Every arm trains once more at its selected setting, with the seeds of the evaluation and so to the same bits, and keeps
its checkpoints below ``diagnosis/``. The seed whose final return is the arm's median is diagnosed, and then all arms
are tried at the same policies: those of the best arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pgkit.compare.analysis.pool import Stored, read_stored
from pgkit.compare.api import build_report
from pgkit.compare.plan.baselines import scales
from pgkit.compare.plan.plan import Run
from pgkit.compare.report.why import FOLDER, case_folder
from pgkit.compare.selection.stages import TuningResult, tuned
from pgkit.config.schema import TrainConfig
from pgkit.diagnose.api import diagnose
from pgkit.diagnose.play import open_player
from pgkit.diagnose.points import CHECKPOINTS, Point, open_run
from pgkit.diagnose.report.write import write_report
from pgkit.diagnose.results import Diagnosis, Quantity, Row
from pgkit.diagnose.same_states import next_updates_of
from pgkit.diagnose.settings import Settings
from pgkit.errors import PgkitError
from pgkit.runs.directory import is_finished
from pgkit.system.files import absolute
from pgkit.training.train import train

SAME_STATES = (0.02, 0.1, 0.35)
"""Shares of the best arm's budget at whose policies all arms are tried."""


class _Arm(NamedTuple):
    """An arm at its selected setting.

    Attributes:
        name: its label.
        config: of the diagnosed seed.
        place: directory of the run with all evaluation seeds.
        final: mean final return over the seeds.
    """

    name: str
    config: TrainConfig
    place: Path
    final: float


def diagnose_comparison(
    directory: str | Path,
    settings: Settings | None = None,
    *,
    out: str | Path | None = None,
    again: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Diagnosis]:
    """Diagnose every arm of a comparison at its selected setting, side by side and from the same policies.

    The report of the comparison is written again, because its section "why" sums the diagnosis up.

    Args:
        directory: of the comparison, whose tuning and evaluation are complete.
        settings: how much is measured; by default as for a run.
        out: where runs and reports go; by default ``diagnosis/`` in the comparison. Elsewhere, the comparison's report
            does not find them.
        again: measure anew what is already there.
        workers: processes.
        progress: whether to show progress bars.

    Returns:
        The diagnosis of each case by its name, whose members are the arms.

    Raises:
        PgkitError: there is no comparison, or no case of it is complete.
    """
    settings = settings or Settings(critical=1)
    place = absolute(Path(directory))
    stored = read_stored(place)
    target = place / FOLDER if out is None else absolute(Path(out))
    results = tuned(stored.plan, scales(stored.plan, stored.baselines), stored.runs)
    evaluated = stored.runs[stored.runs["stage"] == "evaluation"]
    if evaluated.empty:
        raise PgkitError(f"{place} has not selected its settings yet: pgkit compare finishes it")
    diagnoses = {}
    for case, result in results.items():
        of_case = evaluated[(evaluated["environment"] == case[0]) & (evaluated["agent"] == case[1])]
        name = case_folder(case)
        arms = _trained_arms(stored, result, of_case, target / name, workers, progress)
        by_arm = {
            arm.name: diagnose(
                arm.place, settings, member=arm.config.seed, again=again, workers=workers, progress=progress
            )
            for arm in arms
        }
        joined = _join(by_arm, name)
        diagnoses[name] = replace(joined, tables={**joined.tables, "same_states": _same_states(arms, settings)})
        write_report(diagnoses[name], target / name / FOLDER)
    if out is None:
        build_report(place)
    return diagnoses


def _trained_arms(
    stored: Stored, result: TuningResult, of_case: pd.DataFrame, place: Path, workers: int, progress: bool
) -> list[_Arm]:
    """Train each arm at its selected setting, unless its run is there; the best arm comes first."""
    arms = []
    for arm in stored.plan.arms:
        point = result.selected(arm)
        rows = of_case[(of_case["optimizer"] == arm) & (of_case["lr"] == point.lr)]
        rows = rows[rows["setting"] == point.setting]
        if rows.empty:
            continue
        key = (str(rows["environment"].iloc[0]), str(rows["agent"].iloc[0]), arm, point.lr)
        configs = [
            _dense(stored.plan.train_config(Run("evaluation", *key, int(seed), point.setting))) for seed in rows["seed"]
        ]
        run = place / arm.replace("/", "-")
        if not (run.exists() and is_finished(run)):
            train(configs, run, progress=progress, overwrite=run.exists(), workers=min(workers, len(configs)))
        finals = np.array([np.mean(final) for final in rows["final"]])
        median = int(np.argsort(finals, kind="stable")[len(finals) // 2])
        arms.append(_Arm(arm, configs[median], run, float(finals.mean())))
    return sorted(arms, key=lambda arm: -arm.final)


def _dense(config: TrainConfig) -> TrainConfig:
    """The configuration with a checkpoint at every hundredth of training."""
    return config.model_copy(update={"checkpoint_points": CHECKPOINTS, "keep_checkpoints": CHECKPOINTS + 1})


def _join(by_arm: Mapping[str, Diagnosis], case: str) -> Diagnosis:
    """The diagnoses of the arms as one, whose members are the arms."""
    first = next(iter(by_arm.values()))
    names = dict.fromkeys(name for d in by_arm.values() for name in d.tables)
    return replace(
        first,
        run=case,
        points=[replace(point, member=arm) for arm, d in by_arm.items() for point in d.points],
        verdicts=[replace(verdict, member=arm) for arm, d in by_arm.items() for verdict in d.verdicts],
        summary={arm: text for arm, d in by_arm.items() for text in d.summary.values()},
        tables={
            name: [{**row, "label": arm} for arm, d in by_arm.items() for row in d.tables.get(name, ())]
            for name in names
        },
        not_done=list(dict.fromkeys(entry for d in by_arm.values() for entry in d.not_done)),
        cost={key: sum(d.cost[key] for d in by_arm.values()) for key in first.cost},
    )


def _same_states(arms: Sequence[_Arm], settings: Settings) -> list[Row]:
    """What each arm's next updates do to policies of the best arm."""
    best = arms[0]
    rows: list[Row] = []
    with (
        open_run(best.place, SAME_STATES, settings.from_saved) as run,
        open_player(best.config, settings.seed) as player,
    ):
        for members in run.at(SAME_STATES):
            point = next(point for point in members if point.config.seed == best.config.seed)
            rows += _rows(point, next_updates_of(point, {arm.name: arm.config for arm in arms}, player, settings))
    return rows


def _rows(point: Point, measured: Mapping[str, Mapping[str, Quantity]]) -> list[Row]:
    """A row for each arm: every quantity with its interval."""
    return [
        {"member": point.config.seed, "label": arm, "env_steps": point.env_steps}
        | {
            column: value
            for name, quantity in quantities.items()
            for column, value in (
                (name, quantity.value),
                (f"{name}_low", quantity.low),
                (f"{name}_high", quantity.high),
            )
        }
        for arm, quantities in measured.items()
    ]
