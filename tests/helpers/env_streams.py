"""Environments of every backend, and actions for them."""

import torch
from gymnasium import spaces

from pgkit.envs import make_envs

NOISE = "helpers.probe_envs:ProbeNoise-v0"


SEEDS = [2**63 + 11, 5, 2**40, 7, 3]


CASES = {
    "cartpole": {"env_id": "CartPole-v1", "backend": "pgkit", "max_episode_steps": 20},
    "acrobot": {"env_id": "Acrobot-v1", "max_episode_steps": 20},
    "mountain-car": {"env_id": "MountainCar-v0", "max_episode_steps": 20},
    "mountain-car-continuous": {"env_id": "MountainCarContinuous-v0", "max_episode_steps": 20},
    "pendulum": {"env_id": "Pendulum-v1", "max_episode_steps": 20},
    "probe": {"env_id": NOISE},
    "probe-async": {"env_id": NOISE, "vectorization": "async"},
    "lunarlander": {"env_id": "LunarLander-v3", "backend": "gymnasium", "max_episode_steps": 60},
    "lunarlander-envpool": {"env_id": "LunarLander-v3", "backend": "envpool", "max_episode_steps": 60},
    "cartpole-envpool": {"env_id": "CartPole-v1", "backend": "envpool"},
}


def make(case, count):
    """Environments that take what :func:`actions_for` gives, whatever their actions are."""
    arguments = dict(case)
    envs = make_envs(arguments.pop("env_id"), count, **arguments)
    return envs if isinstance(envs.info.action_space, spaces.Discrete) else _Pushed(envs)


class _Pushed:
    """Environments with a Box of one number: actions 0 and 1 push to the left and to the right."""

    def __init__(self, envs):
        self._envs = envs

    def __getattr__(self, name):
        return getattr(self._envs, name)

    def step(self, action, index=None):
        return self._envs.step(action[:, None] * 1.25 - 0.5, index)


def actions_for(seeds, steps=150):
    """``(steps, K)`` of 0 and 1, a function of the seed alone."""
    columns = [torch.randint(2, (steps,), generator=torch.Generator().manual_seed(seed % 1000)) for seed in seeds]
    return torch.stack(columns, 1)


def numbers(result):
    return torch.cat([result.obs, *[field.float().unsqueeze(-1) for field in result[1:5]]], -1)
