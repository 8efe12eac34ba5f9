"""Landscapes of tiny runs, from the command line to the files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import pgkit as command_line

import pgkit
from pgkit.diagnose.landscape import estimate, measure, present, request
from pgkit.diagnose.landscape.estimate import counts
from pgkit.diagnose.landscape.request import Request, find_subject
from pgkit.diagnose.landscape.run import landscape
from pgkit.diagnose.landscape.targets import parse_target
from pgkit.diagnose.landscape.words import policy_sentence
from pgkit.errors import PgkitError

pytestmark = pytest.mark.slow

TINY = ["steps=6_000", "rollout_steps=8", "envs_per_member=4", "policy.hidden=[8]", "seeds=3"]
TINY += ["env.max_episode_steps=60", "evaluation.points=3", "evaluation.episodes=5", "evaluation.final_episodes=5"]
DENSE = ["checkpoint_points=20", "keep_checkpoints=21"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three seeds that has kept its checkpoints."""
    place = tmp_path_factory.mktemp("runs") / "tiny"
    pgkit.train(pgkit.load_config("cartpole-actor-critic", [*TINY, *DENSE]), place)
    return place


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a larger network."""
    place = tmp_path_factory.mktemp("runs") / "wider"
    pgkit.train(pgkit.load_config("cartpole-actor-critic", [*TINY, "policy.hidden=[16]"]), place)
    return place


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "EPISODES", 8)
    monkeypatch.setattr(measure, "COPIES", 8)
    for module in (request, estimate):
        monkeypatch.setattr(module, "CHECKPOINTS", 11)


def names_in(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def test_a_run_has_lines_and_a_plane_with_its_way_and_nothing_else_changes(run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    said = command_line(f"landscape {run} --member 1 --grid 5 --episodes 4 --workers 1 --out {tmp_path / 'out'}")
    assert said.exit_code == 0, said.stderr
    assert "The policy is seed-1 at" in said.stdout
    assert "written to" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    figures = [f"figures/seed-1-{name}.{ending}" for name in ("lines", "plane") for ending in ("png", "svg")]
    tables = [f"tables/{name}.parquet" for name in ("lines", "planes", "trajectory")]
    assert names_in(tmp_path / "out") == sorted([*figures, *tables, "landscape.json", "report.html"])
    page = (tmp_path / "out" / "report.html").read_text()
    for sentence in ("The only scale of such a picture is the length of an update", "a random walk has 61 % and 15 %"):
        assert sentence in page


def test_tables_hold_what_was_played(run: Path, tmp_path: Path) -> None:
    result = landscape(run, "seed-1", at=50, grid=5, episodes=4, out=tmp_path)
    tables = {name: pd.read_parquet(tmp_path / "tables" / f"{name}.parquet") for name in result.tables}
    for table in tables.values():
        assert list(table.columns[:3]) == ["member", "label", "env_steps"]
        assert set(table["label"]) == {"seed-1"}
    lines = tables["lines"]
    assert set(lines["episode_block"]) == {"A", "B", "both"}
    assert lines["direction"].nunique() == 4 + 10
    wide = lines[lines["direction"] == "gradient"].pivot(index="alpha", columns="episode_block", values="J")
    np.testing.assert_allclose((wide["A"] + wide["B"]) / 2, wide["both"])
    assert len(wide) == 19
    assert lines[(lines["alpha"] == 0) & (lines["episode_block"] == "both")]["J"].nunique() == 1
    plane = tables["planes"]
    assert len(plane) == 25
    assert ((plane["x"] == 0) & (plane["y"] == 0)).sum() == 1
    way = tables["trajectory"]
    assert way["env_steps"].is_monotonic_increasing
    assert way["env_steps"].iloc[-1] == result.env_steps == pytest.approx(3_000, abs=60)
    assert way[["x", "y", "off_plane"]].iloc[-1].tolist() == [0, 0, 0]
    assert way["J"].iloc[-1] == way["J_shadow"].iloc[-1] == result.quantities["return/mean"].value
    stored = json.loads((tmp_path / "landscape.json").read_text())
    assert stored["quantities"]["return/mean"]["value"] == result.quantities["return/mean"].value
    assert stored["words"] == result.words
    assert stored["settings"]["grid"] == 5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_one_others(run: Path, tmp_path: Path) -> None:
    one, same, another = (landscape(run, 0, plane="none", seed=seed, out=tmp_path) for seed in (0, 0, 1))
    assert one.tables == same.tables
    assert [figure.svg for figure in one.figures] == [figure.svg for figure in same.figures]
    assert one.tables != another.tables


@pytest.mark.parametrize("plane", ["curvature", "random"])
def test_other_planes_reach_as_far_as_asked_in_lengths_of_an_update(run: Path, tmp_path: Path, plane: str) -> None:
    result = landscape(run, 0, plane=plane, lines=False, grid=3, episodes=4, span=2.0, out=tmp_path)
    assert list(result.tables) == ["planes"]
    assert sorted({row["x"] for row in result.tables["planes"]}) == [-2, 0, 2]
    assert "this plane" in result.words["plane"]
    assert "components" not in result.words["plane"]


def test_the_path_between_two_seeds(run: Path, tmp_path: Path) -> None:
    said = command_line(f"landscape {run} --seeds 0,seed-2 --workers 1 --out {tmp_path}")
    assert said.exit_code == 0, said.stderr
    assert "a barrier between seeds is the rule" in said.stdout.replace("\n", " ")
    assert names_in(tmp_path) == [
        "figures/seed-0-path.png", "figures/seed-0-path.svg", "landscape.json", "report.html", "tables/paths.parquet"
    ]  # fmt: skip
    path = pd.read_parquet(tmp_path / "tables" / "paths.parquet")
    assert path["t"].tolist() == np.linspace(0, 1, 21).tolist()
    assert set(path["to_label"]) == {"seed-2"}
    dips = (path["chord"] - path["J"])[1:-1]
    barrier = json.loads((tmp_path / "landscape.json").read_text())["quantities"]["path/barrier"]
    assert barrier["value"] == pytest.approx(dips.max())


def test_the_path_to_an_earlier_checkpoint_of_the_same_run(run: Path, tmp_path: Path) -> None:
    result = landscape(run, 2, to=f"{run}@20", out=tmp_path)
    rows = result.tables["paths"]
    assert rows[0]["to_env_steps"] == pytest.approx(1_200, abs=60)
    assert rows[0]["to_label"] == "seed-2"
    assert "Units of two seeds" not in result.words["path"]


def test_without_a_name_the_member_in_the_middle_is_shown(run: Path) -> None:
    subject = find_subject(run, Request(plane="none"))
    rows = json.loads((run / "result.json").read_text())["members"]
    middle = sorted(rows, key=lambda row: row["return_mean"])[1]
    assert subject.point.label == f"seed-{middle['seed']}"
    assert "the middle one of 3" in policy_sentence(subject.point, subject.chosen_of)
    assert find_subject(run, Request(member=2, plane="none")).chosen_of == 0


def test_best_is_where_the_evaluation_was_best(run: Path) -> None:
    metrics = pd.read_parquet(run / "metrics.parquet")
    evaluated = metrics[(metrics["tag"] == "eval/return_mean") & (metrics["member"] == 1)]
    step = evaluated.loc[evaluated["value"].idxmax(), "step"]
    assert find_subject(run, Request(1, "best", "none")).point.env_steps == pytest.approx(step, abs=0.02 * 6_000)


def test_a_dry_run_counts_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    before = names_in(run)
    said = command_line(f"landscape {run} --member 0 --dry-run --out {tmp_path / 'out'}")
    assert said.exit_code == 0, said.stderr
    assert "environment steps" in said.stdout
    assert "seconds" in said.stdout
    assert "once more" not in said.stdout
    assert not (tmp_path / "out").exists()
    assert names_in(run) == before
    assert counts(Request(plane="none", lines=True)) == (2 + 14 * 18, 50 * (2 + 14 * 18))
    assert counts(Request(seeds=(0, 1))) == (2 + 21, 50 * 23)


def test_a_run_with_few_checkpoints_would_be_trained_again(other: Path) -> None:
    said = command_line(f"landscape {other} --member 0 --dry-run")
    assert "18,000 environment steps once more" in said.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--grid 20", "--grid must be odd"),
        ("--episodes 0", "--episodes must be at least 4, got 0"),
        ("--member 7", "unknown member '7'"),
        ("--at 120", "--at takes a percentage between 0 and 100, or best"),
        ("--plane valley", "--plane must be one of trajectory, curvature, random, none"),
        ("--span wide", "--span must be auto or a number"),
        ("--span -1", "--span must be auto or above 0"),
        ("--seeds 0", "--seeds takes two different members"),
        ("--seeds 0,9", "unknown member '9'"),
        ("--seeds 0,1 --member 2", "--to and --member do not go with it"),
        ("--no-lines --plane none", "leave nothing to draw"),
        ("--member 0 --to OTHER", "the networks of OTHER do not fit: actor.0.weight is (4, 16) there and (4, 8) in"),
        ("--member 0 --to RUN", "both ends of the path are seed-0"),
        ("--member 0 --to nowhere", "unknown run 'nowhere'"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_nothing_is_written(
    run: Path, other: Path, tmp_path: Path, words: str, said: str
) -> None:
    words, said = (text.replace("OTHER", str(other)).replace("RUN", str(run)) for text in (words, said))
    result = command_line(f"landscape {run} {words} --out {tmp_path / 'out'}")
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_looked_at_are_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    broken = {name: tmp_path / name for name in ("foreign", "unfinished", "damaged", "empty")}
    broken["foreign"].mkdir()
    for name in ("unfinished", "damaged", "empty"):
        shutil.copytree(run, broken[name])
    (broken["unfinished"] / "result.json").unlink()
    for path in broken["damaged"].glob("checkpoints/*.pt"):
        path.write_bytes(path.read_bytes()[:-500])
    shutil.rmtree(broken["empty"] / "checkpoints")
    reasons = {"foreign": "no config.toml", "unfinished": "not finished", "damaged": "complete pgkit checkpoint"}
    reasons["empty"] = "has no checkpoints"
    for name, place in broken.items():
        result = command_line(f"landscape {place} --member 0")
        assert result.exit_code == 2, name
        assert reasons[name] in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1
        assert not (place / "landscape").exists()


def test_a_killed_process_leaves_the_report_before_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landscape(run, seeds=(0, 1), out=tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(present, "page", killed)
    with pytest.raises(KeyboardInterrupt):
        landscape(run, seeds=(0, 1), seed=1, out=tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_targets_in_words() -> None:
    assert parse_target("runs/a:seed-3@50") == ("runs/a", "seed-3", "50")
    assert parse_target("a:3") == ("a", "3", "100")
    assert parse_target("a@best") == ("a", None, "best")


def test_checkpoints_on_a_line_are_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(PgkitError, match="needs 3: use --plane random"):
        landscape(run, 0, at=0, out=tmp_path)
