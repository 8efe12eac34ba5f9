"""A short trial of a batch of runs: how fast this machine trains and evaluates it."""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.training.captured import CapturedUpdates
from pgkit.training.captured_outputs import Snapshots
from pgkit.training.evaluator import Evaluator, Snapshot
from pgkit.training.loop import compute_update, update
from pgkit.training.population import Population, build

SECONDS = 0.5
"""How long a batch is trained, and how long it is evaluated, after everything is compiled."""

UPDATES = 4
"""Captured updates between two looks at the clock."""

WARM_UP = 3
"""Times that these many updates are made before the clock runs: the first two of them compile."""


class Trial(NamedTuple):
    """What was measured of a batch.

    Attributes:
        setup_seconds: from nothing to compiled updates and evaluations.
        training_speed: environment steps of all members per second of training.
        episode_seconds: what an evaluation episode of an untrained policy takes, beside others.
        episode_steps: mean length of such episodes.
        longest_episode: the time limit of an episode; without one, the steps of the longest one of the trial.
        actions: number of discrete actions; 0 if actions are continuous.
        has_time_limit: whether the environment has one.
    """

    setup_seconds: float
    training_speed: float
    episode_seconds: float
    episode_steps: float
    longest_episode: int
    actions: int
    has_time_limit: bool = True


def try_batch(configs: Sequence[TrainConfig], on_steps: Callable[[float], None] | None = None) -> Trial:
    """Train a batch for a moment, and evaluate what it was before.

    Args:
        configs: of the runs.
        on_steps: never called, because a trial is short; :func:`pgkit.compare.execution.worker.run_batch` has it.
    """
    started = time.perf_counter()
    population = build(configs)
    envs = population.collector.envs
    evaluator = Evaluator(population, configs)
    try:
        untrained = _snapshots(evaluator, population)
        built = time.perf_counter() - started
        compiled, speed = training_speed(population)
        opened, episode_seconds, lengths = _evaluation_cost(evaluator, untrained)
    finally:
        evaluator.close()
        envs.close()
    head = population.policy.head
    actions = head.width if head.name == "categorical" else 0
    limit = envs.info.max_episode_steps
    return Trial(
        setup_seconds=built + compiled + opened,
        training_speed=speed,
        episode_seconds=episode_seconds,
        episode_steps=lengths.double().mean().item(),
        longest_episode=limit or int(lengths.max()),
        actions=actions,
        has_time_limit=limit is not None,
    )


def training_speed(population: Population) -> tuple[float, float]:
    """Train for a moment; return the seconds of the first updates, which compile, and the steps per second after them.

    The speed is infinite if every member fails at once.
    """
    captured = CapturedUpdates(compute_update)
    started = time.perf_counter()
    for _ in range(WARM_UP):
        population, _ = _advance(population, captured)
    compiled = time.perf_counter() - started
    steps = 0.0
    started = time.perf_counter()
    while population.size and time.perf_counter() - started < SECONDS:
        population, new_steps = _advance(population, captured)
        steps += new_steps
    return compiled, steps / (time.perf_counter() - started) if steps else math.inf


def _advance(population: Population, captured: CapturedUpdates) -> tuple[Population, float]:
    """Make a few updates; return the members that have not failed, and the environment steps of all."""
    if not population.size:
        return population, 0.0
    before = population.env_steps.sum().item()
    no_snapshots = torch.full((population.size,), torch.inf, dtype=torch.float64)
    if captured.run(population, UPDATES, no_snapshots) is None:
        update(population, captured=captured)
    steps = population.env_steps.sum().item() - before
    if not population.alive.all():
        population = population.take(population.alive.nonzero().squeeze(1))
    return population, steps


def _snapshots(evaluator: Evaluator, population: Population) -> list[Snapshot]:
    """Take as many snapshots as are evaluated at once.

    Environments that are not pgkit's own evaluate one member after the other, and slowly: there one is enough.
    """
    row = 0
    source = Snapshots.of(population)
    one = population.collector.envs.info.backend != "pgkit"
    while not (row if one else evaluator.enough_waiting(population.size)):
        evaluator.snapshot(population, row % population.size, row // population.size, source)
        row += 1
    return evaluator.waiting


def _evaluation_cost(evaluator: Evaluator, snapshots: Sequence[Snapshot]) -> tuple[float, float, Tensor]:
    """Return the seconds of the first evaluation, the seconds of an episode after it, and the steps of all of those."""
    started = time.perf_counter()
    _evaluate(evaluator, snapshots)
    first = time.perf_counter() - started
    lengths: list[Tensor] = []
    started = time.perf_counter()
    while not lengths or time.perf_counter() - started < SECONDS:
        lengths += _evaluate(evaluator, snapshots)
    elapsed = time.perf_counter() - started
    steps = torch.cat(lengths)
    return first, elapsed / len(steps), steps


def _evaluate(evaluator: Evaluator, snapshots: Sequence[Snapshot]) -> list[Tensor]:
    """Return the lengths of the episodes that evaluate snapshots."""
    evaluator.waiting = list(snapshots)
    return [evaluation.episodes.lengths for evaluation in evaluator.evaluate_waiting()]
