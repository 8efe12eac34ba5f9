"""pgkit's LunarLander is Gymnasium's with Box2D, to the bit."""

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from helpers.parameters import few_by_default

from pgkit.envs.lunarlander import LunarLander

with warnings.catch_warnings():  # Box2D's SWIG module warns; where warnings are errors, importing it crashes Python
    warnings.simplefilter("ignore")
    from gymnasium.envs.box2d.lunar_lander import heuristic

DATA = Path(__file__).parent / "data" / "episodes.npz"

SETTINGS = {
    "default": {},
    "continuous": {"continuous": True},
    "wind": {"enable_wind": True},
    "continuous wind": {"continuous": True, "enable_wind": True, "wind_power": 20.0, "turbulence_power": 2.0},
    "weak gravity": {"gravity": -3.0},
    "strong gravity": {"gravity": -11.9},
    "time limit": {"max_episode_steps": 60},
}


def same_bits(first, second):
    return np.array_equal(np.asarray(first, np.float32).view(np.uint32), np.asarray(second, np.float32).view(np.uint32))


def choose_action(policy, env, obs, rng):
    """``random``, ``heuristic`` or ``main``; continuous actions also beyond their bounds."""
    is_continuous = env.unwrapped.continuous
    if policy == "heuristic":
        action = heuristic(env.unwrapped, obs)
        return np.asarray(action, np.float32) if is_continuous else int(action)
    if policy == "main":
        return np.array([0.7, -0.6], np.float32) if is_continuous else 2
    return rng.uniform(-1.5, 1.5, 2).astype(np.float32) if is_continuous else int(rng.integers(4))


@pytest.mark.parametrize("first", few_by_default(range(4), 0))
def test_recorded_episodes(first):
    """Landings, crashes, flights out of the window, hopping, resting awake: 32 episodes recorded from Box2D."""
    data = np.load(DATA)
    assert set(data["outcome"]) == {"asleep", "crash", "oob", "running"}
    for episode, seed in list(enumerate(data["seed"]))[first::4]:
        names = ("continuous", "enable_wind", "gravity", "wind_power", "turbulence_power")
        settings = {name: data[name][episode].item() for name in names}
        envs = LunarLander(1, **settings)
        start, length = data["start"][episode], data["length"][episode]
        assert same_bits(envs.reset([int(seed)])[0], data["obs"][start])
        for row in range(start + 1, start + length):
            action = data["action_c"][row][None] if settings["continuous"] else data["action_d"][row : row + 1]
            result = envs.step(torch.from_numpy(action.astype(np.float32 if settings["continuous"] else np.int64)))
            assert same_bits(result.obs[0], data["obs"][row]), (data["name"][episode], row - start)
            assert same_bits(result.reward[0], data["reward"][row])
            assert result.terminated.item() == data["terminated"][row]


@pytest.mark.parametrize("policy", ["random", "heuristic", "main"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_side_by_side(settings, policy):
    """Several episodes in each random stream, so resets continue it as Gymnasium's."""
    players = [gymnasium.make("LunarLander-v3", disable_env_checker=True, **settings) for _ in range(4)]
    envs = LunarLander(len(players), **settings)
    rng = np.random.default_rng(3)
    observations = [env.reset(seed=70 + k)[0] for k, env in enumerate(players)]
    assert same_bits(envs.reset(range(70, 74)), observations)
    over = [False] * len(players)
    ended = 0
    for _ in range(450):
        actions = [choose_action(policy, env, obs, rng) for env, obs in zip(players, observations, strict=True)]
        result = envs.step(torch.from_numpy(np.array(actions)))
        assert result.valid.tolist() == [not flag for flag in over]
        for k, env in enumerate(players):
            if over[k]:
                observations[k], reward, terminated, truncated = env.reset()[0], 0.0, False, False
            else:
                observations[k], reward, terminated, truncated, _ = env.step(actions[k])
            assert same_bits(result.reward[k], reward)
            assert (result.terminated[k].item(), result.truncated[k].item()) == (terminated, truncated)
            over[k] = terminated or truncated
            ended += over[k]
        assert same_bits(result.obs, observations)
    assert ended > 1
    for env in players:
        env.close()
