"""TensorBoard files of a comparison: a run for each setting and each evaluated arm, and the report's figures."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pgkit.compare.report.figures_runs import Array, curves_of
from pgkit.compare.report.html import draw
from pgkit.compare.tables import LEARNT, NUMBERED, SETTING, Analysis
from pgkit.logging.tensorboard import ChartGroup, TensorBoardWriter
from pgkit.plots.page import Drawing, slug
from pgkit.plots.style import rate

RETURN = "eval/return_mean"
BAND = (RETURN, f"spread/{RETURN}/p10", f"spread/{RETURN}/p90")
"""Tags of the median and of the band from 10 % to 90 % of seeds."""

STAGES = ("tuning", "evaluation")


def write_tensorboard(analysis: Analysis, directory: Path, drawings: Sequence[Drawing] | None = None) -> None:
    """Write a TensorBoard run for each setting, and replace earlier ones.

    Args:
        analysis: the analysed comparison.
        directory: argument of ``tensorboard --logdir``; event files in it are deleted first.
        drawings: the report's figures; None to draw them.
    """
    for old in directory.rglob("events.out.tfevents.*"):
        old.unlink()
    now = time.time()
    runs, curves = analysis.tables["runs"], analysis.tables["curves"]
    keys = ("stage", *(NUMBERED if analysis.all_tuned else SETTING))
    by_setting = dict(list(curves.groupby(list(keys))))
    for key, of_setting in runs[runs["stage"].isin(STAGES)].groupby(list(keys)):
        setting = dict(zip(keys, key, strict=True))
        if analysis.all_tuned:
            setting |= analysis.plan["settings"][setting["optimizer"]][setting["setting"]]
        floor = analysis.scale(setting["environment"])["random_return"]
        curve = curves_of(by_setting[key], "return_mean", floor)
        _write_setting(directory / run_name(setting), setting, curve, final_numbers(of_setting), now)
    _write_figures(directory / "report", draw(analysis) if drawings is None else drawings)


def run_name(setting: Mapping[str, Any]) -> str:
    """Return the name of a setting's run, such as ``tuning/cartpole-v1-reinforce/adam-lr3e-3``.

    In track "all tuned" it ends with ``adam-setting7``; the run of an evaluated arm ends with the arm's label.
    """
    case = slug(f"{setting['environment']}-{setting['agent']}")
    name = f"-setting{setting['setting']}" if "setting" in setting else f"-lr{rate(setting['lr'])}"
    end = name if setting["stage"] == "tuning" else ""
    return f"{setting['stage']}/{case}/{setting['optimizer']}{end}"


def final_numbers(runs: pd.DataFrame) -> dict[str, float]:
    """Return a setting's metrics for the HParams tab: score, share that learnt, median steps to threshold if any."""
    steps = float(np.median(runs["steps_to_threshold"].fillna(np.inf)))
    numbers = {"compare/score": runs["auc"].mean(), "compare/learnt_rate": (runs["outcome"] == LEARNT).mean()}
    return {name: float(value) for name, value in numbers.items()} | (
        {"compare/steps_to_threshold": steps} if np.isfinite(steps) else {}
    )


def _write_setting(
    directory: Path,
    setting: Mapping[str, Any],
    curve: tuple[Array, Array],
    final: Mapping[str, float],
    now: float,
) -> None:
    """Write one run: hyperparameters, median and band of the curves ``(K,)``, ``(n, K)``, and final metrics."""
    steps, returns = curve
    writer = TensorBoardWriter(directory)
    writer.hyperparameters(setting)
    for step, numbers in zip(steps, np.quantile(returns, [0.5, 0.1, 0.9], axis=0).T, strict=True):
        writer.scalars(round(step), dict(zip(BAND, numbers.tolist(), strict=True)), now)
    writer.scalars(round(steps[-1]), final, now)
    writer.session_end(success=True)
    writer.close()


def _write_figures(directory: Path, drawings: Sequence[Drawing]) -> None:
    writer = TensorBoardWriter(directory)
    writer.charts([ChartGroup("comparison: median and 10-90 % of seeds", {"return": BAND}, {})])
    for drawing in drawings:
        writer.image(f"{drawing.figure}/{slug(drawing.where)}", drawing.png)
    writer.close()
