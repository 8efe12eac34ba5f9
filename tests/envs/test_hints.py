"""Environments that are not here: one line with the command or the setting that helps."""

import importlib.util
import multiprocessing
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from helpers.command_line import pgkit

from pgkit.envs import hints, list_envs, make_envs
from pgkit.envs.speed import list_available_envs
from pgkit.errors import PgkitError, unknown_name

MISSING = {
    "gymnasium.envs.mujoco.ant_v5:AntEnv": ("imageio", "pip install 'gymnasium[mujoco]'"),
    "gymnasium.envs.toy_text.taxi:TaxiEnv": ("pygame.surfarray", "pip install 'gymnasium[toy-text]'"),
    "gymnasium.envs.phys2d:CartPole": ("jax", "pip install 'gymnasium[jax]'"),
    "their_worlds.maze:Maze": ("cv2", "pip install opencv-python"),
    "their_worlds:Maze": ("numba.core", "pip install numba"),
}


@pytest.mark.parametrize("entry_point", MISSING)
def test_a_missing_package_is_named_with_its_command(entry_point: str) -> None:
    module, expected = MISSING[entry_point]
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert hints.missing_package_hint(error, EnvSpec("Any-v0", entry_point=entry_point)) == expected
    assert hints.missing_package_hint(ValueError("no"), EnvSpec("Any-v0", entry_point=entry_point)) == ""


def test_a_constructor_without_its_package_says_so() -> None:
    with pytest.raises(PgkitError, match=r"No module named 'no_such_module' \(pip install no_such_module\)$"):
        make_envs("helpers.probe_envs:ProbeMissing-v0", 1)


@pytest.mark.parametrize(
    ("env_id", "module", "command"),
    [
        ("ALE/Pong-v5", "ale_py", "pip install 'ale-py', then "),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "pip install 'minigrid', then "),
    ],
)
def test_an_id_of_a_package_that_is_not_imported(
    env_id: str, module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec, install in ((None, command), (object(), "")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(PgkitError) as caught:
            make_envs(env_id, 1, backend="gymnasium")
        assert f"unknown environment {env_id!r}: {install}env.id={module}:{env_id} " in str(caught.value)


def test_only_environments_that_can_be_created_are_listed() -> None:
    gymnasium.register("Unavailable-v0", "no_such_module:Env")
    try:
        assert "Unavailable-v0" in list_envs()
        shown = pgkit("list envs").stdout
    finally:
        del gymnasium.registry["Unavailable-v0"]
    assert "Unavailable-v0" not in shown
    assert "CartPole-v1" in shown
    available = {env.name: env for env in list_available_envs()}
    assert set(available) < set(list_envs())
    assert available["Pendulum-v1"].backend == "pgkit"
    assert available["Pendulum-v1"].steps_per_second > 1000
    assert available["Taxi-v4"].steps_per_second is None


def test_all_environments_are_measured_if_that_is_asked_for() -> None:
    shown = pgkit("list envs --measure").stdout
    rows = [line.split() for line in shown.splitlines() if "-v" in line]
    speeds = {name: (backend, *speed) for name, backend, *speed in rows}
    assert speeds["Acrobot-v1"][0] == "pgkit"
    backend, speed = speeds["Taxi-v4"]
    assert (backend, int(speed.replace(",", "")) > 100) == ("gymnasium", True)
    assert "--measure is for environments" in pgkit("list agents --measure").stderr


@pytest.mark.process
def test_a_module_in_the_working_directory_is_imported_after_installed_ones(tmp_path: Path) -> None:
    world = "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
    (tmp_path / "my_world.py").write_text(f"{world}gymnasium.register('Mine-v0', CartPoleEnv, max_episode_steps=7)\n")
    (tmp_path / "gymnasium.py").write_text("raise RuntimeError('hides the installed package')\n")
    words = [sys.executable, "-P", "-c", "from pgkit.cli import main; main()", "list", "envs", "my_world:Mine-v0"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "time limit: 7" in done.stdout


SCRIPT = """
import gymnasium, pgkit
from gymnasium.envs.classic_control import CartPoleEnv

if __name__ == "__main__":
    gymnasium.register("Guarded-v0", CartPoleEnv, max_episode_steps=9)
    config = pgkit.load_config("cartpole-actor-critic", {"env.id": "Guarded-v0", "seeds": 2, "steps": 10})
    try:
        pgkit.train(config, workers=2)
    except pgkit.PgkitError as error:
        print(error)
"""


@pytest.mark.process
def test_what_is_registered_below_the_main_guard_is_explained(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, "script.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unknown environment 'Guarded-v0': ")
    assert done.stdout.endswith("register it above that, or in a module\n")
    assert done.stdout.count("\n") == 1


def test_every_unknown_name_is_explained_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "worker" not in unknown_name("optimizer", "mine", ["sgd"])
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    assert unknown_name("optimizer", "mine", ["sgd"]).endswith("register it above that, or in a module")
