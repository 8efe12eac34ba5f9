"""The figures of a comparison: what is drawn is what the tables say."""

import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from helpers.comparisons import PEAKS, RATES, THRESHOLD, synthetic
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pgkit.compare.report import figures
from pgkit.compare.report.figures_pairs import VERDICTS
from pgkit.compare.tables import Analysis
from pgkit.plots.style import (
    arm_styles,
    label_at_right,
    new_figure,
    percent,
    png,
    rate,
    short_number,
    spread,
    svg,
)

CASE = ("CartPole-v1", "reinforce")
ALWAYS = {"stability", "sensitivity", "learning", "scores", "pairs", "improvement", "drawdowns", "expected_best"}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return synthetic()


@pytest.fixture(scope="module")
def drawn(analysis: Analysis) -> dict[str, Figure]:
    return figures.draw_all(analysis, CASE)


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Heights of the lines that are named."""
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines if line.get_label()[0] != "_"}


def words(figure: Figure) -> set[str]:
    """All texts that are seen."""
    return {text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible()}


# --- what is drawn ---


def test_sensitivity_shows_every_tuning_run_and_each_mean(analysis: Analysis) -> None:
    runs, table = analysis.of("runs", CASE), analysis.of("sensitivity", CASE)
    axes = figures.draw_sensitivity(runs, table, analysis.labels)
    dots = np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections if len(dots.get_offsets()) > 1])
    tuning = runs[runs["stage"] == "tuning"]
    assert sorted(map(tuple, dots)) == sorted(zip(tuning["lr"], tuning["auc"], strict=True))
    for arm, heights in lines(axes).items():
        assert heights.tolist() == table[table["optimizer"] == arm].sort_values("lr")["mean"].tolist()
    selected = [np.asarray(dots.get_offsets())[0] for dots in axes.collections if len(dots.get_offsets()) == 1]
    assert [lr for lr, _ in selected] == list(PEAKS.values())
    ends = [line.get_xdata()[0] for line in axes.lines if line.get_label()[0] == "_"]
    assert ends == [RATES[0], RATES[-1]]
    assert axes.get_xscale() == "log"


def test_runs_that_learnt_are_shares_at_every_rate(analysis: Analysis) -> None:
    table = analysis.of("sensitivity", CASE)
    axes = figures.draw_learnt(table, analysis.labels)
    dots = [collection for collection in axes.collections if isinstance(collection, PathCollection)]
    heights = np.concatenate([np.asarray(dots.get_offsets())[:, 1] for dots in dots])
    assert sorted(heights) == sorted(table["learnt_rate"])
    assert 0 <= table["learnt_rate"].min() < table["learnt_rate"].max() == 1


def test_learning_curves_are_medians_of_all_seeds_and_every_run(analysis: Analysis) -> None:
    curves, scale = analysis.of("curves", CASE), analysis.scale(CASE[0])
    axes = figures.draw_learning(curves, scale, analysis.labels, every_run=["adam"])
    own = curves[(curves["stage"] == "evaluation") & (curves["optimizer"] == "adam")]
    assert np.allclose(lines(axes)["adam"], own.groupby("point")["return_mean"].median())
    (runs,) = [collection for collection in axes.collections if isinstance(collection, LineCollection)]
    assert len(runs.get_segments()) == own["seed"].nunique()
    assert THRESHOLD in [line.get_ydata()[0] for line in axes.lines]


def test_a_diverged_run_does_not_drop_out_of_the_median(analysis: Analysis) -> None:
    curves = analysis.of("curves", CASE).copy()
    curves = curves[(curves["stage"] == "evaluation") & (curves["optimizer"] == "adam")]
    lost = curves["seed"].isin(sorted(curves["seed"].unique())[:15]) & (curves["point"] > 25)
    curves.loc[lost, ["return_mean", "env_steps"]] = np.nan
    axes = figures.draw_learning(curves, analysis.scale(CASE[0]))
    assert lines(axes)["adam"][-1] == analysis.scale(CASE[0])["random_return"]


def test_scores_are_dots_and_below_ten_seeds_there_is_no_interval() -> None:
    for seeds in (20, 5):
        analysis = synthetic(evaluation=seeds)
        runs, arms = analysis.of("runs", CASE), analysis.of("arms", CASE)
        axes = figures.draw_scores(runs, arms, analysis.labels)
        evaluation = runs[runs["stage"] == "evaluation"]
        bars = [np.asarray(line.get_xdata()) for line in axes.lines]
        for bar, (arm, row) in zip(bars, arms.set_index("optimizer").iterrows(), strict=True):
            scores = evaluation[evaluation["optimizer"] == arm]["auc"]
            limits = [row["t_low"], row["t_high"]] if seeds == 20 else [scores.min(), scores.max()]
            assert bar.tolist() == limits
        crosses = sum(len(marks.get_offsets()) for marks in axes.collections if marks.get_linewidths()[0] == 1.3)
        assert crosses == (evaluation["outcome"] != "learnt").sum() > 0


def test_drawdown_is_that_of_the_worst_seed(analysis: Analysis) -> None:
    axes = figures.draw_drawdowns(analysis.of("curves", CASE), analysis.labels)
    arms = analysis.of("arms", CASE).set_index("optimizer")
    for arm, heights in lines(axes).items():
        assert heights.max() == pytest.approx(arms.loc[arm, "worst_drawdown"])


def test_pairs_show_intervals_the_rope_and_verdicts(analysis: Analysis) -> None:
    pairs = analysis.of("pairs", CASE)
    axes = figures.draw_pairs(pairs, rope=0.05)
    bars = [np.asarray(line.get_xdata()).tolist() for line in axes.lines[1:]]
    assert bars == pairs[["low", "high"]].to_numpy().tolist()
    assert [to_hex(line.get_color()) for line in axes.lines[1:]] == [VERDICTS[v].color for v in pairs["verdict"]]
    (band,) = axes.patches
    assert band.get_extents().transformed(axes.transData.inverted()).intervalx.tolist() == pytest.approx([-0.05, 0.05])
    assert "adam better" in words(axes.figure)
    assert any("flips" in word for word in words(axes.figure))


def test_improvement_is_a_probability(analysis: Analysis) -> None:
    axes = figures.draw_improvement(analysis.of("pairs", CASE))
    assert [line.get_xdata()[0] for line in axes.lines[:1]] == [0.5]
    assert axes.get_xlim() == (-0.02, 1.02)


def test_without_claims_no_figure_has_a_verdict() -> None:
    for figure in figures.draw_all(synthetic("quick", evaluation=10), CASE).values():
        assert not any(verdict in word for verdict in VERDICTS for word in words(figure))


def test_expected_best_and_profiles_follow_their_tables() -> None:
    analysis = synthetic(environments=("A-v1", "B-v1", "C-v1"), evaluation=2, tuning=1)
    best = analysis.of("expected_best", ("A-v1", "reinforce"))
    found = lines(figures.draw_expected_best(best, analysis.labels))
    assert found["sgd"].tolist() == best[best["optimizer"] == "sgd"]["value"].tolist()
    assert set(figures.draw_across(analysis, "reinforce")) == {"profiles"}
    profiles = analysis.tables["profiles"]
    profiles = profiles[profiles["agent"] == "reinforce"]
    found = lines(figures.draw_profiles(profiles))
    assert found["adam"].tolist() == profiles[profiles["optimizer"] == "adam"]["share"].tolist()


def test_profiles_need_three_environments(analysis: Analysis) -> None:
    assert figures.draw_across(analysis, "reinforce") == {}


# --- all of them ---


def test_all_figures_are_there(drawn: dict[str, Figure]) -> None:
    assert set(drawn) == ALWAYS
    assert ALWAYS | {"profiles", "settings"} == set(figures.CAPTIONS)
    for figure in drawn.values():
        assert all(axes.has_data() for axes in figure.axes)


def test_scores_of_settings_stand_at_their_hyperparameter() -> None:
    keys = {"optimizer": "adam", "lr": 0.01}
    runs = [{**keys, "stage": "tuning", "setting": k, "auc": 0.1 * k + d} for k in range(3) for d in (-0.01, 0.01)]
    runs.append({**keys, "stage": "evaluation", "setting": 0, "auc": 0.9})
    sensitivity = [
        {**keys, "setting": k, "mean": 0.1 * k, "learnt_rate": 1 - 0.5 * (k == 0), "selected": k == 2} for k in range(3)
    ]
    values = {0: 0.5, 1: 0.9, 2: 0.99}
    table = [{"optimizer": "adam", "setting": k, "hyperparameter": "beta1", "value": v} for k, v in values.items()]
    table += [{"optimizer": "other", "setting": k, "hyperparameter": "beta1", "value": 0.1} for k in range(3)]
    space = {"low": 0.0, "high": 0.999, "scale": "1-x log"}
    axes = figures.draw_setting(*map(pd.DataFrame, (runs, sensitivity, table)), "adam", "beta1", space)
    dots, good, lost, ring = (np.asarray(part.get_offsets()) for part in axes.collections)
    np.testing.assert_allclose(sorted(set(dots[:, 0])), [0.01, 0.1, 0.5])
    assert len(dots) == 6, "tuning runs only"
    np.testing.assert_allclose(good, [[0.1, 0.1], [0.01, 0.2]])
    np.testing.assert_allclose(lost, [[0.5, 0.0]])
    np.testing.assert_allclose(ring, [[0.01, 0.2]])
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "1 \u2212 beta1"
    low, high = axes.get_xlim()
    assert low < 1e-3 < 1 < high


def test_what_has_no_data_is_left_out(analysis: Analysis) -> None:
    empty = {name: table.iloc[:0] for name, table in analysis.tables.items()}
    tuning = {name: analysis.tables[name] for name in ("runs", "sensitivity", "expected_best")}
    assert figures.draw_all(Analysis(analysis.plan, empty, analysis.facts), CASE) == {}
    begun = Analysis(analysis.plan, empty | tuning, analysis.facts)
    assert set(figures.draw_all(begun, CASE)) == {"sensitivity", "expected_best"}


def test_an_arm_looks_the_same_in_every_figure(drawn: dict[str, Figure]) -> None:
    expected = arm_styles(list(PEAKS))
    named = [line for figure in drawn.values() for axes in figure.axes for line in axes.lines]
    seen = {label: {to_hex(line.get_color()) for line in named if line.get_label() == label} for label in expected}
    assert all(look.color in seen[label] for label, look in expected.items())
    assert all(seen[label] <= {look.color, "#c4c4c4"} for label, look in expected.items()), "grey: in the background"


def test_no_two_arms_look_the_same() -> None:
    labels = [f"arm {k}" for k in range(50)]
    assert len(set(arm_styles(labels).values())) == 50
    few = list(arm_styles(labels[:4]).values())
    grey = sorted(float(np.dot(mpl.colors.to_rgb(look.color), [0.299, 0.587, 0.114])) for look in few)
    assert all(after - before > 0.05 for before, after in pairwise(grey)), "told apart when printed in grey"


def test_all_texts_are_inside_their_figure(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        box = figure.bbox
        renderer = figure.canvas.get_renderer()
        for text in figure.findobj(mpl.text.Text):
            if text.get_visible() and text.get_text() and text.get_window_extent(renderer).width:
                extent = text.get_window_extent(renderer)
                inside = extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1
                assert inside or text in _ticks_out_of_sight(figure), (name, text.get_text())


def _ticks_out_of_sight(figure: Figure) -> list[object]:
    """Labels of ticks beyond the limits of their axis, which are never drawn."""
    out = []
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        for minor in (False, True):
            ticks = axes.xaxis.get_minor_ticks() if minor else axes.xaxis.get_major_ticks()
            out += [t for tick in ticks if not low <= tick.get_loc() <= high for t in (tick.label1, tick.label2)]
    return out


def test_files_have_fixed_bytes_and_ids_of_their_own(analysis: Analysis, drawn: dict[str, Figure]) -> None:
    again = figures.draw_all(analysis, CASE)
    for name in ("sensitivity", "pairs"):
        assert svg(drawn[name], name) == svg(again[name], name)
        assert png(drawn[name]) == png(again[name])
    text = svg(drawn["pairs"], "pairs")
    assert text.startswith("<svg")
    assert text.count(' id="') == text.count(' id="pairs-') > 0
    assert "http" not in text.replace("http://www.w3.org", "")


def test_matplotlib_is_left_as_it_was(analysis: Analysis) -> None:
    before = dict(mpl.rcParams)
    axes = figures.draw_pairs(analysis.of("pairs", CASE), 0.05)
    assert png(axes.get_figure(root=True)).startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    code = "import pgkit.compare.report.figures, sys; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_axes_that_are_given_are_drawn_on(analysis: Analysis) -> None:
    axes = new_figure(3).add_subplot()
    assert figures.draw_pairs(analysis.of("pairs", CASE), 0.05, axes=axes) is axes
    assert figures.draw_drawdowns(analysis.of("curves", CASE), axes=axes) is axes


# --- pieces ---


def test_numbers_are_written_for_people() -> None:
    assert [short_number(value) for value in (0, 12, 1000, 500_000, 1.5e6, 2e9)] == [
        "0",
        "12",
        "1k",
        "500k",
        "1.5M",
        "2G",
    ]
    assert [rate(value) for value in (1e-5, 3.16e-3, 0.01, 0.1, 1, 10)] == ["1e-5", "3.16e-3", "1e-2", "0.1", "1", "10"]
    assert [percent(value) for value in (0.0, 0.05, 0.125, 1.0)] == ["0 %", "5 %", "12.5 %", "100 %"]


def test_labels_are_moved_apart_as_little_as_needed() -> None:
    assert spread([0.1, 0.5], 0.1) == [0.1, 0.5]
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    moved = spread([0.1, 0.12, 0.2, 0.9], 0.1)
    assert all(after - before >= 0.1 - 1e-9 for before, after in pairwise(moved))
    assert moved[-1] == 0.9
    axes = new_figure(2).add_subplot()
    label_at_right(axes, [("a", 0.0, "black"), ("b", 0.0, "black"), ("none", np.nan, "black")])
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert all(text.get_position()[1] >= 0 for text in axes.texts)


def test_an_empty_table_is_no_accident() -> None:
    columns = ["optimizer", "k", "value", "low", "high"]
    axes = figures.draw_expected_best(pd.DataFrame([["sgd", 1, 0.5, 0.4, 0.6]], columns=columns), ["sgd", "adam"])
    assert set(lines(axes)) == {"sgd"}
