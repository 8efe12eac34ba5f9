"""Evaluate recorded runs, from their directories alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from pgkit.config.device import resolve_device
from pgkit.envs.make import Backend
from pgkit.errors import PgkitError, format_value
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy, unfinished_note
from pgkit.runs.directory import as_directory
from pgkit.runs.reader import find_member, saved_members
from pgkit.runs.writer import labels
from pgkit.system.cpu import configure_cpu
from pgkit.system.process_state import isolated_process
from pgkit.training.build_policy import build_policy
from pgkit.training.population import build_evaluation_envs
from pgkit.training.result import evaluation_row, spread
from pgkit.tree import take_tree

MAX_ENVS = 320

BACKENDS = get_args(Backend)


@dataclass(frozen=True)
class EvaluationResult:
    """The result of :func:`evaluate_run`.

    Attributes:
        table: one row for each member: ``seed``, ``return_mean``, ``return_std``, ``length_mean``.
        summary: spread of the members' mean returns: mean, median, 10 % and 90 % quantiles, minimum, maximum.
        note: says that episodes were cut, if some did not end.
    """

    table: list[dict[str, Any]]
    summary: dict[str, float]
    note: str | None = None


def evaluate_run(
    directory: str | Path,
    episodes: int = 100,
    deterministic: bool = False,
    seed: int = 0,
    device: str = "cpu",
    best: bool = False,
    backend: str | None = None,
    member: str | int | None = None,
) -> EvaluationResult:
    """Evaluate each member of a run at its latest checkpoint.

    >>> import pgkit
    >>> config = pgkit.load_config("cartpole-actor-critic", ["steps=2000"])
    >>> result = pgkit.train(config, "runs/example", overwrite=True)  # doctest: +SKIP
    >>> pgkit.evaluate_run("runs/example", episodes=20).summary["mean"]  # doctest: +SKIP

    Args:
        directory: of the run.
        episodes: how many episodes of each member.
        deterministic: whether to take the most likely actions instead of sampled ones.
        seed: 0 repeats the run's final evaluation; others give other initial states and actions.
        device: where to compute.
        best: whether to evaluate each member as it was at its best evaluation during training.
        backend: implementation of the environment, as ``env.backend``; None for the one of the run. "gymnasium" shows
            what agents that were trained in pgkit's own environment do in Gymnasium's.
        member: evaluate only this one, by its seed or its label, such as ``"seed-3"``; None for all.

    Raises:
        PgkitError: there is no such run, it cannot be read, or an argument is wrong.
    """
    place = as_directory(directory)
    if type(episodes) is not int or episodes < 1:
        raise PgkitError(f"episodes must be a whole number of at least 1, got {format_value(episodes)}")
    if type(seed) is not int or seed < 0:
        raise PgkitError(f"seed must be a whole number of at least 0, got {format_value(seed)}")
    if backend is not None and backend not in BACKENDS:
        raise PgkitError(f"backend must be one of {', '.join(BACKENDS)}, or None, got {format_value(backend)}")
    with isolated_process():
        return _evaluate(place, episodes, deterministic, seed, device, best, backend, member)


def _evaluate(
    directory: Path,
    episodes: int,
    deterministic: bool,
    seed: int,
    device: str,
    best: bool,
    backend: str | None,
    member: str | int | None,
) -> EvaluationResult:
    configs, params, obs_stats = saved_members(directory, best)
    if member is not None:
        index = find_member(directory, labels(configs), [config.seed for config in configs], member)
        configs = [configs[index]]
        params, obs_stats = take_tree((params, obs_stats), torch.tensor([index]))
    first = configs[0]
    if backend is not None:
        first = first.model_copy(update={"env": first.env.model_copy(update={"backend": backend})})
    target = resolve_device(device)
    if target.type == "cpu":
        configure_cpu()
    envs = build_evaluation_envs(first, max(episodes, min(len(configs) * episodes, MAX_ENVS)), target)
    try:
        result = evaluate_policy(
            build_policy(first, envs.info),
            {name: leaf.to(target) for name, leaf in params.items()},
            envs,
            [EvalKey(config.seed, seed) for config in configs],
            episodes,
            stream="report",
            deterministic=deterministic,
            obs_stats={k: v.to(target) for k, v in obs_stats.items()} if first.env.normalize_observations else None,
        )
    finally:
        envs.close()
    rows = zip(configs, result.returns, result.lengths, strict=True)
    table = [{"seed": config.seed} | evaluation_row(returns, lengths) for config, returns, lengths in rows]
    summary = spread([row["return_mean"] for row in table])
    return EvaluationResult(table, summary, unfinished_note(result, envs.info))
