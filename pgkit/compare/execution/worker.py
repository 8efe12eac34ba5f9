"""Train a batch of runs as one population; every executor calls this."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from pgkit.config.schema import TrainConfig
from pgkit.rollouts.evaluate import Episodes, EvalKey, evaluate_policy
from pgkit.training.build_policy import build_policy
from pgkit.training.population import build_evaluation_envs
from pgkit.training.result import TrainResult
from pgkit.training.train import train

Row = dict[str, Any]
Array = np.ndarray[Any, np.dtype[np.float64]]


def run_batch(configs: Sequence[TrainConfig], on_steps: Callable[[float], None] | None = None) -> list[Row]:
    """Train and evaluate runs that differ in optimizer and seed only.

    Args:
        configs: P configurations.
        on_steps: called from time to time with the environment steps of all runs so far.

    Returns:
        For each run: ``diverged``, ``env_steps``; of its K evaluations while training ``at`` (environment steps) and
        ``returns`` (mean over episodes), NaN from where a run diverged, and ``greedy_returns``, the same with most
        likely actions, if the configuration asks for it; ``final`` and ``greedy``, the returns of the final policy's
        episodes, actions sampled and most likely.
    """
    result = train(configs, on_steps=on_steps)
    sampled = [(e.member, e.point, e.env_steps, e.episodes) for e in result.evaluations]
    at, returns = _curves(configs, result, sampled)
    most_likely = [(e.member, e.point, e.env_steps, e.greedy) for e in result.evaluations if e.greedy is not None]
    greedy_returns = _curves(configs, result, most_likely)[1]
    greedy = _greedy(configs, result)
    return [
        {
            "diverged": row["failed"],
            "env_steps": row["env_steps"],
            "at": at[k].tolist(),
            "returns": returns[k].tolist(),
            **({"greedy_returns": greedy_returns[k].tolist()} if most_likely else {}),
            "final": result.final.returns[k].tolist(),
            "greedy": greedy[k].tolist(),
        }
        for k, row in enumerate(result.table)
    ]


def _curves(
    configs: Sequence[TrainConfig], result: TrainResult, evaluations: Sequence[tuple[int, int, float, Episodes]]
) -> tuple[Array, Array]:
    """Steps and mean returns ``(P, K)`` of evaluations (member, point, environment steps, episodes).

    The point at a mark is the first policy at or behind it, so marks that one update passed share theirs.
    """
    points = configs[0].evaluation.points + 1
    at, returns = (np.full((len(configs), points), np.nan) for _ in range(2))
    passed = np.zeros(len(configs), dtype=np.int64)
    for member, point, env_steps, episodes in evaluations:
        points_passed = (member, slice(passed[member], point + 1))
        at[points_passed] = env_steps
        returns[points_passed] = episodes.returns.mean().item()
        passed[member] = point + 1
    for member, row in enumerate(result.table):
        if row["failed"]:
            returns[member, at[member] >= row["env_steps"]] = np.nan
    return at, returns


def _greedy(configs: Sequence[TrainConfig], result: TrainResult) -> torch.Tensor:
    """Returns ``(P, E)`` of the final policies' most likely actions."""
    first = configs[0]
    device = next(iter(result.params.values())).device
    envs = build_evaluation_envs(first, first.evaluation.final_episodes, device)
    try:
        return evaluate_policy(
            build_policy(first, envs.info),
            result.params,
            envs,
            [EvalKey(config.seed, 0) for config in configs],
            first.evaluation.final_episodes,
            stream="report",
            deterministic=True,
            obs_stats=result.obs_stats if first.env.normalize_observations else None,
        ).returns
    finally:
        envs.close()
