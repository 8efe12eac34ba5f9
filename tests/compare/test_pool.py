"""Comparisons pooled into one: the tables of the one that would have run them all, or a refusal with the field."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.small_comparison import TOML, tables, write_toml
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.compare import api
from pgkit.compare.analysis.pool import Stored, pool
from pgkit.compare.plan.plan import Run, read_plan
from pgkit.errors import PgkitError

TUNED = ("track=all tuned", "settings=2", "steps=300", "tier=quick")
SECOND = TOML.replace("[environments.CartPole-v1.agents.actor-critic]\nrollout_steps = 8\n", "").replace(
    "[environments.CartPole-v1]\nrandom_return = 22.2\n", "[environments.Acrobot-v1]\nrandom_return = -500\n"
)


def run(place: Path, name: str, *words: str) -> Path:
    """A comparison that was run."""
    api.compare(place / "small.toml", [*TUNED, *words], place / name, workers=1, figures=False)
    return place / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a comparison of two agents and two arms, and with the same in parts."""
    directory = tmp_path_factory.mktemp("parts")
    write_toml(directory)
    run(directory, "whole")
    run(directory, "actor-critic", 'agents=["actor-critic"]')
    run(directory, "reinforce", 'agents=["reinforce"]')
    run(directory, "sgd", 'optimizers=["sgd"]')
    run(directory, "adam", 'optimizers=[{name="adam",beta2=0.9,label="fast adam"}]')
    return directory


@pytest.mark.parametrize("parts", [("actor-critic", "reinforce"), ("sgd", "adam")])
def test_the_tables_are_those_of_one_comparison(
    place: Path, parts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, ["report", *parts, "--no-figures", "--out", f"pooled-{parts[0]}"])
    assert result.exit_code == 0, result.output
    pooled = place / f"pooled-{parts[0]}"
    assert tables(pooled) == tables(place / "whole")
    text = (pooled / "report.html").read_text(encoding="utf-8")
    assert "pooled after the fact from plans that were declared one by one" in text
    analysis = api.load_pooled_analysis([place / name for name in parts])
    assert analysis.plan["hash"] == api.load_analysis(place / "whole").plan["hash"]
    assert list(analysis.facts["provenance"]["pooled"]) == [str(place / name) for name in parts]
    assert analysis.facts["wall_seconds"] == pytest.approx(
        sum(api.load_analysis(place / name).facts["wall_seconds"] for name in parts)
    )


def test_without_out_each_is_built_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "sgd" / "report.html").unlink()
    result = CliRunner().invoke(app, ["report", "sgd", "adam", "--no-figures"])
    assert result.exit_code == 0
    assert result.stdout.count("written to ") == 2
    assert (place / "sgd" / "report.html").exists()


def test_figures_are_drawn_unless_they_are_not_wanted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert not (place / "reinforce" / "figures").exists()
    before = (place / "reinforce" / "report.html").read_text(encoding="utf-8")
    result = CliRunner().invoke(app, ["report", "reinforce"])
    assert result.exit_code == 0
    assert (place / "reinforce" / "figures" / "cartpole-v1-reinforce-learning.png").exists()
    after = (place / "reinforce" / "report.html").read_text(encoding="utf-8")
    assert ("<svg" in before, "<svg" in after) == (False, True)


def test_refusals_are_one_line_and_write_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = sorted(path.name for path in place.iterdir())
    for words, fragment in (
        ("sgd reinforce --out new", "they differ in cases and in arms, and only one of them may differ"),
        ("sgd sgd --out new", "both have the arm 'sgd'"),
        ("reinforce whole --out new", "both have CartPole-v1, reinforce"),
        ("sgd adam --out whole", "whole holds a comparison: --out must be another directory"),
        ("sgd adam --out small.toml", "small.toml is a file"),
        ("sgd nothing --out new", "nothing holds no comparison"),
    ):
        result = CliRunner().invoke(app, ["report", *words.split()])
        assert (result.exit_code, result.stdout) == (2, ""), words
        assert result.stderr.count("\n") == 1
        assert fragment in result.stderr
    assert sorted(path.name for path in place.iterdir()) == before


# --- what may differ, on plans alone ---

ORIGIN = {"torch": "2.13.0", "code": "0123", "cpu": "one"}


def stored(path: Path, *words: str, origin: dict[str, str] = ORIGIN, rates: tuple[float, ...] = ()) -> Stored:
    """A comparison with tuning runs at these rates."""
    plan = read_plan(path, words)
    runs = [Run("tuning", *case[:2], arm, rate, 0) for case in plan.cases for arm in plan.arms for rate in rates]
    baselines = pd.DataFrame([{"environment": name, "policy": "random"} for name in plan.config.environments])
    frame = pd.DataFrame(runs, columns=list(Run._fields))
    return Stored(" ".join(words) or "plain", plan, baselines, frame, {"origin": origin, "sessions": []})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_toml(tmp_path)


ONE, OTHER = 'optimizers=["sgd"]', 'optimizers=["rmsprop"]'


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("tier=quick", 'tier ("standard" and "quick")'),
        ("track=all tuned", "track"),
        ("rope=0.1", "rope (0.05 and 0.1)"),
        ("paired=true", "paired"),
        ("learning_rates=[1e-3,1e-2]", "learning_rates"),
        ("tuning_seeds=3", "tuning_seeds"),
        ("evaluation_seeds=[70]", "evaluation_seeds ([70, 71, 72] and [70])"),
        ("failure_below=0.2", "failure_below (0.1 and 0.2)"),
        ("evaluation.episodes=3", "evaluation.episodes (2 and 3)"),
        ("evaluation.greedy=true", "evaluation.greedy"),
        ("policy.hidden=[9]", "held_equal.network.hidden ([8] and [9])"),
        ("optimizer.max_grad_norm=1.0", "held_equal.clipping, schedule, critic.critic.max_grad_norm (null and 1.0)"),
    ],
)
def test_a_plan_that_differs_otherwise_is_refused(small: Path, words: str, field: str) -> None:
    with pytest.raises(PgkitError) as caught:
        pool([stored(small, ONE), stored(small, OTHER, words)], "all")
    assert f"cannot be pooled: they differ in {field}" in str(caught.value)


def test_cases_that_both_have_must_be_the_same(small: Path) -> None:
    with pytest.raises(PgkitError, match=r"differ in cases\.CartPole-v1, \S+\.steps \(600 and 601\)"):
        pool([stored(small, ONE), stored(small, OTHER, "steps=601")], "all")


@pytest.mark.parametrize("key", ["torch", "code", "cpu"])
def test_another_origin_is_refused(small: Path, key: str) -> None:
    other = stored(small, OTHER, origin={**ORIGIN, key: "else"})
    with pytest.raises(PgkitError, match=f"origin are not pooled: .* has {key} {ORIGIN[key]}, .* has else"):
        pool([stored(small, ONE), other], "all")


def test_arms_on_different_grids_are_refused(small: Path) -> None:
    parts = [stored(small, ONE, rates=(0.1, 1.0)), stored(small, OTHER, rates=(0.1, 1.0, 10.0))]
    with pytest.raises(PgkitError, match=r"the grid of CartPole-v1, actor-critic .*2 rates from 0.1 to 1 and 3 rates"):
        pool(parts, "all")
    same = pool([parts[0], stored(small, OTHER, rates=(0.1, 1.0))], "all")
    assert list(same.plan.arms) == ["sgd", "rmsprop"]
    assert len(same.runs) == 2 * 2 * 2


def test_environments_are_joined(small: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.toml"
    second.write_text(SECOND, encoding="utf-8")
    parts = [stored(small), stored(second, "envs_per_member=4", 'question="And?"')]
    joined = pool(parts, "both")
    assert list(joined.plan.config.environments) == ["CartPole-v1", "Acrobot-v1"]
    cases: list[Any] = [case[:2] for case in joined.plan.cases]
    assert cases == [(name, agent) for name in ("CartPole-v1", "Acrobot-v1") for agent in ("actor-critic", "reinforce")]
    assert list(joined.baselines["environment"]) == ["CartPole-v1", "Acrobot-v1"]
    assert joined.plan.config.question == "Which optimizer learns something in 600 steps? And?"
    assert joined.plan.config.name == "both"
    scale = stored(small, "environments.CartPole-v1.threshold=400", 'agents=["reinforce"]')
    with pytest.raises(PgkitError, match=r"differ in environments.CartPole-v1.threshold \(475.* and 400.*\)"):
        pool([stored(small, 'agents=["actor-critic"]'), scale], "both")
