"""Logged numbers, read back with TensorBoard's own readers and from metrics.parquet."""

import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.hparams import hparams_tab, scalars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2

import pgkit.logging
from pgkit.errors import PgkitError
from pgkit.logging import METRICS, Logger, metrics, read_metrics

NAN, INF = math.nan, math.inf
README = Path(pgkit.logging.__file__).with_name("README.md")
HPARAMS = {"name": "x", "optimizer.name": "sgd", "optimizer.lr": 0.1, "steps": 100, "policy.shared": True}


def logger(directory: Path, members: int = 1, **changes: Any) -> Logger:
    """A logger of that many members, seeds from 0."""
    hparams = [HPARAMS | {"seed": seed} | changes for seed in range(members)]
    return Logger(directory, [f"seed-{seed}" for seed in range(members)], 'name = "x"\n', hparams)


# --- TensorBoard: one member ---


def test_one_member_writes_into_the_directory_itself(tmp_path: Path) -> None:
    log = logger(tmp_path)
    log.log([10], {"loss/policy": [1.5], "eval/return_mean": [20.0]})
    log.log([20], {"loss/policy": [0.5], "eval/return_mean": [NAN]})
    assert scalars(tmp_path)["loss/policy"] == [(10, 1.5), (20, 0.5)], "readable before the run has ended"
    log.close()
    assert scalars(tmp_path) == {"loss/policy": [(10, 1.5), (20, 0.5)], "eval/return_mean": [(10, 20.0)]}
    assert sorted(entry.name.split(".")[0] for entry in tmp_path.iterdir()) == ["events", "metrics"]


def test_config_is_a_text_and_curves_carry_their_definitions(tmp_path: Path) -> None:
    log = logger(tmp_path)
    log.log([10], {"policy/approx_kl": [0.01], "optimizer/critic/grad_norm": [1.0]})
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (text,) = events.Tensors("config")
    assert text.tensor_proto.string_val[0].decode() == '```toml\nname = "x"\n```'
    described = {tag: events.SummaryMetadata(tag).summary_description for tag in events.Tags()["scalars"]}
    by_tag = {metric.tag: metric.definition for metric in METRICS}
    assert described["policy/approx_kl"] == by_tag["policy/approx_kl"]
    assert described["optimizer/critic/grad_norm"] == by_tag["optimizer/<part>/<name>"]


def test_non_finite_numbers_break_nothing(tmp_path: Path) -> None:
    log = logger(tmp_path, members=2)
    for step in (10, 20, 30):
        log.log([step, step], {"loss/policy": [INF, -INF], "loss/value": [NAN, NAN], "eval/return_mean": [NAN, 1.0]})
    log.hparams([{"eval/return_mean": NAN}, {"eval/return_mean": INF}])
    log.close()
    assert scalars(tmp_path / "seed-0") == {"loss/policy": [(10, INF), (20, INF), (30, INF)]}
    assert scalars(tmp_path / "seed-1")["eval/return_mean"][-1] == (30, INF)
    assert "loss/value" not in scalars(tmp_path / "summary")
    table = read_metrics(tmp_path / "metrics.parquet")
    assert not table["value"].isna().any()
    assert set(table[table.tag == "loss/policy"]["value"]) == {INF, -INF}
    assert set(hparams_tab(tmp_path)[1]) == {"seed-0", "seed-1"}


# --- TensorBoard: a population ---


def test_members_have_a_run_each_and_their_median_another(tmp_path: Path) -> None:
    log = logger(tmp_path, members=5)
    returns = np.array([[5.0, 1.0, 3.0, 2.0, 4.0], [50.0, 10.0, 30.0, 20.0, 40.0]])
    for row, steps in zip(returns, ([10, 11, 12, 13, 14], [20, 21, 22, 23, 24]), strict=True):
        log.log(steps, {"eval/return_mean": row})
    log.close()
    for member in range(5):
        expected = [(10 + member, returns[0, member]), (20 + member, returns[1, member])]
        assert scalars(tmp_path / f"seed-{member}") == {"eval/return_mean": expected}
    curves = scalars(tmp_path / "summary")
    assert curves["eval/return_mean"] == [(12, 3.0), (22, 30.0)]
    assert curves["spread/eval/return_mean/p10"] == [(12, pytest.approx(1.4)), (22, pytest.approx(14.0))]
    assert curves["spread/eval/return_mean/p90"] == [(12, pytest.approx(4.6)), (22, pytest.approx(46.0))]


def test_summary_waits_for_more_than_half_and_keeps_those_that_left(tmp_path: Path) -> None:
    log = logger(tmp_path, members=3)
    log.log([10, 0, 0], {"eval/return_mean": [1.0, NAN, NAN]})
    assert "eval/return_mean" not in scalars(tmp_path / "summary")
    log.log([0, 10, 10], {"eval/return_mean": [NAN, 2.0, 6.0]})
    assert scalars(tmp_path / "summary")["eval/return_mean"] == [(10, 2.0)]
    log.log([0, 20, 20], {"eval/return_mean": [NAN, 8.0, 9.0]})  # member 0 has failed: its latest number counts
    assert scalars(tmp_path / "summary")["eval/return_mean"] == [(10, 2.0), (20, 8.0)]
    log.log([0, 30, 0], {"eval/return_mean": [NAN, 10.0, NAN]})
    log.close()
    assert scalars(tmp_path / "summary")["eval/return_mean"][2:] == [(20, 9.0)], "what is left comes at the end"


def test_charts_are_of_returns_then_of_losses_then_of_the_optimizer(tmp_path: Path) -> None:
    log = logger(tmp_path, members=2)
    tags = ("eval/return_mean", "train/episode_return", "loss/policy", "loss/value", "policy/entropy")
    tags += ("value/explained_variance", "optimizer/lr", "optimizer/critic/lr", "optimizer/grad_norm")
    log.log([10, 10], {tag: [1.0, 2.0] for tag in (*tags, "optimizer/update_norm", "optimizer/update_ratio")})
    log.close()
    events = EventAccumulator(str(tmp_path / "summary"))
    events.Reload()
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    titles = [category.title.partition(":")[0] for category in layout.category]
    assert titles == ["returns", "returns", "losses", "optimizer"]
    other, band = layout.category[0].chart  # the browser shows the last one first
    (series,) = band.margin.series
    assert [series.value, series.lower, series.upper] == [
        "eval/return_mean",
        "spread/eval/return_mean/p10",
        "spread/eval/return_mean/p90",
    ]
    lines = [chart for category in layout.category[1:] for chart in category.chart]
    shown = events.Tags()["scalars"]
    curves = {chart.title: [tag for tag in shown if re.match(chart.multiline.tag[0], tag)] for chart in lines}
    assert all(curves.values()), "no chart is empty"
    assert curves["optimizer/lr"] == ["optimizer/lr", "optimizer/critic/lr"]
    assert curves["loss/policy"] == ["loss/policy"]
    assert [tag for tag in shown if tag.startswith("spread/")] == [
        f"spread/{tag}/{edge}" for tag in tags[:2] for edge in ("p10", "p90")
    ]
    assert other.title == "train/episode_return"


def test_what_all_members_share_is_shown_once(tmp_path: Path) -> None:
    log = logger(tmp_path, members=2)
    log.texts("optimizer", ["lr = 0.1", "lr = 0.2"])
    log.close()
    texts = {}
    for place in ("seed-0", "seed-1", "summary"):
        events = EventAccumulator(str(tmp_path / place))
        events.Reload()
        texts[place] = {tag for tag in events.Tags()["tensors"] if tag in ("config", "optimizer")}
    assert texts == {"seed-0": {"optimizer"}, "seed-1": {"optimizer"}, "summary": {"config"}}


# --- TensorBoard: hyperparameters ---


def test_hparams_tab_is_filled(tmp_path: Path) -> None:
    many = logger(tmp_path / "many", members=2)
    one = logger(tmp_path / "one", **{"optimizer.name": "adam", "optimizer.beta1": 0.9})
    many.log([10, 12], {"loss/policy": [1.0, 2.0], "eval/return_mean": [0.0, 0.0]})
    one.log([30], {"loss/policy": [3.0]})
    many.hparams([{"eval/return_mean": 100.0}, {"eval/return_mean": 200.0}])
    one.hparams([{"eval/return_mean": 300.0}])
    many.close(), one.close()
    experiment, sessions = hparams_tab(tmp_path)
    assert {info.name for info in experiment.hparam_infos} == {*HPARAMS, "seed", "optimizer.beta1"}
    assert {info.name for info in experiment.hparam_infos if info.differs} == {"seed", "optimizer.name"}
    assert {info.name.tag for info in experiment.metric_infos} == {"eval/return_mean", "loss/policy"}
    values = {run: {v.name.tag: v.value for v in group.metric_values} for run, group in sessions.items()}
    assert values == {
        "many/seed-0": {"eval/return_mean": 100.0, "loss/policy": 1.0},
        "many/seed-1": {"eval/return_mean": 200.0, "loss/policy": 2.0},
        "one": {"eval/return_mean": 300.0, "loss/policy": 3.0},
    }
    chosen = sessions["one"].hparams
    assert chosen["optimizer.name"].string_value == "adam"
    assert chosen["optimizer.lr"].number_value == 0.1
    assert chosen["policy.shared"].HasField("bool_value")
    assert scalars(tmp_path / "many" / "seed-1")["eval/return_mean"] == [(12, 0.0), (12, 200.0)]


def test_hparams_tab_tells_how_a_run_ended(tmp_path: Path) -> None:
    status = {}
    for name in ("running", "broken", "good"):
        log = logger(tmp_path / name)
        log.log([10], {"eval/return_mean": [1.0]})
        if name == "good":
            log.hparams([{"eval/return_mean": 1.0}])
        if name != "running":
            log.close()
        status[name] = log
    sessions = hparams_tab(tmp_path)[1]
    assert sessions["running"].sessions[0].status == api_pb2.STATUS_UNKNOWN
    assert sessions["broken"].sessions[0].status == api_pb2.STATUS_FAILURE
    assert sessions["good"].sessions[0].status == api_pb2.STATUS_SUCCESS
    status["running"].close()


# --- metrics.parquet ---


def test_parquet_holds_every_number(tmp_path: Path) -> None:
    log = logger(tmp_path, members=2)
    log.log([10, 12], {"loss/policy": [1.0, NAN], "loss/value": [0.1, 1 / 3]})
    log.flush()
    assert len(read_metrics(tmp_path / "metrics.parquet")) == 3
    log.log([20, 22], {"loss/policy": [2.0, 3.0]})
    assert len(read_metrics(tmp_path / "metrics.parquet")) == 3
    log.close()
    table = read_metrics(tmp_path / "metrics.parquet")
    assert list(table.columns) == ["member", "label", "step", "tag", "value", "wall_time"]
    rows = list(zip(table.member, table.label, table.step, table.tag, table.value, strict=True))
    assert rows == [
        (0, "seed-0", 10, "loss/policy", 1.0),
        (0, "seed-0", 10, "loss/value", 0.1),
        (1, "seed-1", 12, "loss/value", 1 / 3),
        (0, "seed-0", 20, "loss/policy", 2.0),
        (1, "seed-1", 22, "loss/policy", 3.0),
    ]
    assert table.wall_time.is_monotonic_increasing


def test_nothing_logged_is_an_empty_table(tmp_path: Path) -> None:
    logger(tmp_path).close()
    assert len(read_metrics(tmp_path / "metrics.parquet")) == 0


def test_unreadable_parquet_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.parquet"
    with pytest.raises(PgkitError, match=r"cannot read .*metrics\.parquet: no such file$"):
        read_metrics(path)
    path.write_bytes(b"not a table")
    with pytest.raises(PgkitError, match=r"^cannot read .*metrics\.parquet: [^\n]+$"):
        read_metrics(path)


# --- resuming ---


def test_a_replay_writes_what_had_been_written_and_goes_on(tmp_path: Path) -> None:
    """Rows that are left out vanish from TensorBoard, too; damaged event files do not matter."""
    whole, half = logger(tmp_path / "whole", members=3), logger(tmp_path / "half", members=3)
    rows = [
        ([10, 15, 12], {"loss/policy": [1.0, INF, 3.0], "eval/return_mean": [NAN, 5.0, NAN]}),
        ([20, 0, 0], {"loss/policy": [4.0, NAN, NAN]}),
        ([30, 25, 22], {"loss/policy": [NAN, 7.0, -1.0], "eval/return_mean": [1.0, NAN, 2.0]}),
        ([40, 35, 32], {"loss/policy": [8.0, 9.0, 10.0]}),
    ]
    for log in (whole, half):
        for row in rows[: 4 if log is whole else 3]:
            log.log(*row)
    count = half.flush()
    half.log([99, 99, 99], {"loss/policy": [9.0, 9.0, 9.0]})
    half.close()
    damaged = next((tmp_path / "half" / "seed-0").glob("events.*"))
    damaged.write_bytes(damaged.read_bytes()[:-7])
    next((tmp_path / "half" / "summary").glob("events.*")).write_bytes(b"garbage")
    labels, hparams = [f"seed-{seed}" for seed in range(3)], [HPARAMS | {"seed": seed} for seed in range(3)]
    half = Logger(tmp_path / "half", labels, "", hparams, resumed=True)
    half.replay(read_metrics(tmp_path / "half" / "metrics.parquet")[:count])
    half.log(*rows[3])
    for log in (whole, half):
        log.close()
    tables = [read_metrics(tmp_path / name / "metrics.parquet").drop(columns="wall_time") for name in ("whole", "half")]
    assert tables[0].equals(tables[1])
    assert len(tables[0]) == 12
    for place in (*labels, "summary"):
        assert scalars(tmp_path / "half" / place) == scalars(tmp_path / "whole" / place), place
        assert len(list((tmp_path / "half" / place).glob("events.*"))) == 1


def test_a_clock_that_is_set_back_disturbs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([500.0, 400.0, 400.0, 300.0, *[200.0] * 50])
    monkeypatch.setattr("pgkit.logging.logger.time.time", lambda: next(times, 100.0))
    log = logger(tmp_path)
    for step in (10, 20, 30):
        log.log([step], {"loss/policy": [step], "loss/value": [0.0]})
    log.close()
    rows = read_metrics(tmp_path / "metrics.parquet")
    assert rows["wall_time"].is_monotonic_increasing
    assert rows["wall_time"].nunique() == 3
    resumed = Logger(tmp_path, ["seed-0"], "", [HPARAMS], resumed=True)
    resumed.replay(rows)
    resumed.close()
    assert scalars(tmp_path)["loss/policy"] == [(10, 10.0), (20, 20.0), (30, 30.0)]


# --- mistakes ---


@pytest.mark.parametrize("tag", ["loss/polcy", "loss", "optimizer", "optimizer/a/b/c", "train/", "eval/return_mean/x"])
def test_unknown_tag_is_refused_before_anything_is_logged(tmp_path: Path, tag: str) -> None:
    log = logger(tmp_path)
    with pytest.raises(PgkitError, match=re.escape(repr(tag))):
        log.log([10], {"loss/policy": [1.0], tag: [1.0]})
    log.close()
    assert scalars(tmp_path) == {}
    assert len(read_metrics(tmp_path / "metrics.parquet")) == 0


@pytest.mark.parametrize(
    ("steps", "values"),
    [([10], {"loss/policy": [1.0, 2.0]}), ([10, 20], {"loss/policy": [1.0]}), ([10, 20], {"loss/policy": 1.0})],
)
def test_wrong_shapes_are_refused(tmp_path: Path, steps: Sequence[int], values: Mapping[str, Any]) -> None:
    log = logger(tmp_path, members=2)
    with pytest.raises(ValueError, match="has shape"):
        log.log(steps, values)
    log.close()


@pytest.mark.parametrize(("labels", "hparams"), [([], []), (["a", "a"], [{}, {}]), (["a", "b"], [{}])])
def test_labels_are_one_for_each_member(tmp_path: Path, labels: list[str], hparams: list[dict[str, float]]) -> None:
    with pytest.raises(ValueError, match="labels"):
        Logger(tmp_path / "run", labels, "", hparams)
    assert not (tmp_path / "run").exists()


# --- the table of metrics ---


def test_table_lists_each_tag_once_with_definition_and_unit() -> None:
    tags = [metric.tag for metric in METRICS]
    assert len(tags) == len(set(tags)) > 10
    assert all(metric.definition and metric.unit for metric in METRICS)
    assert [metrics.lookup(metric.tag.replace("<", "").replace(">", "")) for metric in METRICS] == list(METRICS)


def test_readme_shows_the_table() -> None:
    assert metrics.markdown() in README.read_text(encoding="utf-8"), "paste what `python -m pgkit.logging` prints"


def test_table_is_printed_as_markdown() -> None:
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pgkit.logging"], capture_output=True, text=True, check=True
    )
    assert printed.stdout == metrics.markdown()
    assert {line.count("|") - 2 * line.count(r"\|") + line.count(r"\|") for line in printed.stdout.splitlines()} == {4}


def test_import_is_light() -> None:
    code = (
        "import sys, pgkit.logging; print(sorted({'tensorboard', 'pandas', 'pyarrow', 'torch'} & sys.modules.keys()))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(re.findall(r"\w+", printed.stdout)) <= {"torch"}
