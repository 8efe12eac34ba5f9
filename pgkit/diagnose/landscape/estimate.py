"""How much a picture will take, before anything is measured."""

import math
import time
from pathlib import Path
from typing import NamedTuple

import torch

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.episodes import BATCH_EPISODES
from pgkit.diagnose.landscape.directions import BATCHES, COPIES, RANDOM_DIRECTIONS, SINGLE_UPDATES
from pgkit.diagnose.landscape.lines import ALPHAS, EPISODES, LEADING
from pgkit.diagnose.landscape.paths import POINTS
from pgkit.diagnose.landscape.request import Request, locate
from pgkit.diagnose.landscape.targets import CHECKPOINTS, points_of
from pgkit.diagnose.play import open_player
from pgkit.diagnose.points import Point, open_run
from pgkit.diagnose.scan import obs_stats_of
from pgkit.errors import PgkitError
from pgkit.runs import checkpoint
from pgkit.system.files import read_json
from pgkit.tree import take_tree

PROBES = 32
"""Copies of the policy that are played to see how fast that is."""


class Estimate(NamedTuple):
    """What a picture takes.

    Attributes:
        policies: how many are played.
        env_steps: environment steps of their episodes and of the updates; fewer if policies nearby fail early.
        seconds: on so many processes, training again included.
        trains_again: environment steps of the same training once more, because checkpoints are missing; 0 if none are.
    """

    policies: int
    env_steps: float
    seconds: float
    trains_again: float

    def in_words(self) -> dict[str, str]:
        """Lines for a terminal.

        >>> Estimate(700, 5_000_000, 3.2, 0).in_words()
        {'policies': '700', 'steps': 'about 5,000,000 environment steps', 'time': 'about 4 seconds'}
        """
        lines = {"policies": f"{self.policies:,}", "steps": f"about {self.env_steps:,.0f} environment steps"}
        if self.trains_again:
            lines["training"] = (
                f"{self.trains_again:,.0f} environment steps once more, for checkpoints that are missing"
            )
        return lines | {"time": f"about {max(1, math.ceil(self.seconds)):,} seconds"}


def estimate(directory: Path, request: Request, workers: int) -> Estimate:
    """Estimate what :func:`pgkit.diagnose.landscape.run.landscape` will take; writes nothing.

    Raises:
        PgkitError: as that function.
    """
    request.check()
    positions, share, shares = locate(directory, request)
    with open_run(directory, ()) as run:
        (point,) = points_of(run, positions[0], (share,))  # the nearest that is stored, so that nothing trains
        budget = run.configs[0].steps
        stored = [0.0, *(checkpoint.step_of(path) / budget for path in run.paths)]
        missing = any(min(abs(each - other) for other in stored) > 0.01 for each in shares)
        again = float(budget * len(run.configs)) if missing else 0.0
    length, speed = _speed(point, request.seed)
    policies, episodes = counts(request)
    env_steps = episodes * length + _other_steps(point.config, request, length)
    seconds = env_steps / speed / workers + (_wall_seconds(directory) if missing else 0.0)
    return Estimate(policies, env_steps, seconds, again)


def counts(request: Request) -> tuple[int, int]:
    """How many policies are played, and how many episodes by all of them."""
    lines = 0
    if request.wants_lines:
        lines += len(LEADING) + SINGLE_UPDATES
    if request.wants_lines or request.plane_name == "random":
        lines += RANDOM_DIRECTIONS
    if request.plane_name == "curvature":
        lines += 2
    long = 2 + lines * (len(ALPHAS) - 1)  # the policy, random actions, and the lines
    if request.wants_path:
        long += POINTS
    if request.plane_name == "trajectory":
        long += 2 * CHECKPOINTS
    short = 0 if request.plane_name == "none" else request.grid**2
    return long + short, long * EPISODES + short * request.episodes


def _speed(point: Point, seed: int) -> tuple[float, float]:
    """Mean length of an episode of a policy, and environment steps per second of one process."""
    params, obs_stats = take_tree((point.params, obs_stats_of(point)), torch.zeros(PROBES, dtype=torch.int64))
    with open_player(point.config, seed) as player:
        player.play(params, 2, 0, obs_stats)  # compiles
        player.env_steps = 0.0
        started = time.perf_counter()
        player.play(params, EPISODES, 0, obs_stats)
        seconds = time.perf_counter() - started
    return player.env_steps / (PROBES * EPISODES), player.env_steps / seconds


def _other_steps(config: TrainConfig, request: Request, length: float) -> float:
    """Environment steps of the copies whose updates are measured, and of the search for curvature."""
    steps = 0.0
    if request.wants_lines or request.plane_name != "none":
        per_env = config.rollout_steps or length
        steps += COPIES * config.envs_per_member * per_env
    if request.plane_name == "curvature":
        steps += BATCHES * BATCH_EPISODES * length
    return steps


def _wall_seconds(directory: Path) -> float:
    """How long the run has trained."""
    try:
        return float(read_json(directory / "result.json")["wall_seconds"])
    except (PgkitError, KeyError, TypeError, ValueError):
        return 0.0
