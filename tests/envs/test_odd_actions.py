"""Actions reach environments as what the space says: NumPy scalars or arrays of its type and shape."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import SyncVectorEnv
from helpers.odd_envs import ACTIONS, Acts, odd_config, odd_id

from pgkit.envs import make_envs, wrap_vector_env
from pgkit.envs.make import resume_problem
from pgkit.errors import PgkitError
from pgkit.training.train import train

VECTORIZATIONS: list[Any] = ["sync", pytest.param("async", marks=pytest.mark.process)]


def learner_actions(action: str) -> torch.Tensor:
    """Actions of a learner for two environments."""
    space = ACTIONS[action]
    size = len(torch.as_tensor(space.sample()).flatten())
    if action.startswith("Discrete"):
        return torch.tensor([0, 2])
    return torch.tensor([[0.5] * size, [-0.5] * size]) if "Box" in action else torch.tensor([[0] * size, [1] * size])


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_of_the_space(action: str) -> None:
    envs = make_envs(odd_id("Acts"), 2, kwargs={"action": action})
    envs.reset([1, 2])
    start = float(getattr(ACTIONS[action], "start", 0)) if action.startswith("Discrete") else 0.0
    first = envs.step(learner_actions(action)).obs[:, 0]
    assert first.tolist() == (learner_actions(action).view(2, -1)[:, 0] + start).tolist()


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
@pytest.mark.parametrize("action", ["Discrete of int32", "Box of no axis"])
def test_actions_are_of_the_space_in_training(action: str, vectorization: str, tmp_path: Path) -> None:
    config = odd_config("Acts", vectorization, kwargs={"action": action})
    assert not train(config, tmp_path / "run").table[0]["failed"]


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_of_the_space_in_a_replay(action: str) -> None:
    first, second = (make_envs(odd_id("Acts"), 2, kwargs={"action": action}) for _ in range(2))
    assert resume_problem(odd_id("Acts"), kwargs={"action": action}) is None
    first.reset([1, 2])
    first.step(learner_actions(action))
    first.step(learner_actions(action))
    second.reset([3, 4])
    second.restore(first.state())
    assert torch.equal(first.step(learner_actions(action)).obs, second.step(learner_actions(action)).obs)


class Whole(Acts):
    """Takes whole numbers."""

    def __init__(self) -> None:
        super().__init__("Box")
        self.action_space = Box(0, 255, (2,), np.uint8)


def test_boxes_of_whole_numbers_are_refused_in_one_line() -> None:
    gymnasium.register("OddWhole-v0", Whole)
    for rescale in (True, False):
        with pytest.raises(PgkitError, match=r"a Box action space of uint8 is not supported: use floats$"):
            make_envs("OddWhole-v0", 1, rescale_actions=rescale)


@pytest.mark.parametrize("action", ["Discrete", "Discrete from -1", "MultiDiscrete", "MultiBinary", "Box"])
def test_actions_are_of_the_space_in_vector_environments(action: str) -> None:
    envs = wrap_vector_env(SyncVectorEnv([lambda: Acts(action)] * 2))
    envs.reset([1, 2])
    start = float(getattr(ACTIONS[action], "start", 0)) if action.startswith("Discrete") else 0.0
    first = envs.step(learner_actions(action)).obs[:, 0]
    assert first.tolist() == (learner_actions(action).view(2, -1)[:, 0] + start).tolist()
