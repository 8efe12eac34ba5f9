"""How many runs train together: as many as make a step cheap, as few as fit into memory and keep every core busy."""

import os
import time
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import torch

from pgkit.compare.plan.plan import Plan, Run
from pgkit.config.schema import TrainConfig
from pgkit.envs.base import EnvInfo
from pgkit.training.captured import CapturedUpdates
from pgkit.training.loop import compute_update, learn, update
from pgkit.training.population import build

SIZES = (16, 32, 64, 128)
"""Members of a population that are tried."""

UPDATES = 4
"""So many at once, where they take no Python."""

NEARLY = 0.9
"""The smallest population that reaches this share of the best speed is taken: less is lost when it is interrupted."""

MEMORY_SHARE = 0.5
"""Of the memory that is free, all workers together."""

BYTES_PER_UNIT = 16
"""Of a hidden unit and sample: a float32 activation, its gradient, and temporaries of the same size."""


class Measured(NamedTuple):
    """What a case costs here.

    Attributes:
        size: members of a population.
        steps_per_second: environment steps of all members, training only, one process.
    """

    size: int
    steps_per_second: float


def check_here(plan: Plan) -> None:
    """That this machine has the device and the environments, and that every arm can begin: builds one member of each.

    Raises:
        PgkitError: what is missing or does not fit together.
    """
    for case in plan.cases:
        firsts = {arm: plan.points(arm)[0] for arm in plan.arms}
        runs = [Run("tuning", *case[:2], arm, point.lr, 0, point.setting) for arm, point in firsts.items()]
        build([plan.train_config(run) for run in runs]).collector.envs.close()


def choose_size(plan: Plan, runs: Sequence[Run], workers: int) -> int:
    """Members of a population of runs of one case; measured where there is a choice."""
    sizes = _possible_sizes(plan, runs, workers)
    return sizes[0] if len(sizes) == 1 else measure(plan, runs, workers).size


def measure(plan: Plan, runs: Sequence[Run], workers: int, seconds: float = 1.0) -> Measured:
    """Train populations of several sizes for a moment, made of runs of one case."""
    sizes = _possible_sizes(plan, runs, workers)
    configs = [plan.train_config(runs[index]) for index in range(sizes[-1])]
    speeds = {size: _speed(configs[:size], seconds) for size in sizes}
    fastest = max(speeds.values())
    size = next(size for size in sizes if speeds[size] >= NEARLY * fastest)
    return Measured(size, speeds[size])


def _possible_sizes(plan: Plan, runs: Sequence[Run], workers: int) -> list[int]:
    """Ascending: those of ``SIZES`` that fit into memory and leave every worker its share of the runs."""
    most = max(1, -(-len(runs) // workers))
    limit = _members_in_memory(plan.train_config(runs[0]), workers)
    return sorted({min(size, most, limit) for size in SIZES})


def cut(runs: Sequence[Run], sizes: dict[tuple[str, str], int]) -> list[list[Run]]:
    """Batches of runs of one case each, of about equal length, arm by arm."""
    batches = []
    ordered = sorted(runs, key=lambda run: (run.environment, run.agent, run.optimizer, run.lr, run.setting, run.seed))
    for case, group in groupby(ordered, key=lambda run: (run.environment, run.agent)):
        members = list(group)
        count = -(-len(members) // sizes[case])
        bounds = [len(members) * index // count for index in range(count + 1)]
        batches += [members[first:last] for first, last in pairwise(bounds)]
    return batches


def _speed(configs: Sequence[TrainConfig], seconds: float) -> float:
    """Environment steps per second of a population, its first updates not counted."""
    population, stretches = build(configs), CapturedUpdates(compute_update, learn)
    no_marks = torch.full((len(configs),), torch.inf, dtype=torch.float64)

    def advance() -> None:
        if stretches.go(population, UPDATES, no_marks) is None:
            update(population, stretches=stretches)

    try:
        advance()
        before, started = population.env_steps.sum().item(), time.perf_counter()
        while time.perf_counter() - started < seconds:
            advance()
        return (population.env_steps.sum().item() - before) / (time.perf_counter() - started)
    finally:
        population.collector.envs.close()


def _members_in_memory(config: TrainConfig, workers: int) -> int:
    """How many members fit, by the activations of an update."""
    probe = build([config])
    info = probe.collector.envs.info
    probe.collector.envs.close()
    samples = config.envs_per_member * (config.rollout_steps or _longest_episode(info))
    hidden = config.policy.critic_hidden if config.policy.critic_hidden is not None else config.policy.hidden
    units = sum(config.policy.hidden) + sum(hidden) + 2 * info.obs_dim
    return max(1, int(MEMORY_SHARE * _free_memory(config.device) / workers / (samples * units * BYTES_PER_UNIT)))


def _longest_episode(info: EnvInfo) -> int:
    return info.max_episode_steps or 1000


def _free_memory(device: str) -> int:
    """Bytes."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
