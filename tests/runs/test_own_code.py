"""Own code that has changed since a run was stopped is named when it is resumed."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from helpers.resumable_runs import CARTPOLE, config

import pgkit
from pgkit.errors import PgkitError
from pgkit.runs import own_code

FILES = {
    "mylab/__init__.py": "",
    "mylab/agent.py": """
        from pgkit.agents.actor_critic import Config, collects, targets
        from mylab.shaping import SCALE
        from pgkit.agents import actor_critic

        def loss(policy, params, batch, config):
            value, metrics = actor_critic.loss(policy, params, batch, config)
            return SCALE * value, metrics
    """,
    "mylab/shaping.py": """
        from . import constants

        SCALE = constants.SCALE
    """,
    "mylab/constants.py": "SCALE = 1.0",
    "mylab/careful.py": """
        import torch

        class Careful(torch.optim.SGD):
            pass
    """,
    "mylab/maze.py": """
        import gymnasium
        from gymnasium.envs.classic_control import CartPoleEnv

        class Maze(CartPoleEnv):
            pass

        gymnasium.register("OwnMaze-v0", Maze, max_episode_steps=20)
    """,
    "mylab/unused.py": "",
    "mylab/screen.py": """
        import sys

        if sys.platform == "another":
            from mylab.elsewhere import window
    """,
    "mylab/elsewhere/__init__.py": "raise OSError('this operating system has no such library')",
    "mylab/elsewhere/window.py": "",
}

PARTS: dict[str, dict[str, Any]] = {
    "agent": {"agent": "mylab.agent", "rollout_steps": 7},
    "optimizer": {"optimizer": {"name": "mylab.careful:Careful", "lr": 0.01}},
    "environment": {"env": {"id": "mylab.maze:OwnMaze-v0"}},
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package with an agent, an optimizer and an environment, which can be imported."""
    for name, text in FILES.items():
        path = tmp_path / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line[8:] if line.startswith(" " * 8) else line for line in text.splitlines()) + "\n")
    monkeypatch.syspath_prepend(tmp_path / "lab")
    yield tmp_path / "lab" / "mylab"
    gymnasium.registry.pop("OwnMaze-v0", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


def stop(steps: float) -> None:
    raise ArithmeticError("stopped on purpose")


@pytest.mark.parametrize(
    ("part", "module"),
    [
        ("agent", "agent"),
        ("agent", "shaping"),
        ("agent", "constants"),
        ("optimizer", "careful"),
        ("environment", "maze"),
    ],
)
def test_a_change_of_own_code_is_refused_by_name(part: str, module: str, lab: Path, tmp_path: Path) -> None:
    settings = config(**{"steps": 300, "env": CARTPOLE} | PARTS[part])
    with pytest.raises(ArithmeticError):
        pgkit.train(settings, tmp_path / "run", on_steps=stop)
    file = lab / f"{module}.py"
    file.write_text(file.read_text() + "\n# another version\n")
    with pytest.raises(PgkitError, match=rf"^code of mylab.{module} was \"\w+\" when the checkpoint was .*--force"):
        pgkit.resume(tmp_path / "run")
    result = pgkit.resume(tmp_path / "run", force=True)
    assert result is not None
    assert not result.table[0]["failed"]


@pytest.mark.parametrize("part", PARTS)
def test_code_that_a_run_does_not_use_may_change(part: str, lab: Path, tmp_path: Path) -> None:
    settings = config(**{"steps": 300, "env": CARTPOLE} | PARTS[part])
    with pytest.raises(ArithmeticError):
        pgkit.train(settings, tmp_path / "run", on_steps=stop)
    (lab / "unused.py").write_text("changed = True")
    assert pgkit.resume(tmp_path / "run") is not None


def test_code_is_described_without_importing_it(lab: Path) -> None:
    described = own_code.describe([config(env={"id": "mylab.screen:Unregistered-v0"})])
    assert {"code of mylab.screen", "code of mylab.elsewhere", "code of mylab.elsewhere.window"} <= set(described)
    assert "mylab" not in sys.modules


def test_shipped_parts_have_no_entry_of_their_own() -> None:
    assert own_code.describe([pgkit.load_config("cartpole-actor-critic")]) == {}


def test_an_installed_package_counts_with_its_version() -> None:
    assert own_code._versions("llvmlite") == {"version of llvmlite": importlib.metadata.version("llvmlite")}
    assert own_code._versions("json") == {}  # Python's own
