"""The figures of a diagnosis: what is drawn is what was measured."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from helpers.diagnoses import ESTIMATORS, INTERVENTIONS, K, full, minimal
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pgkit.diagnose.report.axes import BAD, GOOD, parts_of, root, series, signed, symlog
from pgkit.diagnose.report.figures import draw_all, draw_side_by_side, members, members_shown
from pgkit.diagnose.report.figures_gradient import (
    draw_cosines,
    draw_curvature,
    draw_estimators,
    draw_noise,
    draw_pairwise_cosines,
    draw_probes,
)
from pgkit.diagnose.report.figures_networks import draw_critic, draw_health
from pgkit.diagnose.report.figures_return import (
    draw_directions,
    draw_interventions,
    draw_parts,
    draw_post_update,
    draw_same_states,
    draw_timeline,
)
from pgkit.diagnose.results import Diagnosis, PointResult, Quantity, Row, Verdict
from pgkit.plots.style import arm_styles, png, svg

pytestmark = pytest.mark.slow

DIAGNOSIS = full()
POINTS = [point for point in DIAGNOSIS.points if point.member == "seed-301"]
VERDICTS = [verdict for verdict in DIAGNOSIS.verdicts if verdict.member == "seed-301"]


def rows(table: str) -> list[Row]:
    return [row for row in DIAGNOSIS.tables[table] if row["label"] == "seed-301"]


DRAW: dict[str, Callable[[Sequence[PointResult]], Figure | None]] = {
    "timeline": draw_timeline,
    "noise": draw_noise,
    "cosines": draw_cosines,
    "pairwise-cosines": lambda points: draw_pairwise_cosines(points, rows("cosines")),
    "estimators": draw_estimators,
    "critic": lambda points: draw_critic(points, rows("critic_histogram")),
    "post-update": lambda points: draw_post_update(points, rows("updates")),
    "parts": draw_parts,
    "interventions": draw_interventions,
    "directions": draw_directions,
    "curvature": draw_curvature,
    "probes": lambda points: draw_probes(points, rows("curvature")),
    "health": draw_health,
}


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def line(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Places and heights of a line by its label."""
    (chosen,) = [each for each in axes.lines if each.get_label() == label]
    return np.asarray(chosen.get_xdata()), np.asarray(chosen.get_ydata())


def words(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(mpl.text.Text)}


def changed(name: str, quantity: Quantity, place: int = 4) -> list[PointResult]:
    """The points with one quantity changed at one of them."""
    points = list(POINTS)
    points[place] = replace(points[place], quantities={**points[place].quantities, name: quantity})
    return points


# --- every figure ---


@pytest.mark.parametrize("name", DRAW)
def test_without_points_or_data_nothing_is_drawn(name: str) -> None:
    assert DRAW[name]([]) is None
    assert DRAW[name]([PointResult("seed-1", -1.0, 0.0, True, {"x/y": Quantity(1.0)})]) is None


@pytest.mark.parametrize("name", DRAW)
def test_numbers_that_are_not_finite_are_drawn_around(name: str) -> None:
    bad = (Quantity.missing("no"), Quantity(math.inf, -math.inf, math.inf), Quantity(math.nan, 1.0, math.inf))
    points = [
        replace(point, quantities={key: (*bad, number)[(k + place) % 4] for k, (key, number) in numbers})
        for place, point in enumerate(POINTS)
        for numbers in [enumerate(point.quantities.items())]
    ]
    drawn(DRAW[name](points)).draw_without_rendering()
    for each in bad:
        points = [replace(point, quantities=dict.fromkeys(point.quantities, each)) for point in POINTS[3:5]]
        figure = DRAW[name](points)
        assert figure is None or figure.axes


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("timeline", "return/mean"),
        ("interventions", "interventions/batch_x8/half_share"),
        ("curvature", "curvature/top"),
    ],
)
def test_figures_differ_when_data_differ(name: str, quantity: str) -> None:
    before, after = (
        svg(drawn(DRAW[name](points)), name) for points in (POINTS, changed(quantity, Quantity(0.333, 0.3, 0.37)))
    )
    assert before != after


def test_equal_figures_give_equal_bytes() -> None:
    first, second = (png(drawn(draw_parts(POINTS))) for _ in range(2))
    assert first == second
    assert png(drawn(draw_parts(changed("parts/odd", Quantity(50.0))))) != first


def test_all_figures_are_those_of_members_looked_at_closely() -> None:
    assert members(DIAGNOSIS) == ["seed-300", "seed-301"]
    assert members_shown(DIAGNOSIS) == ["seed-301"]
    scanned = replace(DIAGNOSIS, points=[replace(point, critical=False) for point in DIAGNOSIS.points])
    assert members_shown(scanned) == members(DIAGNOSIS)
    many = [PointResult(f"seed-{k}", 0.0, 0.0, False, {"return/mean": Quantity(float(k))}) for k in range(9)]
    drawings = draw_all(Diagnosis("runs/many", {}, many))
    assert [each.name for each in drawings] == ["all-members-side-by-side", *(f"seed-{k}-timeline" for k in range(3))]
    assert [each.caption[:8] for each in drawings[1:]] == ["seed-0. ", "seed-1. ", "seed-2. "]
    assert len({each.png for each in drawings}) == 4
    assert draw_all(Diagnosis("runs/none", {}, [])) == []


def test_the_least_diagnosis_has_figures() -> None:
    assert [each.name for each in draw_all(minimal())] == ["seed-0-timeline", "seed-0-nsr"]


# --- return ---


def test_the_timeline_marks_verdicts_and_critical_points() -> None:
    verdicts = [*VERDICTS, Verdict("seed-301", "healthy", "", (499_000,), (), "")]
    verdicts.append(Verdict("seed-301", "not measured", "of no point", (), (), ""))
    above, below = drawn(draw_timeline(POINTS, verdicts, reference=475.0)).axes
    curve, random, solved = above.lines[0], above.lines[2], above.lines[3]
    assert np.asarray(curve.get_ydata()).tolist() == [point.quantities["return/mean"].value for point in POINTS]
    assert np.asarray(curve.get_xdata()) == pytest.approx(np.sqrt([point.env_steps for point in POINTS]))
    assert np.asarray(above.lines[1].get_ydata()).tolist() == [326.0, 490.0], "rings at critical points"
    assert (random.get_ydata()[0], solved.get_ydata()[0]) == (22.0, 475.0)
    assert [label.get_text() for label in below.get_yticklabels()] == ["fragile", "overshoots", "healthy"]
    assert [np.asarray(dots.get_xdata()).tolist() for dots in below.lines] == [
        root([24_950, 49_900]).tolist(),
        root([49_900]).tolist(),
        root([499_000]).tolist(),
    ]
    assert [to_hex(dots.get_color()) for dots in below.lines] == [BAD, BAD, GOOD]
    assert len(drawn(draw_timeline(POINTS)).axes) == 1


def test_post_update_has_half_violins_and_shares() -> None:
    figure = drawn(draw_post_update(POINTS, rows("updates")))
    above, below = figure.axes
    means = {dot.get_xdata()[0]: dot.get_ydata()[0] for dot in above.lines if len(dot.get_xdata()) == 1}
    for place, point in enumerate(POINTS):
        for count, side in ((1, -0.12), (K, 0.12)):
            at_point = [
                row for row in rows("updates") if (row["env_steps"], row["updates"]) == (point.env_steps, count)
            ]
            assert means[place + side] == pytest.approx(np.mean([(row["j_a"] + row["j_b"]) / 2 for row in at_point]))
    heights = [bar.get_height() for bar in below.patches if bar.get_width() == pytest.approx(0.26)]
    assert heights[:9] == [point.quantities["post_update/1/half_share"].value for point in POINTS[:9]]
    assert heights[9:] == [point.quantities["post_update/K/half_share"].value for point in POINTS[:9]]
    violins = [collection for collection in above.collections if len(collection.get_paths()) == 1]
    edges = np.concatenate([path.vertices[:, 0] for violin in violins for path in violin.get_paths()])
    assert -0.45 <= edges.min() < 0 < 9 < edges.max() <= 9.45
    assert {"after 1", f"after {K}", "before, J"} <= words(figure)
    assert "fell below\nhalf of J" in words(figure)


def test_copies_that_are_all_alike_or_not_finite_can_be_drawn() -> None:
    same = [{**row, "j_a": 9.0, "j_b": 9.0} for row in rows("updates")]
    drawn(draw_post_update(POINTS, same)).draw_without_rendering()
    broken = [{**row, "j_a": math.nan} for row in rows("updates")]
    drawn(draw_post_update(POINTS, broken)).draw_without_rendering()
    changed_things = [{**row, "intervention": "batch_x8"} for row in rows("updates")]
    assert draw_post_update(POINTS, changed_things) is None


def test_parts_are_stacked_and_add_up() -> None:
    (axes,) = drawn(draw_parts(POINTS)).axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    heights = np.array([bar.get_height() for bar in bars]).reshape(3, 9)
    expected = [[p.quantities[f"parts/{name}"].value for p in POINTS[:9]] for name in ("odd", "even", "gap")]
    assert heights == pytest.approx(np.array(expected))
    assert line(axes, "sum")[1] == pytest.approx(heights.sum(0))
    bottoms = np.array([bar.get_y() for bar in bars]).reshape(3, 9)
    signs = heights > 0
    for k in range(9):
        for sign in (True, False):
            stacked = [part for part in range(3) if signs[part, k] == sign]
            ends = np.cumsum([0, *heights[stacked, k]])
            assert bottoms[stacked, k] == pytest.approx(ends[:-1])


def test_interventions_are_filled_where_they_are_resolved() -> None:
    figure = drawn(draw_interventions(POINTS))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["at 24.9k", "at 49.9k"]
    axes = figure.axes[1]
    assert len(axes.get_yticks()) == len(INTERVENTIONS) + 1
    dots = {dot.get_ydata()[0]: dot for dot in axes.lines if dot.get_marker() == "o"}
    shares = [0.77, *(POINTS[4].quantities[f"interventions/{name}/half_share"].value for name in INTERVENTIONS)]
    assert [dots[row].get_xdata()[0] for row in range(6)] == shares
    faces = [dots[row].get_markerfacecolor() for row in range(6)]
    assert faces[1] == BAD, "batch x 8: worse"
    assert faces[3] not in (BAD, "white"), "critic fitted: better"
    assert faces[5] == "white", "lambda 1: not resolved"


def test_directions_have_both_scalings() -> None:
    figure = drawn(draw_directions(POINTS))
    (first, second) = (dot.get_xdata()[0] for dot in figure.axes[1].lines[:2])
    assert (first, second) == pytest.approx((0.48, 0.288))
    assert {"at equal KL", "at equal length", "fresh adam"} <= words(figure)


# --- gradient ---


def test_unresolved_noise_is_an_open_arrow_up() -> None:
    figure = drawn(draw_noise(POINTS))
    above, below = figure.axes
    assert above.get_yscale() == below.get_yscale() == "log"
    unresolved = [point for point in POINTS if math.isnan(point.quantities["noise/actor/nsr"].value)]
    assert unresolved
    arrows = [mark for mark in above.lines if mark.get_marker() == "^" and mark.get_markerfacecolor() == "white"]
    places = [(arrow.get_xdata()[0], arrow.get_ydata()[0]) for arrow in arrows]
    lows = [(root(point.env_steps), point.quantities["noise/actor/nsr"].low) for point in unresolved]
    assert np.array(places) == pytest.approx(np.array(lows))
    _, heights = line(above, "actor")
    assert len(heights) == len(POINTS) - len(unresolved)
    assert above.get_ylim()[1] > max(low for _, low in lows)


def test_noise_of_which_nothing_is_known_is_an_arrow_at_the_top() -> None:
    above = drawn(draw_noise(changed("noise/actor/nsr", Quantity.missing("not resolved")))).axes[0]
    tops = [mark for mark in above.lines if mark.get_transform() == above.get_xaxis_transform()]
    assert [mark.get_ydata()[0] for mark in tops if mark.get_marker() == "^"] == [0.96]


def test_cosines_stand_beside_what_isotropic_noise_would_give() -> None:
    (axes,) = drawn(draw_cosines(POINTS)).axes
    crosses = [mark for mark in axes.lines if mark.get_marker() == "x" and len(mark.get_xdata())]
    ratios = series(POINTS, "noise/actor/nsr").value
    assert np.asarray(crosses[0].get_ydata()) == pytest.approx(1 / (1 + ratios), nan_ok=True)
    assert line(axes, "actor to another batch")[1] == pytest.approx(
        [point.quantities["noise/actor/pairwise_cosine"].value for point in POINTS]
    )


def test_cosines_of_pairs_have_a_panel_for_each_network_and_point() -> None:
    figure = drawn(draw_pairwise_cosines(POINTS, rows("cosines")))
    assert len(figure.axes) == 2 * 2  # both points that were looked at closely
    bars = {round(bar.get_x(), 2): bar.get_height() for bar in figure.axes[0].patches}
    assert bars == pytest.approx({-1.0: 300 / 2016, 0.0: 700 / 2016, 0.95: 1016 / 2016})
    ratio = POINTS[3].quantities["noise/critic/nsr"].value
    isotropic = [mark.get_xdata()[0] for mark in figure.axes[2].lines]
    assert isotropic[0] == pytest.approx(1 / (1 + ratio))
    far = [replace(point, critical=False) for point in POINTS]
    assert len(drawn(draw_pairwise_cosines(far, rows("cosines"))).axes) == 4


def test_estimators_are_bars_on_log_axes_with_negative_bias_at_the_edge() -> None:
    figure = drawn(draw_estimators(POINTS))
    variance, bias = figure.axes[:2]
    assert variance.get_xscale() == bias.get_xscale() == "log"
    ends = [bar.get_x() + bar.get_width() for bar in variance.patches]
    assert ends == pytest.approx([POINTS[3].quantities[f"estimators/{name}/variance"].value for name in ESTIMATORS])
    edge = [mark.get_ydata()[0] for mark in bias.lines if mark.get_marker() == "<"]
    assert edge == [0, 1, 2], "estimators without a critic have no bias above zero"
    assert len(bias.patches) == len(ESTIMATORS) - 3
    unresolved = drawn(draw_estimators(changed("estimators/gae-0/bias2", Quantity.missing("no"))))
    assert "not resolved" in words(unresolved)
    assert "not resolved" not in words(figure)


def test_curvature_has_bars_by_products_and_marks_by_differences() -> None:
    figure = drawn(draw_curvature(POINTS))
    axes = figure.axes[0]
    named = ("top", "bottom", "gradient", "mean_update")
    assert [bar.get_width() for bar in axes.patches if bar.get_height() == pytest.approx(0.4)] == [
        POINTS[3].quantities[f"curvature/{name}"].value for name in named
    ]
    marks = [mark.get_xdata()[0] for mark in axes.lines if mark.get_marker() == "D" and len(mark.get_xdata())]
    assert marks == [260.0, -1.31e4]
    assert axes.get_xscale() == "symlog"


def test_probes_have_random_directions_and_named_ones() -> None:
    figure = drawn(draw_probes(POINTS, rows("curvature")))
    axes = figure.axes[0]
    dots = [dot for dot in axes.lines if dot.get_marker() == "o"]
    assert len(dots) == 4 + 25
    assert (dots[0].get_xdata()[0], dots[0].get_ydata()[0]) == (-20.0, -9.5e3)
    assert {"most negative", "mean update"} <= words(figure)


# --- networks ---


def test_the_critic_has_a_histogram_where_there_is_a_table() -> None:
    figure = drawn(draw_critic(POINTS, rows("critic_histogram")))
    meshes = figure.findobj(QuadMesh)
    assert len(meshes) == 2
    counts = sum(row["count"] for row in rows("critic_histogram") if row["env_steps"] == 24_950)
    assert np.ma.asarray(meshes[0].get_array()).sum() == counts
    assert meshes[0].axes.get_xlim() == meshes[0].axes.get_ylim() == (-2.5, 102.5)
    without = drawn(draw_critic(POINTS))
    assert without.findobj(QuadMesh) == []
    (axes,) = without.findobj(Axes)
    assert line(axes, "nothing behind the limit")[1].tolist() == [-4.0, -4.0]


def test_health_shows_all_networks() -> None:
    policy, units, ranks, weights = drawn(draw_health(POINTS)).axes
    assert line(policy, "entropy")[1] == pytest.approx([p.quantities["health/policy/entropy"].value for p in POINTS])
    assert len([each for each in units.lines if len(each.get_xdata()) > 2]) == 8
    assert len([each for each in ranks.lines if len(each.get_xdata()) > 2]) == 4
    assert line(weights, "critic")[1] == pytest.approx(
        [p.quantities["health/critic/weight_norm"].value for p in POINTS]
    )


# --- several arms, and axes ---


def test_arms_stand_side_by_side() -> None:
    lower = [
        replace(point, quantities={name: Quantity(q.value / 2) for name, q in point.quantities.items()})
        for point in DIAGNOSIS.points
    ]
    figure = drawn(draw_side_by_side({"adam": DIAGNOSIS, "sgd": replace(DIAGNOSIS, points=lower)}))
    returns, half_shares, _, _ = figure.axes
    by_color: dict[str, list[np.ndarray]] = {}
    for each in returns.lines:
        by_color.setdefault(to_hex(each.get_color()), []).append(np.asarray(each.get_ydata()))
    first, second, median = next(iter(by_color.values()))
    assert median == pytest.approx((first + second) / 2)
    assert by_color[list(by_color)[1]][2] == pytest.approx(median / 2)
    assert half_shares.get_ylim() == (-0.03, 1.03)
    assert {"adam", "sgd", "return J"} <= words(figure)
    assert draw_side_by_side({"adam": Diagnosis("runs/none", {}, [])}) is None
    one = drawn(draw_side_by_side({"dead": minimal()}))
    assert len(one.axes) == 2


def test_arms_update_the_same_policies() -> None:
    figure = drawn(draw_same_states(DIAGNOSIS.tables["same_states"], arm_styles(members(DIAGNOSIS))))
    first, second = figure.axes
    assert [dot.get_xdata()[0] for dot in second.lines if dot.get_marker() == "o"] == [140.0, 60.0]
    assert first.get_title(loc="left") == "at 24.9k"
    assert {"seed-300", "seed-301"} <= words(figure)
    assert draw_same_states([], arm_styles(["adam"])) is None
    nothing = [{"member": 0, "label": "adam", "env_steps": 0.0, "post_update/K/mean": math.nan}]
    assert draw_same_states(nothing, arm_styles(["adam"])) is None


def test_symmetric_axes_have_readable_ticks() -> None:
    axes = Figure().add_subplot()
    symlog(axes, "x", [-9.5e3, 242.0, math.nan, math.inf])
    assert axes.get_xticks().tolist() == [-1000.0, 0.0, 100.0]
    symlog(axes, "y", [-20.0, 0.0])
    assert axes.get_yticks().tolist() == pytest.approx([-10, -1, -0.1, -0.01, 0.0])
    symlog(axes, "x", [])
    assert axes.get_xticks().tolist() == [0.0]
    assert [signed(value) for value in (-1000.0, 0.0, 0.01)] == ["\u22121k", "0", "0.01"]


def test_names_have_parts() -> None:
    assert parts_of(POINTS, "interventions") == list(INTERVENTIONS)
    assert parts_of(POINTS, "directions", 2) == ["kl", "norm"]
    assert parts_of(POINTS, "return") == []


def test_ids_of_a_figure_begin_with_its_name() -> None:
    text = svg(drawn(draw_parts(POINTS)), "seed-301-parts")
    ids = re.findall(r' id="([^"]*)"', text)
    assert ids
    assert all(each.startswith("seed-301-parts-") for each in ids)
