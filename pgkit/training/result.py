"""What a training returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgkit.rollouts.evaluate import Episodes
from pgkit.training.evaluator import Evaluation
from pgkit.types import Params


@dataclass(frozen=True)
class TrainResult:
    """The result of :func:`pgkit.train`: plain data and tensors, so it can be copied and pickled.

    >>> import pgkit
    >>> result = pgkit.train(pgkit.load_config("cartpole-actor-critic", ["steps=2000", "seeds=2"]))
    >>> [row["seed"] for row in result.table]
    [0, 1]

    Attributes:
        table: one row for each member, in the order of the configurations: ``seed``, ``failed``, ``env_steps`` and the
            final evaluation, ``return_mean``, ``return_std`` and ``length_mean``.
        evaluations: the evaluations during training, member by member, in the order of their steps.
        final: the episodes of the final evaluation: returns and lengths, ``(P, E)`` each.
        params: the final parameters, at which policies are evaluated, leaves ``(P, ...)``, members in the same order.
        obs_stats: statistics of the observation normalizer, leaves ``(P, ...)``.
        parts: the members that left training together, with optimizer states: what
            :meth:`pgkit.training.population.Population.state` returns, as in checkpoints. ``"members"`` are positions
            in the table.
        directory: of the recorded run, or None.
        reasons: for each member that failed, by its position, the first number that was not finite.
        wall_seconds: time from the first rollout to the last update, evaluations included.
        stopped: for each member that a callback has stopped, by its position, the reason.
    """

    table: list[dict[str, Any]]
    evaluations: list[Evaluation]
    final: Episodes
    params: Params
    obs_stats: dict[str, Tensor]
    parts: list[dict[str, Any]]
    directory: Path | None
    reasons: dict[int, str]
    wall_seconds: float
    stopped: dict[int, str] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, float]:
        """Spread of the members' final mean returns, failed members included: see :func:`spread`."""
        return spread([row["return_mean"] for row in self.table])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table."""
        import pandas as pd

        return pd.DataFrame(self.table).to_html(index=False, float_format="{:.1f}".format)


def spread(returns: Sequence[float]) -> dict[str, float]:
    """Mean, median, 10 % and 90 % quantiles (linear interpolation), minimum and maximum."""
    numbers = torch.tensor(returns, dtype=torch.float64)
    quantiles = numbers.quantile(torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64)).tolist()
    named = dict(zip(("median", "p10", "p90"), quantiles, strict=True))
    return {"mean": numbers.mean().item(), **named, "min": numbers.min().item(), "max": numbers.max().item()}


def evaluation_row(returns: Tensor, lengths: Tensor) -> dict[str, float]:
    """Mean and sample standard deviation of the returns ``(E,)``, and the mean length."""
    std = returns.std().item() if len(returns) > 1 else 0.0
    return {"return_mean": returns.mean().item(), "return_std": std, "length_mean": lengths.double().mean().item()}


def join_results(results: Sequence[TrainResult], offsets: Sequence[int]) -> TrainResult:
    """Join the results of workers, whose first members have these positions in the run."""
    pairs = list(zip(results, offsets, strict=False))
    first = results[0]
    return TrainResult(
        table=[row for result in results for row in result.table],
        evaluations=[e._replace(member=e.member + offset) for result, offset in pairs for e in result.evaluations],
        final=Episodes(*(torch.cat(leaves) for leaves in zip(*(result.final for result in results), strict=True))),
        params={name: torch.cat([result.params[name] for result in results]) for name in first.params},
        obs_stats={name: torch.cat([result.obs_stats[name] for result in results]) for name in first.obs_stats},
        parts=[part | {"members": part["members"] + offset} for result, offset in pairs for part in result.parts],
        directory=first.directory,
        reasons={member + offset: text for result, offset in pairs for member, text in result.reasons.items()},
        wall_seconds=max(result.wall_seconds for result in results),
        stopped={member + offset: text for result, offset in pairs for member, text in sorted(result.stopped.items())},
    )
