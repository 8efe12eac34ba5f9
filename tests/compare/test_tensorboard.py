"""A comparison in TensorBoard, read back with TensorBoard's own readers."""

import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.comparisons import PEAKS, RATES, STEPS, synthetic
from helpers.hparams import hparams_tab, scalars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from pgkit.compare.report.tensorboard import BAND, final_numbers, run_name, write_tensorboard
from pgkit.compare.tables import Analysis
from pgkit.plots.page import Drawing

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 640, 480) + b"..."
DRAWINGS = [Drawing("x-pairs", "pairs", "CartPole-v1, reinforce", "", "<svg/>", PNG)]
CASE = "cartpole-v1-reinforce"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return synthetic(agents=("reinforce",), rates=RATES[1:5])


@pytest.fixture(scope="module")
def logdir(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tensorboard")
    write_tensorboard(analysis, directory, DRAWINGS)
    return directory


def test_there_is_a_run_for_each_setting_and_each_arm(logdir: Path, analysis: Analysis) -> None:
    found = {path.parent.relative_to(logdir).as_posix() for path in logdir.rglob("events.*")}
    tuning = {f"tuning/{CASE}/{arm}-lr{lr}" for arm in PEAKS for lr in ("3.16e-3", "1e-2", "3.16e-2", "0.1")}
    assert found == tuning | {f"evaluation/{CASE}/{arm}" for arm in PEAKS} | {"report"}
    settings = analysis.tables["runs"].to_dict("records")
    assert {run_name(setting) for setting in settings} == found - {"report"}


def test_curves_are_medians_with_bands(logdir: Path, analysis: Analysis) -> None:
    curves = analysis.tables["curves"]
    evaluated = curves[(curves["stage"] == "evaluation") & (curves["optimizer"] == "adam")]
    found = scalars(logdir / "evaluation" / CASE / "adam")
    for tag, quantile in zip(BAND, (0.5, 0.1, 0.9), strict=True):
        expected = evaluated.groupby("point")["return_mean"].quantile(quantile)
        assert [value for _, value in found[tag]] == pytest.approx(expected.tolist(), rel=1e-6)
        assert [step for step, _ in found[tag]] == np.rint(np.linspace(0, STEPS, 51)).tolist()
    events = EventAccumulator(str(logdir / "report"))
    events.Reload()
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    series = layout.category[0].chart[0].margin.series[0]
    assert (series.value, series.lower, series.upper) == BAND


def test_hparams_tab_is_filled(logdir: Path, analysis: Analysis) -> None:
    experiment, sessions = hparams_tab(logdir)
    assert {info.name for info in experiment.hparam_infos} == {"stage", "environment", "agent", "optimizer", "lr"}
    assert {"compare/score", "compare/learnt_rate"} <= {info.name.tag for info in experiment.metric_infos}
    assert len(sessions) == 4 * 4 + 4
    adam = sessions[f"evaluation/{CASE}/adam"]
    assert adam.hparams["optimizer"].string_value == "adam"
    assert adam.hparams["agent"].string_value == "reinforce"
    assert adam.hparams["lr"].number_value == PEAKS["adam"]
    values = {value.name.tag: value.value for value in adam.metric_values}
    arm = analysis.tables["arms"].set_index("optimizer").loc["adam"]
    assert values["compare/score"] == pytest.approx(arm["mean"])
    assert values["compare/learnt_rate"] == pytest.approx(arm["learnt_rate"])
    assert values["compare/steps_to_threshold"] > 0


def test_censored_runs_never_get_there(analysis: Analysis) -> None:
    runs = analysis.tables["runs"].iloc[:5].assign(steps_to_threshold=[1.0, 2.0, 3.0, np.nan, np.nan])
    assert final_numbers(runs)["compare/steps_to_threshold"] == 3.0
    assert "compare/steps_to_threshold" not in final_numbers(runs.iloc[1:])
    failed = runs.assign(outcome=["failed", "learnt", "learnt", "learnt", "did not learn"])
    assert final_numbers(failed)["compare/learnt_rate"] == 0.6


def test_figures_are_images(logdir: Path) -> None:
    events = EventAccumulator(str(logdir / "report"))
    events.Reload()
    (image,) = events.Images("pairs/cartpole-v1-reinforce")
    assert (image.width, image.height) == (640, 480)
    assert image.encoded_image_string == PNG


def test_writing_again_replaces(analysis: Analysis, logdir: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    write_tensorboard(analysis, tmp_path, DRAWINGS)
    write_tensorboard(analysis, tmp_path, DRAWINGS)
    count = len(list(logdir.rglob("events.*")))
    assert len(list(tmp_path.rglob("events.*"))) == count
    assert other.read_text() == "mine"
