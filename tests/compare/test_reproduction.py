"""``pgkit reproduce``: the plans are what the study says, they resume, and the page stands on what is stored."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pgkit import compare
from pgkit.cli import app
from pgkit.compare.execution.store import Store
from pgkit.compare.reproduction import api, catalogue
from pgkit.compare.reproduction.henderson2018 import HENDERSON2018, REFERENCES
from pgkit.compare.reproduction.page import write_study
from pgkit.compare.reproduction.results import COLUMNS, Reproduction
from pgkit.errors import PgkitError

TOML = """
question = "What does a study of 300 steps say?"
agents = ["actor-critic"]
optimizers = ["sgd", "nesterov", "adam", "rmsprop"]
tuning_seeds = 2
evaluation_seeds = 2
extensions = 0
steps = 300
envs_per_member = 2
rollout_steps = 10
policy = { hidden = [4] }
evaluation = { points = 4, episodes = 1, final_episodes = 1 }

[environments.CartPole-v1]
random_return = 9
reference_return = 30
threshold = 475
"""
LINEAR = f"learning_rates = [1e-3, 2e-3, 3e-3]\n{TOML}"
LOG = f"learning_rates = [1e-3, 1e-2, 1e-1]\n{TOML}"


def invoke(*words: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(app, ["reproduce", *words])
    return result.exit_code, result.output.strip()


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, patched: pytest.MonkeyPatch) -> Path:
    """The directory of a small study, whose files stand in for those of 2018."""
    root = tmp_path_factory.mktemp("study")
    for name, text in (("linear", LINEAR), ("log", LOG)):
        (root / f"{name}.toml").write_text(text, encoding="utf-8")
    small = replace(HENDERSON2018, linear=root / "linear.toml", log=root / "log.toml")
    patched.setitem(catalogue.STUDIES, "henderson2018", small)
    return root / "out"


@pytest.fixture(scope="module")
def finished(place: Path) -> Reproduction:
    done = compare.reproduce("henderson2018", {"steps": 320}, place, workers=1, figures=False)
    write_study(done, place)
    return done


def test_the_first_plan_is_that_of_the_study() -> None:
    plan = compare.read_plan(HENDERSON2018.linear)
    assert plan.rates == tuple(k / 10_000 for k in range(1, 11))
    assert (plan.config.extensions, plan.rungs, len(plan.tuning_seeds)) == (0, (), 10)
    assert set(plan.arms) == {"sgd", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "amsgrad", "adamax"}
    assert [plan.arms[name]["eps"] for name in ("rmsprop", "adam", "amsgrad")] == [1e-5] * 3
    assert "schedule" not in plan.around
    assert "critic" not in plan.around
    assert {(case.agent, case.config.rollout_steps) for case in plan.cases} == {("actor-critic", 5), ("ppo", 2048)}


def test_the_plans_differ_in_rates_and_seeds_alone() -> None:
    first, second = (compare.read_plan(source).as_data() for source in (HENDERSON2018.linear, HENDERSON2018.log))
    differ = {key for key in first if first[key] != second[key]} - {"name", "question", "declared", "hash"}
    seeds = {"tuning_seeds", "evaluation_seeds", "neighbour_seeds"}
    assert differ == {"tier", "learning_rates", "extensions", *seeds}
    assert not set(second["tuning_seeds"]) & set(second["evaluation_seeds"])
    assert len(second["evaluation_seeds"]) == 20


def test_a_grid_without_extensions_is_another_plan_and_the_default_is_not() -> None:
    usual = compare.read_plan("compare-cartpole")
    assert compare.read_plan("compare-cartpole", {"extensions": 2}).hash == usual.hash
    assert compare.read_plan("compare-cartpole", {"extensions": 0}).hash != usual.hash
    with pytest.raises(PgkitError, match="extensions has no effect"):
        compare.read_plan("compare-cartpole", {"extensions": 0, "track": "all tuned"})


def test_every_claim_has_a_source_and_a_rule() -> None:
    assert len({claim.name for claim in HENDERSON2018.claims}) == len(HENDERSON2018.claims) == 5
    assert all(claim.source and "onfirmed if" in claim.rule for claim in HENDERSON2018.claims)


def test_an_unknown_study_is_one_line_that_names_what_there_is() -> None:
    assert invoke("nonsense") == (2, "error: unknown study 'nonsense' (allowed: henderson2018)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learning_rates=[0.1]"], "learning_rates is what henderson2018 fixes"),
        (['screen="early"'], "screen is what henderson2018 fixes"),
        (["stepz=3"], "unknown key 'stepz'"),
        (["--environments", "atari"], "unknown environments 'atari' (allowed: mujoco)"),
        (["--report", "steps=3"], "--report shows what is stored"),
        (["--report", "--out", "nowhere"], "has no results of henderson2018 yet"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = invoke("henderson2018", *words)
    assert code == 2
    assert message in output
    assert output.count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_environments_that_cannot_be_made_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    def refuse(name: str) -> None:
        raise gymnasium.error.DependencyNotInstalled(f"no {name}\nhere")

    monkeypatch.setattr(gymnasium, "make", refuse)
    code, output = invoke("henderson2018", "--environments", "mujoco")
    assert code == 2
    assert output == f"error: the study's environments need MuJoCo: {next(iter(REFERENCES))} cannot be made " + (
        f"(no {next(iter(REFERENCES))} here)"
    )


@pytest.mark.process
def test_both_plans_are_judged(finished: Reproduction, place: Path) -> None:
    assert finished.missing == 0
    assert {(grid, name) for name, grid in finished.outcomes} == {
        (grid, claim.name) for grid in ("linear", "log") for claim in HENDERSON2018.claims
    }
    for name, columns in COLUMNS.items():
        stored = pd.read_parquet(place / "tables" / f"{name}.parquet")
        assert tuple(stored.columns) == columns
    rates = pd.read_csv(place / "tables" / "rates.csv")
    linear = rates[rates["grid"] == "linear"]
    assert sorted(set(linear["lr"])) == [1e-3, 2e-3, 3e-3]
    assert (rates["runs"] == 2).all()


@pytest.mark.process
def test_what_the_study_reports_is_of_the_seeds_that_chose(finished: Reproduction, place: Path) -> None:
    runs = pd.read_parquet(place / "linear" / "tables" / "runs.parquet")
    for arm, reported in finished.sides["linear"].reported["CartPole-v1", "actor-critic"].items():
        of_rate = runs[(runs["optimizer"] == arm) & (runs["lr"] == reported.lr)]
        assert reported.scores.tolist() == of_rate[of_rate["stage"] == "tuning"]["auc"].tolist()
        ours = finished.sides["log"].reported["CartPole-v1", "actor-critic"][arm]
        fresh = pd.read_parquet(place / "log" / "tables" / "runs.parquet")
        fresh = fresh[(fresh["optimizer"] == arm) & (fresh["stage"] == "evaluation")]
        assert ours.scores.tolist() == fresh["auc"].tolist()


@pytest.mark.process
def test_the_page_needs_nothing_that_is_not_there(finished: Reproduction, place: Path) -> None:
    page = (place / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:href|src)="([^"#]+)"', page)
    files = [link for link in links if not link.startswith("data:")]
    assert len(files) > 15
    assert [link for link in files if not (place / link).is_file()] == []
    for claim in finished.study.claims:
        assert page.count(claim.text) >= 2
    assert "steps = 320" in page  # what was changed by hand
    assert 'id="cartpole-v1-actor-critic-grids"' in page


@pytest.mark.process
def test_the_same_command_runs_nothing_again(
    finished: Reproduction, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in sorted((place / "tables").iterdir())}
    monkeypatch.setattr(Store, "add", lambda *_: pytest.fail("runs that are stored were trained again"))
    compare.reproduce("henderson2018", {"steps": 320}, place, workers=1, figures=False)
    assert {path: path.read_bytes() for path in sorted((place / "tables").iterdir())} == before
    with pytest.raises(PgkitError, match="another plan"):
        compare.reproduce("henderson2018", {"steps": 340}, place, workers=1)


@pytest.mark.process
def test_a_part_is_shown_with_what_is_missing_and_continues(
    finished: Reproduction, place: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    shutil.copytree(place, part)
    shutil.rmtree(part / "log")
    batches = sorted((part / "linear" / "chunks").iterdir())
    next(path for path in batches if (pd.read_parquet(path)["stage"] == "tuning").any()).unlink()
    partly = api.report_study("henderson2018", part, figures=False)
    assert partly.missing > 0
    assert {outcome.verdict for outcome in partly.outcomes.values()} == {"not decided"}
    page = (part / "report.html").read_text(encoding="utf-8")
    assert "Not finished" in page
    assert "asked our way: not begun" in page
    assert "log/report.html" not in page
    shutil.copytree(place / "log", part / "log")
    whole = compare.reproduce("henderson2018", {"steps": 320}, part, workers=1, figures=False)
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(table, finished.tables[name])
