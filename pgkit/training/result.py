"""What a training returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgkit.rollouts.evaluate import Episodes
from pgkit.training.evaluator import Evaluation
from pgkit.training.population import Population
from pgkit.types import Params


@dataclass(frozen=True)
class TrainResult:
    """What came out.

    Attributes:
        table: one row for each member, in the order of the configurations: seed, status, steps, final evaluation.
        evaluations: those while training, member by member, in the order in which they were played.
        final: the episodes of the final evaluation, returns and lengths ``(P, E)``.
        params: leaves ``(P, ...)``, in the same order.
        obs_stats: of the observation normaliser, leaves ``(P, ...)``.
        parts: the members as they left the population, with optimizer states and all; none of other processes.
        directory: where the run is recorded, if it is.
        reasons: for each member that failed, by its position, the first number that was not finite.
        wall_seconds: from the first rollout to the last update, evaluations included.
    """

    table: list[dict[str, Any]]
    evaluations: list[Evaluation]
    final: Episodes
    params: Params
    obs_stats: dict[str, Tensor]
    parts: list[Population]
    directory: Path | None
    reasons: dict[int, str]
    wall_seconds: float

    @property
    def summary(self) -> dict[str, float]:
        """Spread over members of the final mean return, failed ones included."""
        return spread([row["return_mean"] for row in self.table])


def spread(returns: Sequence[float]) -> dict[str, float]:
    """Mean, median, 10 % and 90 % quantiles (linear interpolation), minimum and maximum."""
    numbers = torch.tensor(returns, dtype=torch.float64)
    quantiles = numbers.quantile(torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64)).tolist()
    named = dict(zip(("median", "p10", "p90"), quantiles, strict=True))
    return {"mean": numbers.mean().item(), **named, "min": numbers.min().item(), "max": numbers.max().item()}


def evaluation_row(returns: Tensor, lengths: Tensor) -> dict[str, float]:
    """Mean and (sample) standard deviation of the returns ``(E,)``, and the mean length."""
    std = returns.std().item() if len(returns) > 1 else 0.0
    return {"return_mean": returns.mean().item(), "return_std": std, "length_mean": lengths.double().mean().item()}
