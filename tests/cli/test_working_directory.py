"""Code of users may change the working directory; the command line writes where the user called it."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers.command_line import Outcome, pgkit

from pgkit.config.load import load_config
from pgkit.training.train import train

CALLS = ["constructor", "reset", "step", "close", "agent's import", "environment's import"]
"""When the working directory changes."""

TINY = "envs_per_member=2 rollout_steps=4 steps=40 policy.hidden=[4] optimizer.name=sgd evaluation.points=1"
TINY += " evaluation.episodes=2 evaluation.final_episodes=2"

COMPARISON = """
question = "Where is it written?"
tier = "standard"
agents = ["actor-critic"]
optimizers = ["sgd", "adam"]
learning_rates = [1e-3, 1e-2, 1e-1]
tuning_seeds = 1
evaluation_seeds = [7, 8]
steps = 40
envs_per_member = 2
policy = { hidden = [4] }
evaluation = { points = 2, episodes = 2, final_episodes = 2 }

[environments."helpers.selfish_envs:SelfishWandering-v0"]
reference_return = 5
threshold = 4
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories, of which the first is the working directory, and the second has a run called "same"."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    run = tmp_path / "second" / "runs" / "same"
    run.mkdir(parents=True)
    (run / "config.toml").write_text("of another run")
    move = f"import os\nos.chdir({str(tmp_path / 'second')!r})\n"
    (tmp_path / "moving_agent.py").write_text(f"{move}from pgkit.agents.actor_critic import *\n")
    (tmp_path / "moving_world.py").write_text(f"{move}import helpers.selfish_envs\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path / "first")
    return tmp_path / "first", tmp_path / "second"


def command(call: str, second: Path) -> str:
    """The words that train a run called "same" whose code moves to the second directory."""
    env = f"env.id=helpers.selfish_envs:SelfishWandering-v0 env.kwargs.call={call.split()[0]} env.kwargs.to={second}"
    if call == "environment's import":
        env = "env.id=moving_world:SelfishNoise-v0"
    if call == "agent's import":
        env = "env.id=helpers.selfish_envs:SelfishNoise-v0 agent.name=moving_agent"
    return f"train cartpole-actor-critic {env} {TINY} name=same --workers 1"


def succeeds(words: str, place: Path) -> Outcome:
    """The outcome of a command that is called in a directory."""
    os.chdir(place)
    result = pgkit(words)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture(autouse=True)
def fresh_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that move are imported anew."""
    for name in ("moving_agent", "moving_world"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("call", CALLS)
def test_a_run_stays_where_it_was_begun(call: str, places: tuple[Path, Path]) -> None:
    first, second = places
    trained = succeeds(f"{command(call, second)} --overwrite", first)
    assert Path.cwd() == second
    assert "written to runs/same" in trained.stdout
    assert {entry.name for entry in (second / "runs" / "same").iterdir()} == {"config.toml"}
    assert (second / "runs" / "same" / "config.toml").read_text() == "of another run"
    assert (first / "runs" / "same" / "result.json").is_file()
    assert "2 episodes per seed" in succeeds("evaluate same --episodes 2", first).stdout


@pytest.mark.parametrize("call", ["constructor", "agent's import"])
def test_a_run_is_resumed_where_it_lies(call: str, places: tuple[Path, Path]) -> None:
    first, second = places
    succeeds(f"{command(call, second)} seeds=2 -q", first)
    (first / "runs" / "same" / "result.json").unlink()
    shutil.rmtree(second / "runs")
    assert "written to runs/same" in succeeds("resume runs/same -q", first).stdout
    assert (first / "runs" / "same" / "result.json").is_file()
    assert not (second / "runs").exists()


def test_a_relative_directory_from_python_stays(places: tuple[Path, Path]) -> None:
    first, second = places
    overrides = command("reset", second).replace("optimizer.name=sgd", "").split()[2:-2]
    config = load_config("cartpole-actor-critic", overrides)
    assert train(config, "runs/same").directory == first / "runs" / "same"
    assert (first / "runs" / "same" / "result.json").is_file()


@pytest.mark.process
def test_a_comparison_stays_where_it_was_begun(places: tuple[Path, Path]) -> None:
    first, second = places
    moves = f'train = {{ env = {{ kwargs = {{ call = "constructor", to = "{second}" }} }} }}'
    (first / "small.toml").write_text(COMPARISON + moves)
    assert "written to comparisons/small" in succeeds("compare small.toml -q --no-figures --workers 1", first).stdout
    assert Path.cwd() == second
    assert "written to comparisons/small" in succeeds("report comparisons/small --no-figures", first).stdout
    assert (first / "comparisons" / "small" / "report.html").is_file()
    assert not (second / "comparisons").exists()


def test_a_working_directory_that_is_gone_is_one_line(places: tuple[Path, Path]) -> None:
    first, _ = places
    gone = first / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    result = pgkit("train cartpole-actor-critic steps=100")
    os.chdir(first)
    assert result.exit_code == 2
    assert result.stderr == "error: the working directory cannot be read: No such file or directory\n"
