"""Actions before tanh: what environments receive, and which environments cannot be squashed."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers.odd_envs import odd_id
from torch import Tensor

from pgkit.config.load import parse_config
from pgkit.envs import EnvDefinition, make_envs, register
from pgkit.envs.elementwise import ElementwiseEnvs
from pgkit.errors import PgkitError
from pgkit.training.population import build

LOW = [-1.0, 100.0, -0.25]
HIGH = [3.0, 200.0, 0.0]
ACTION = torch.tensor([[0.0, 0.5, -0.5], [-1.0, 2.0, 30.0], [40.0, -40.0, 1e-4], [1.0, math.nan, -3.0]])


def expected(action: Tensor) -> np.ndarray:
    low, high = np.array(LOW), np.array(HIGH)
    squashed = np.nan_to_num(np.tanh(action.double().numpy()))
    return low + (squashed + 1) / 2 * (high - low)


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.process)])
def test_environments_receive_tanh_scaled_to_their_bounds(vectorization: Any) -> None:
    envs = make_envs(
        odd_id("Bounded"),
        4,
        kwargs={"low": LOW, "high": HIGH},
        vectorization=vectorization,
        rescale_actions=True,
        squash_actions=True,
    )
    envs.reset([0, 1, 2, 3])
    received = envs.step(ACTION).obs.numpy()
    assert envs.info.action_space == gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    envs.close()
    np.testing.assert_allclose(received, expected(ACTION)[:, :2], rtol=1e-6, atol=1e-7)
    assert received[2, 0] == HIGH[0]
    assert received[2, 1] == LOW[1]


def bounded() -> EnvDefinition:
    return EnvDefinition(
        obs_dim=3,
        action_space=gymnasium.spaces.Box(np.array(LOW, np.float32), np.array(HIGH, np.float32)),
        max_episode_steps=None,
        reset=lambda random: [0.0, 0.0, 0.0],
        step=lambda state, action: ([number.to(torch.float64) for number in action], 0, False),
        observe=list,
    )


def test_environments_of_pgkits_own_do_likewise() -> None:
    register("Squashed-v0", bounded)
    envs = make_envs("Squashed-v0", 4, squash_actions=True)
    envs.reset(range(4))
    np.testing.assert_allclose(envs.step(ACTION).obs.numpy(), expected(ACTION), rtol=1e-6, atol=1e-7)
    assert envs.info.action_space == gymnasium.spaces.Box(-np.inf, np.inf, (3,))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "LunarLander-v3"])
def test_pgkits_environments_squash_as_gymnasiums_do(env_id: str) -> None:
    kwargs = {"continuous": True} if env_id == "LunarLander-v3" else {}
    pair = [
        make_envs(env_id, 3, backend=backend, squash_actions=True, kwargs=kwargs) for backend in ("pgkit", "gymnasium")
    ]
    start = [envs.reset([4, 5, 6]) for envs in pair]
    assert torch.equal(*start)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        action = 1.5 * torch.randn(3, *pair[0].info.action_space.shape or (), generator=random)
        steps = [envs.step(action) for envs in pair]
        torch.testing.assert_close(steps[0].obs, steps[1].obs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(steps[0].reward, steps[1].reward, rtol=1e-4, atol=1e-3)


class Plain(ElementwiseEnvs):
    """A class of environments without ``squash_actions``."""

    def __init__(
        self, num_envs: int, max_episode_steps: Any = None, device: Any = "cpu", rescale_actions: bool = False
    ):
        super().__init__(bounded(), "Plain-v0", num_envs, max_episode_steps, device, rescale_actions)


def test_what_cannot_be_squashed_is_one_line() -> None:
    register("PlainSquash-v0", Plain)
    unbounded = {"low": [-1.0, 0.0], "high": [1.0, math.inf]}
    cases: list[tuple[str, dict[str, Any], str]] = [
        (
            odd_id("Bounded"),
            {"kwargs": unbounded},
            "needs bounds, and component 1 of the actions .* from 0 to inf: ",
        ),
        ("CartPole-v1", {}, "only Box actions are squashed, not Discrete"),
        ("Acrobot-v1", {"backend": "gymnasium"}, "only Box actions are squashed, not Discrete"),
        ("PlainSquash-v0", {}, "the class of 'PlainSquash-v0' takes no squash_actions"),
        ("CartPole-v1", {"vectorization": "native"}, "needs env.backend 'pgkit' or 'gymnasium'"),
    ]
    for env_id, options, message in cases:
        with pytest.raises(PgkitError, match=message) as error:
            make_envs(env_id, 1, squash_actions=True, **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("env", "policy", "message"),
    [
        (
            "CartPole-v1",
            {"squash_output": True},
            "only Box actions are squashed, not Discrete",
        ),
        (
            "CartPole-v1",
            {"state_dependent_std": True},
            "policy.state_dependent_std = true has no effect: the ",
        ),
        (
            "Pendulum-v1",
            {"state_dependent_std": True, "log_std": 2.5},
            "policy.log_std must be at most 2 with policy.",
        ),
    ],
)
def test_settings_without_effect_are_one_line(env: str, policy: dict[str, Any], message: str) -> None:
    table = {"name": "x", "steps": 1000, "env": env, "agent": "ppo", "optimizer": "adam", "policy": policy}
    with pytest.raises(PgkitError, match=message) as error:
        build([parse_config(table)])
    assert "\n" not in str(error.value)
