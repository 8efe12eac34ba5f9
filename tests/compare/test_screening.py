"""Screening: which rates are dropped, that the survivors' runs keep their bits, and what a report says of it."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.small_comparison import TOML, command, run, tables, write_toml

from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.executors import Event
from pgkit.compare.execution.scheduler import execute
from pgkit.compare.execution.store import Store
from pgkit.compare.execution.worker import Part, run_batch, run_part
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, Run, SearchPoint, read_plan
from pgkit.compare.plan.screening import Rung, least_share, make_rungs
from pgkit.compare.report import prose
from pgkit.compare.report.figures import draw_sensitivity
from pgkit.compare.report.html import write_report
from pgkit.compare.selection.screening import Drop, screen
from pgkit.compare.selection.stages import stages, tuned
from pgkit.compare.tables import Analysis, check_tables
from pgkit.errors import PgkitError

POINTS = [SearchPoint(10.0**k) for k in range(-5, 1)]
RUNGS = (Rung(1, 0.5, 0.5), Rung(1, 1.0, 0.5))
CASE = ("CartPole-v1", "actor-critic")
SCALES = {"CartPole-v1": ScoreScale(0.0, 1.0, 0.9)}


def flat(*levels: float, seeds: int = 2) -> dict[tuple[SearchPoint, int], tuple[Any, float]]:
    """Scores of runs that are at their level from the first evaluation on."""
    return {
        (point, seed): (np.full(5, level), level)
        for point, level in zip(POINTS, levels, strict=True)
        for seed in range(seeds)
    }


def test_the_better_half_goes_on_then_all_seeds_are_trained() -> None:
    scores = flat(0.0, 0.125, 0.25, 0.75, 0.875, 0.5)
    done = screen(POINTS, None, RUNGS, (0, 1), scores)
    assert done.going_on == tuple(POINTS[3:])
    assert done.drops == {
        point: Drop(1, 1, 0.5, level) for point, level in zip(POINTS, (0.0, 0.125, 0.25), strict=False)
    }
    assert not done.missing
    second = {run: scores[run] for run in scores if run[1] == 0}
    waiting = screen(POINTS, None, RUNGS, (0, 1), second)
    assert waiting.missing == {(point, 1) for point in POINTS[3:]}
    assert (waiting.seeds, waiting.share) == (2, 1.0)


def test_what_lies_beside_the_best_is_never_dropped() -> None:
    done = screen(POINTS, None, RUNGS, (0, 1), flat(0.5, 0.625, 0.0, 0.875, 0.125, 0.75))
    assert done.going_on == tuple(POINTS[1:]), "0 and 0.125 lie beside the best"
    assert done.drops == {POINTS[0]: Drop(1, 1, 0.5, 0.5)}


def test_what_ties_with_the_last_that_goes_on_goes_on() -> None:
    assert screen(POINTS, None, RUNGS, (0, 1), flat(*[0.0] * 6)).going_on == tuple(POINTS)


def test_decisions_use_nothing_that_comes_after_their_rung() -> None:
    scores = flat(0.0, 0.125, 0.25, 0.75, 0.875, 0.5)
    paused = {run: (np.append(curve[:3], [np.nan] * 2), np.nan) for run, (curve, _) in scores.items()}
    early = screen(POINTS, None, RUNGS, (0, 1), paused)
    assert early.drops == screen(POINTS, None, RUNGS, (0, 1), scores).drops
    assert early.missing == {(point, 0) for point in POINTS[3:]}
    assert (early.seeds, early.share) == (1, 1.0)


def test_what_an_extension_adds_cannot_drop_what_has_passed() -> None:
    scores = flat(0.0, 0.25, 0.5, 0.75, 0.875, 1.0)
    before = screen(POINTS[:4], None, RUNGS, (0, 1), scores)
    assert before.going_on == tuple(POINTS[2:4])
    after = screen(POINTS, before, RUNGS, (0, 1), scores)
    assert after.going_on == tuple(POINTS[2:])
    assert after.drops == before.drops
    worse = {
        run: (curve, score) if run[0] in POINTS[:4] else (0 * curve, 0.0) for run, (curve, score) in scores.items()
    }
    assert set(screen(POINTS, before, RUNGS, (0, 1), worse).drops) == {*before.drops, POINTS[5]}


def test_half_of_the_steps_are_saved_at_every_tier() -> None:
    for rates, seeds in ((7, 3), (11, 5), (11, 10)):
        assert 0.2 < least_share(make_rungs(seeds), rates, seeds) < 0.5


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = TOML.replace("learning_rates = [1e-3, 1e-2, 1e-1]", "learning_rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]")
    place = tmp_path_factory.mktemp("screening")
    return write_toml(place, text.replace('agents = ["actor-critic", "reinforce"]', 'agents = ["actor-critic"]'))


def test_the_rules_are_in_the_plan_and_its_hash(small: Path) -> None:
    full, early = read_plan(small), read_plan(small, ["screen=early"])
    assert read_plan(small, ["screen=off"]).hash == full.hash != early.hash
    assert "screening" not in full.as_data()
    assert early.as_data()["screening"]["rungs"][0] == {"seeds": 1, "share": 0.25, "keep": 0.5}
    assert "after 25 % of the steps" in early.as_data()["screening"]["rule"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["track=all tuned"], 'track = "lr only"'),
        (["evaluation.points=3"], "evaluation.points of at least 4, got 3"),
        (['callbacks=["stop-without-improvement"]'], "no callbacks can watch"),
        (["screen=late"], "screen"),
    ],
)
def test_what_does_not_go_with_screening_is_refused_in_one_line(small: Path, words: list[str], message: str) -> None:
    with pytest.raises(PgkitError, match=message) as error:
        read_plan(small, ["screen=early", *words])
    assert "\n" not in str(error.value)


LEVEL = {1e-4: 0.2, 1e-3: 0.5, 1e-2: 0.8, 1e-1: 0.4, 1.0: 0.1}


def finished(plan: Plan) -> pd.DataFrame:
    """All runs of a comparison whose curves are flat; runs that are to pause pause."""
    stored = pd.DataFrame(columns=[*Run._fields])
    while (stage := stages(plan, SCALES, stored)[-1]).todo:
        rows = pd.DataFrame([_row(one, stage.share) for one in stage.todo])
        known = pd.concat([stored, rows], ignore_index=True) if len(stored) else rows
        stored = known.sort_values("share").drop_duplicates([*Run._fields], keep="last", ignore_index=True)
    return stored


def _row(one: Run, share: float) -> dict[str, object]:
    level = LEVEL[one.lr] + 0.001 * (one.seed % 7)
    returns = [level if point <= 4 * share else np.nan for point in range(5)]
    ends = [level] * 3 if share == 1 else []
    rest = {"diverged": False, "env_steps": int(600 * share), "at": [0.0] * 5, "share": share, "batch": ""}
    return {**one._asdict(), **rest, "returns": returns, "final": ends, "greedy": ends}


@pytest.fixture(scope="module")
def analysis(small: Path) -> Analysis:
    plan = read_plan(small, ["screen=early"])
    baselines = [{"environment": CASE[0], "policy": "random", "episodes": 1, "return_mean": 0.0, "return_sd": 1.0}]
    provenance = {"versions": {}, "sessions": []}
    return analyse(plan, SCALES, pd.DataFrame(baselines), finished(plan), provenance)


def test_the_same_rate_is_chosen_for_fewer_steps(small: Path) -> None:
    full, early = (read_plan(small, [f"screen={word}"]) for word in ("off", "early"))
    selected = [tuned(plan, SCALES, finished(plan))[CASE].selected("sgd").lr for plan in (full, early)]
    assert selected == [1e-2, 1e-2]
    steps = [finished(plan).query("stage == 'tuning'")["env_steps"].sum() for plan in (full, early)]
    assert steps[1] < 0.75 * steps[0], "five rates and two seeds leave little to save"


def test_the_report_says_what_was_dropped_and_what_is_therefore_unknown(analysis: Analysis, tmp_path: Path) -> None:
    check_tables(analysis.tables, analysis.schemas)
    dropped = analysis.tables["screening"]
    assert list(dropped.loc[dropped["optimizer"] == "sgd", "lr"]) == [1e-4, 1.0]
    assert set(dropped["env_steps"]) == {150}
    assert dropped["score"].to_numpy() == pytest.approx([0.2, 0.1] * 2)
    assert set(analysis.tables["sensitivity"]["lr"]) == {1e-3, 1e-2, 1e-1}
    assert analysis.tables["rates"].empty
    assert analysis.tables["expected_best"].empty
    assert set(analysis.tables["runs"].query("stage == 'tuning'")["lr"]) == {1e-3, 1e-2, 1e-1}
    facts = analysis.facts["screening"]
    assert facts == {"tried": 10, "dropped": 4, "env_steps": 2 * (6 * 600 + 2 * 150), "grid_env_steps": 2 * 10 * 600}
    page = write_report(analysis, tmp_path).read_text(encoding="utf-8")
    assert "screening dropped 4 of 10 on the way" in prose.introduction(analysis)
    assert "5 learning rates from 1e-4 to 1" in prose.introduction(analysis)
    assert "65 % of the steps of the full grid" in page
    assert "need the full grid, and are left out" in page
    assert "Learning rates that screening has dropped" in page
    assert "4 stopped early by screening" in prose.state_of_runs(analysis)


def test_dropped_rates_are_crosses_that_no_line_leads_to(analysis: Analysis) -> None:
    of_case = [analysis.of(name, CASE) for name in ("runs", "sensitivity", "screening")]
    runs, sensitivity, screening = (frame[frame["optimizer"] == "sgd"] for frame in of_case)
    axes = draw_sensitivity(runs, sensitivity, screening=screening)
    assert list(axes.lines[0].get_xdata()) == [1e-3, 1e-2, 1e-1]
    crosses = np.asarray(axes.collections[-1].get_offsets())
    np.testing.assert_allclose(crosses, [[1e-4, 0.2], [1.0, 0.1]])
    ends = sorted(float(line.get_xdata()[0]) for line in axes.lines[1:])
    assert ends == [1e-4, 1.0], "the grid ends where it ended"


class Inline:
    """An executor that trains in this process."""

    workers = 1

    def __init__(self) -> None:
        self.done: list[Event] = []
        self.shares: list[tuple[float, bool]] = []

    def start(self, batch: int, work: Part) -> None:
        self.shares.append((work.share, work.paused is not None))
        self.done.append(Event(batch, "done", run_part(work)))

    def events(self, timeout: float) -> list[Event]:
        done = self.done
        self.done = []
        return done

    def close(self) -> None: ...


SMALLEST = ["screen=early", 'optimizers=["sgd"]', "evaluation_seeds=[70]", "tier=quick"]


def test_survivors_have_the_bits_of_runs_that_never_paused(small: Path, tmp_path: Path) -> None:
    plan = read_plan(small, SMALLEST)
    store = Store(tmp_path / "c")
    executor = Inline()
    with Display(shown=False) as display:
        execute(plan, store, executor, display)
    assert executor.shares[:3] == [(0.25, False), (0.5, True), (1.0, True)]
    stored = store.load()
    assert {*stored["share"]} > {1.0}, "some have paused for good"
    survivors = stored[(stored["share"] == 1) & (stored["seed"] == 0)].head(2)
    runs = [Run(*row) for row in survivors[[*Run._fields]].itertuples(index=False, name=None)]
    alone = run_batch([plan.train_config(one) for one in runs])
    for (_, row), expected in zip(survivors.iterrows(), alone, strict=True):
        for name in ("returns", "final", "greedy", "at"):
            np.testing.assert_array_equal(row[name], np.array(expected[name]))
        assert row["env_steps"] == expected["env_steps"]
    assert not list(store.paused.iterdir()), "nobody needs them any more"


@pytest.mark.slow
@pytest.mark.process
def test_killed_and_continued_it_ends_the_same(small: Path, tmp_path: Path) -> None:
    place = small.parent
    assert run(place, "screen=early").returncode == 0
    untouched = tables(place / "comparisons" / "small")
    moments = np.random.default_rng(0).uniform(2, 8, 4)
    for moment in moments:
        words = command("screen=early", "--out", "killed")
        process = subprocess.Popen(words, cwd=place, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for saved in (place / "killed" / "paused").glob("*.pt"):
        saved.write_bytes(saved.read_bytes()[:-1])  # damaged: its runs begin anew
    assert run(place, "screen=early", "--out", "killed").returncode == 0
    assert tables(place / "killed") == untouched
