"""Environments of every backend, and actions for them."""

import torch

from pgkit.envs import make_envs

NOISE = "helpers.probe_envs:ProbeNoise-v0"


SEEDS = [2**63 + 11, 5, 2**40, 7, 3]


CASES = {
    "cartpole": {"env_id": "CartPole-v1", "backend": "pgkit", "max_episode_steps": 20},
    "probe": {"env_id": NOISE},
    "probe-async": {"env_id": NOISE, "vectorization": "async"},
    "lunarlander": {"env_id": "LunarLander-v3", "backend": "gymnasium", "max_episode_steps": 60},
    "lunarlander-envpool": {"env_id": "LunarLander-v3", "backend": "envpool", "max_episode_steps": 60},
    "cartpole-envpool": {"env_id": "CartPole-v1", "backend": "envpool"},
}


def make(case, count):
    arguments = dict(case)
    return make_envs(arguments.pop("env_id"), count, **arguments)


def actions_for(seeds, steps=150):
    """``(steps, K)``, a function of the seed alone."""
    columns = [torch.randint(2, (steps,), generator=torch.Generator().manual_seed(seed % 1000)) for seed in seeds]
    return torch.stack(columns, 1)


def numbers(result):
    return torch.cat([result.obs, *[field.float().unsqueeze(-1) for field in result[1:5]]], -1)
