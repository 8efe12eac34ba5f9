"""Split the runs of a stage into batches that train as one population each.

A batch is large enough to make a step cheap, and small enough to fit into memory and to keep every core busy.
"""

import os
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pgkit.compare.execution.trial import training_speed
from pgkit.compare.plan.plan import KEYS, Plan, Run
from pgkit.config.schema import TrainConfig
from pgkit.envs.base import EnvInfo
from pgkit.errors import PgkitError
from pgkit.training.population import build

SIZES = (16, 32, 64, 128)
"""Population sizes to choose from."""

NEARLY = 0.9
"""The smallest size that reaches this share of the best speed is chosen: less is lost if it is interrupted."""

LONG_UPDATE = 0.5
"""Seconds of an update from which no larger size is tried: it is arithmetic that size does not speed up."""

MEMORY_SHARE = 0.5
"""Share of the free memory that all workers together may use."""

BYTES_PER_UNIT = 16
"""Memory per hidden unit and sample: a float32 activation, its gradient, and temporaries of the same size."""


class Batch(NamedTuple):
    """Runs that train as one population.

    Attributes:
        runs: of one case.
        paused: name of the batch in which they have paused together; empty if they have not begun.
        env_steps: that they have trained before.
    """

    runs: list[Run]
    paused: str = ""
    env_steps: float = 0.0


def make_batches(plan: Plan, todo: Sequence[Run], stored: pd.DataFrame, workers: int) -> list[Batch]:
    """Split the runs of a stage into batches; those that have paused together train on together."""
    wanted = {tuple(run): run for run in todo}
    keys = stored[list(KEYS)].itertuples(index=False, name=None)
    paused = stored.loc[np.array([key in wanted for key in keys], dtype=bool)]
    batches = []
    for name, rows in paused.groupby("batch", sort=True):
        runs = [wanted.pop(key) for key in rows[list(KEYS)].itertuples(index=False, name=None)]
        batches.append(Batch(runs, str(name), float(rows["env_steps"].sum())))
    new = list(wanted.values())
    return batches + [Batch(runs) for runs in split_runs(new, choose_sizes(plan, new, workers))]


def check_arms(plan: Plan) -> None:
    """Check that this machine can run every arm, by building one member of each.

    Raises:
        PgkitError: naming what is missing or does not fit together.
    """
    for case in plan.cases:
        firsts = {arm: plan.points(arm)[0] for arm in plan.arms}
        runs = [Run("tuning", *case[:2], arm, point.lr, 0, point.setting) for arm, point in firsts.items()]
        try:
            build([plan.train_config(run) for run in runs]).collector.envs.close()
        except PgkitError as error:
            raise PgkitError(f"{_culprit(plan, runs)}: {error}") from None


def _culprit(plan: Plan, runs: Sequence[Run]) -> str:
    """Name what cannot be built: the case if all of its arms cannot, else the first such arm, its rate and its seed."""
    failed = []
    for run in runs:
        try:
            build([plan.train_config(run)]).collector.envs.close()
        except PgkitError:
            failed.append(run)
    case = f"{runs[0].environment}, {runs[0].agent}"
    if len(failed) in (0, len(runs)) and len(runs) > 1:
        return case
    return f"{case}, {failed[0].optimizer} at lr {failed[0].lr:g}, seed {failed[0].seed}"


def choose_sizes(plan: Plan, runs: Sequence[Run], workers: int) -> dict[tuple[str, str], int]:
    """Return the population size of each case."""
    cases: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        cases.setdefault((run.environment, run.agent), []).append(run)
    return {case: choose_size(plan, of_case, workers) for case, of_case in cases.items()}


def choose_size(plan: Plan, runs: Sequence[Run], workers: int) -> int:
    """Return the population size for runs of one case, measured if there is a choice."""
    sizes = _possible_sizes(plan, runs, workers)
    if len(sizes) == 1:
        return sizes[0]
    configs = [plan.train_config(runs[index]) for index in range(sizes[-1])]
    samples = configs[0].envs_per_member * (configs[0].rollout_steps or 0)
    speeds: dict[int, float] = {}
    for size in sizes:
        speeds[size] = _speed(configs[:size])
        if size * samples > LONG_UPDATE * speeds[size]:
            break
    fastest = max(speeds.values())
    return next(size for size in speeds if speeds[size] >= NEARLY * fastest)


def _possible_sizes(plan: Plan, runs: Sequence[Run], workers: int) -> list[int]:
    """Return the sizes of :data:`SIZES`, ascending, that fit into memory and leave every worker its share."""
    most = max(1, -(-len(runs) // workers))
    limit = _members_in_memory(plan.train_config(runs[0]), workers)
    return sorted({min(size, most, limit) for size in SIZES})


def split_runs(runs: Sequence[Run], sizes: dict[tuple[str, str], int]) -> list[list[Run]]:
    """Split runs into batches of one case each, of about equal size, arm by arm."""
    batches = []
    ordered = sorted(runs, key=lambda run: (run.environment, run.agent, run.optimizer, run.lr, run.setting, run.seed))
    for case, group in groupby(ordered, key=lambda run: (run.environment, run.agent)):
        members = list(group)
        count = -(-len(members) // sizes[case])
        bounds = [len(members) * index // count for index in range(count + 1)]
        batches += [members[first:last] for first, last in pairwise(bounds)]
    return batches


def name_batch(batch: Sequence[Run]) -> str:
    """Name the runs of a batch: case, stage, arms with their learning rates, and seeds."""
    first = batch[0]
    arms: dict[str, dict[str, None]] = {}
    for run in batch:
        arms.setdefault(run.optimizer, {})[f"{run.lr:g}"] = None
    at_rates = "; ".join(f"{arm} at lr {', '.join(rates)}" for arm, rates in arms.items())
    seeds = ", ".join(map(str, sorted({run.seed for run in batch})))
    return f"{len(batch)} runs of {first.environment}, {first.agent} ({first.stage}: {at_rates}; seeds {seeds})"


def _speed(configs: Sequence[TrainConfig]) -> float:
    """Measure the environment steps per second of a population, without its first updates, which compile."""
    population = build(configs)
    try:
        return training_speed(population)[1]
    finally:
        population.collector.envs.close()


def _members_in_memory(config: TrainConfig, workers: int) -> int:
    """Estimate how many members fit into memory from the activations of an update."""
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
    """Return the free memory in bytes."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    free = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"  # macOS does not say
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf(free)
