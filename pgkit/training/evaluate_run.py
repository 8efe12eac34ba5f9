"""Runs that were recorded: their agents loaded and evaluated again, from the directory alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgkit.config.device import resolve_device
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.runs.reader import saved_members
from pgkit.system.cpu import configure_cpu
from pgkit.training.population import build_envs, build_policy
from pgkit.training.result import evaluation_row, spread


@dataclass(frozen=True)
class EvaluationResult:
    """One row for each member, and the spread over members of their mean returns."""

    table: list[dict[str, Any]]
    summary: dict[str, float]


def evaluate_run(
    directory: Path | str,
    episodes: int = 100,
    deterministic: bool = False,
    seed: int = 0,
    device: str = "cpu",
    best: bool = False,
) -> EvaluationResult:
    """Play the latest checkpoint of a run.

    Args:
        directory: of the run.
        episodes: of each member.
        deterministic: most likely actions instead of sampled ones.
        seed: 0 repeats the run's own final evaluation; others give other starts and actions.
        device: where to compute.
        best: play each member as it was at its best evaluation while training.

    Raises:
        PgkitError: no run there, or none that can be read.
    """
    configs, params, obs_stats = saved_members(Path(directory), best)
    first, where = configs[0], resolve_device(device)
    if where.type == "cpu":
        configure_cpu()
    envs = build_envs(first, max(episodes, min(len(configs) * episodes, 320)), where)
    try:
        played = evaluate_policy(
            build_policy(first, envs.info),
            {name: leaf.to(where) for name, leaf in params.items()},
            envs,
            [EvalKey(config.seed, seed) for config in configs],
            episodes,
            stream="report",
            deterministic=deterministic,
            obs_stats={k: v.to(where) for k, v in obs_stats.items()} if first.env.normalize_observations else None,
        )
    finally:
        envs.close()
    rows = zip(configs, played.returns, played.lengths, strict=True)
    table = [{"seed": config.seed} | evaluation_row(returns, lengths) for config, returns, lengths in rows]
    return EvaluationResult(table, spread([row["return_mean"] for row in table]))
