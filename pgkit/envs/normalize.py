"""Running mean and variance of observations and returns, each member its own (a shared one would couple members).

Pure functions; the statistics are a dict of tensors with leading axis P, so that members can be taken, put and saved
like parameters. Sums run over one axis of a contiguous ``(P, B, D)``: on CPU a member's numbers are the same bits
for any P.
"""

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.types import Scalar

Stats = dict[str, Tensor]
"""``count (P,)``, ``mean (P, D)`` and ``squares (P, D)``, the sum of squared deviations from the mean; float64."""


def init(members: int, features: int, device: torch.device | str = "cpu") -> Stats:
    """Statistics of nothing: :func:`apply` and :func:`scale` change nothing yet (up to ``epsilon``)."""
    zeros = torch.zeros(members, features, dtype=torch.float64, device=device)
    return {"count": zeros[:, 0].clone(), "mean": zeros, "squares": zeros.clone()}


def update(stats: Stats, x: Tensor, valid: Tensor) -> Stats:
    """Statistics with the samples ``x`` added.

    n = n_a + n_b, d = mean_b - mean_a, mean = mean_a + d n_b / n, S = S_a + S_b + d^2 n_a n_b / n
    (Chan, Golub and LeVeque 1979).

    Args:
        stats: as of :func:`init`.
        x: ``(P, B, D)``, any number of samples of each member.
        valid: ``(P, B)`` bool, samples that count; the others may hold anything, NaN included.
    """
    _check(stats, x)
    if valid.shape != x.shape[:2]:
        raise PgkitError(f"normalize.update: expected valid of shape {tuple(x.shape[:2])}, got {tuple(valid.shape)}")
    valid = valid.unsqueeze(-1)
    x = torch.where(valid, x.double(), 0.0)
    added = valid.sum(1).double()
    mean = x.sum(1) / added.clamp(min=1)
    squares = torch.where(valid, x - mean.unsqueeze(1), 0.0).square().sum(1)
    before = stats["count"].unsqueeze(-1)
    count = before + added
    share = added / count.clamp(min=1)
    difference = mean - stats["mean"]
    return {
        "count": count.squeeze(-1),
        "mean": stats["mean"] + difference * share,
        "squares": stats["squares"] + squares + difference.square() * (before * share),
    }


def apply(stats: Stats, x: Tensor, epsilon: float = 1e-8, limit: float = 10.0) -> Tensor:
    """``(x - mean) / sqrt(variance + epsilon)``, clipped to ``[-limit, limit]``; ``x`` is ``(P, ..., D)``."""
    _check(stats, x)
    shape = (len(x), *[1] * (x.dim() - 2), x.shape[-1])
    mean, scale = stats["mean"].view(shape), (variance(stats) + epsilon).rsqrt().view(shape)
    return ((x - mean) * scale).clamp(-limit, limit).to(x.dtype)


def scale(stats: Stats, reward: Tensor, epsilon: float = 1e-8, limit: float = 10.0) -> Tensor:
    """``reward / sqrt(variance + epsilon)``, clipped; ``reward`` is ``(P, N)``, ``stats`` are of returns (D = 1).

    The mean is not subtracted: that would change which policy is best where episodes may end.
    """
    _check(stats, reward.unsqueeze(-1))
    return (reward * (variance(stats) + epsilon).rsqrt()).clamp(-limit, limit).to(reward.dtype)


def discounted(running: Tensor, reward: Tensor, gamma: Scalar) -> Tensor:
    """``gamma * running + reward``, the return whose variance scales rewards, all ``(P, N)``.

    The caller sets it to 0 where an episode ended, and keeps it where an environment idles.
    """
    if running.dim() != 2 or running.shape != reward.shape:
        raise PgkitError(
            f"normalize.discounted: expected two (P, N), got {tuple(running.shape)}, {tuple(reward.shape)}"
        )
    return running * (gamma.unsqueeze(-1) if isinstance(gamma, Tensor) else gamma) + reward


def variance(stats: Stats) -> Tensor:
    """``(P, D)`` population variance; 1 before there are two samples."""
    count = stats["count"].unsqueeze(-1)
    return torch.where(count < 2, 1.0, stats["squares"] / count.clamp(min=1))


def _check(stats: Stats, x: Tensor) -> None:
    members, features = stats["mean"].shape
    if x.dim() < 3 or x.shape[0] != members or x.shape[-1] != features:
        raise PgkitError(f"normalize: expected samples of shape ({members}, ..., {features}), got {tuple(x.shape)}")
