"""Train a batch of runs as one population; every executor calls :func:`run_part`."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pgkit.compare.plan.screening import last_evaluation
from pgkit.config.schema import TrainConfig
from pgkit.rollouts.evaluate import Episodes, EvalKey, evaluate_policy
from pgkit.runs.checkpoint import CorruptCheckpoint
from pgkit.training.build_policy import build_policy
from pgkit.training.evaluator import Evaluation
from pgkit.training.pausing import keep_members, train_on, train_until
from pgkit.training.population import build_evaluation_envs
from pgkit.training.result import TrainResult
from pgkit.training.train import train

Row = dict[str, Any]
Array = np.ndarray[Any, np.dtype[np.float64]]


class Part(NamedTuple):
    """What to train of a batch.

    Attributes:
        configs: of the runs; they differ in optimizer and seed only.
        share: of their steps, all in all; 1 also evaluates the final policies.
        paused: where they have paused before; None starts them.
    """

    configs: Sequence[TrainConfig]
    share: float = 1.0
    paused: "PausedBatch | None" = None


class PausedBatch(NamedTuple):
    """Runs that have paused together, and which of them train on.

    Attributes:
        configs: of all of them.
        saved: of :class:`pgkit.training.pausing.Paused`.
        members: positions of those that train on, ascending.
    """

    configs: Sequence[TrainConfig]
    saved: bytes
    members: Sequence[int]


class Trained(NamedTuple):
    """What became of a part.

    Attributes:
        rows: one for each run, see :func:`run_batch`; runs that paused have a ``share``, no ``final`` and ``greedy``
            returns, and NaN at evaluations to come.
        saved: where they have paused; None if they are at their end, or cannot be continued exactly.
    """

    rows: list[Row]
    saved: bytes | None = None


def run_part(part: Part, on_steps: Callable[[float], None] | None = None) -> Trained:
    """Train runs to the end, or until they pause; arguments as of :func:`run_batch`.

    Runs begin anew where what was saved is damaged or missing: that takes longer, and gives the same bits.
    """
    try:
        saved = None if part.paused is None else keep_members(*part.paused)
        if part.share < 1:
            return _run_until(part.configs, part.share, saved, on_steps)
        if saved is not None:
            return Trained(_rows(part.configs, train_on(part.configs, saved, on_steps)))
    except CorruptCheckpoint:
        return run_part(part._replace(paused=None), on_steps)
    return Trained(run_batch(part.configs, on_steps))


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
    return _rows(configs, train(configs, on_steps=on_steps))


def _run_until(
    configs: Sequence[TrainConfig], share: float, saved: bytes | None, on_steps: Callable[[float], None] | None
) -> Trained:
    paused = train_until(configs, share, saved, on_steps)
    ends = list(zip(paused.failed, paused.env_steps, strict=True))
    curves = _curve_rows(configs, paused.evaluations, ends)
    pause = {"final": [], "greedy": [], "share": share}
    return Trained([{**row, **pause, "env_steps": _steps_at(row, share)} for row in curves], paused.saved)


def _steps_at(row: Row, share: float) -> int:
    """Return the steps of a paused run at the last evaluation that counts; others decide when it pauses after that."""
    if row["diverged"]:
        return int(row["env_steps"])
    return int(row["at"][last_evaluation(share, len(row["at"]))])


def _rows(configs: Sequence[TrainConfig], result: TrainResult) -> list[Row]:
    curves = _curve_rows(configs, result.evaluations, [(row["failed"], row["env_steps"]) for row in result.table])
    greedy = _greedy(configs, result)
    return [
        {**row, "final": result.final.returns[k].tolist(), "greedy": greedy[k].tolist()} for k, row in enumerate(curves)
    ]


def _curve_rows(
    configs: Sequence[TrainConfig], evaluations: Sequence[Evaluation], ends: Sequence[tuple[bool, int]]
) -> list[Row]:
    """Return the learning curve of each run; ``ends`` say whether it failed, and its environment steps."""
    sampled = [(e.member, e.point, e.env_steps, e.episodes) for e in evaluations]
    at, returns = _curves(configs, ends, sampled)
    most_likely = [(e.member, e.point, e.env_steps, e.greedy) for e in evaluations if e.greedy is not None]
    greedy_returns = _curves(configs, ends, most_likely)[1]
    return [
        {
            "diverged": failed,
            "env_steps": env_steps,
            "at": at[k].tolist(),
            "returns": returns[k].tolist(),
            **({"greedy_returns": greedy_returns[k].tolist()} if most_likely else {}),
        }
        for k, (failed, env_steps) in enumerate(ends)
    ]


def _curves(
    configs: Sequence[TrainConfig],
    ends: Sequence[tuple[bool, int]],
    evaluations: Sequence[tuple[int, int, float, Episodes]],
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
    for member, (failed, env_steps) in enumerate(ends):
        if failed:
            returns[member, at[member] >= env_steps] = np.nan
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
