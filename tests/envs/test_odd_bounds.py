"""Continuous actions whose bounds are far from the unit Gaussian are rescaled; others keep their bits."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import RescaleAction
from helpers.odd_envs import Bounded, odd_config, odd_id
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.config.load import to_toml
from pgkit.envs import make_envs
from pgkit.envs.make import resume_problem
from pgkit.training.evaluate_run import evaluate_run
from pgkit.training.train import train

NEAR = [(-1, 1), (-2, 2), (-3, 3), (-10, 10), (-0.4, 0.4), (0, 1), (-0.2, 0.2), (0, 10), (-1e9, 1e9), (0, np.inf)]
FAR = [(100, 200), (-200, -100), (-1000, 1000), (0, 255), (-0.01, 0.01), (3, 4), (1e-6, 1e-5)]


def received(low: float, high: float, action: torch.Tensor, **options: Any) -> list[float]:
    """What the environment gets for the learner's actions ``(K,)``."""
    kwargs = {"low": [low], "high": [high]}
    envs = make_envs(odd_id("Bounded"), len(action), kwargs=kwargs, **options)
    envs.reset(list(range(len(action))))
    obs: list[float] = envs.step(action[:, None]).obs[:, 0].tolist()
    envs.close()
    return obs


@pytest.mark.parametrize(("low", "high"), NEAR)
def test_bounds_near_the_unit_gaussian_are_left_alone(low: float, high: float) -> None:
    action = torch.tensor([-3.0, -0.0, 0.3, 5.0])
    rescaled = received(low, high, action, rescale_actions=True)
    assert rescaled == received(low, high, action)
    assert rescaled == action.clamp(low, high).tolist()


@pytest.mark.parametrize(
    ("low", "high", "vectorization"),
    [*((*bounds, "sync") for bounds in FAR), pytest.param(100, 200, "async", marks=pytest.mark.process)],
)
def test_other_bounds_are_rescaled_as_by_gymnasium(low: float, high: float, vectorization: Any) -> None:
    action = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.3, 1.0, 5.0])
    rescaled = received(low, high, action, rescale_actions=True, vectorization=vectorization)
    env = RescaleAction(Bounded([low], [high]), np.float32(-1), np.float32(1))
    expected = [float(env.action(np.float32([one]))[0]) for one in action.clamp(-1, 1).tolist()]
    assert rescaled == pytest.approx(expected, rel=1e-5, abs=1e-6 * (high - low))
    assert rescaled[0] == np.float32(low)
    assert rescaled[-1] == np.float32(high)
    assert len(set(rescaled)) == 5


def test_components_are_rescaled_one_by_one() -> None:
    kwargs = {"low": [-1.0, 100.0], "high": [1.0, 200.0]}
    envs = make_envs(odd_id("Bounded"), 1, kwargs=kwargs, rescale_actions=True)
    envs.reset([1])
    assert envs.step(torch.tensor([[0.5, 0.5]])).obs.tolist() == [[0.5, 175.0]]
    assert envs.info.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,))
    assert resume_problem(odd_id("Bounded"), kwargs=kwargs) is None


@pytest.mark.parametrize("rescale", [True, False])
def test_the_header_says_so_and_a_key_turns_it_off(rescale: bool, tmp_path: Path) -> None:
    config = odd_config("Bounded", kwargs={"low": [100.0], "high": [200.0]}, rescale_actions=rescale)
    (tmp_path / "odd.toml").write_text(to_toml(config))
    result = CliRunner().invoke(app, ["train", str(tmp_path / "odd.toml"), "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    header = " ".join(result.output.split())
    expected = "actions bounded by 100 and 200, are rescaled from [-1, 1], because such bounds are far from the unit"
    assert (expected in header) == rescale
    assert f"rescale_actions = {str(rescale).lower()}" in (tmp_path / "run" / "config.toml").read_text()
    assert len(evaluate_run(tmp_path / "run", episodes=2).table) == 1


def test_actions_vary_in_training(tmp_path: Path) -> None:
    """They stayed at the bound before."""
    seen: list[float] = []

    class Listens(Bounded):
        def step(self, action: Any) -> Any:
            seen.append(float(action[0]))
            return super().step(action)

    gymnasium.register("OddListens-v0", Listens, kwargs={"low": [100.0], "high": [200.0]})
    config = odd_config("Bounded")
    env = config.env.model_copy(update={"id": "OddListens-v0"})
    train(config.model_copy(update={"env": env}), tmp_path / "run")
    assert len(set(seen)) > 40
    assert 140 < np.mean(seen) < 160
