"""Running mean and variance of observations and returns, separately for each member of a population.

Pure functions on a dict of tensors with leading axis P, so that members can be taken, put and saved like parameters.
Sums run over one axis of a contiguous ``(P, B, D)`` tensor: on CPU, a member's statistics have the same bits for any P.

Example:
    >>> import torch
    >>> from pgkit.envs import normalize
    >>> obs = torch.tensor([[[1.0], [3.0]]])  # one member, two samples, one feature
    >>> stats = normalize.update(normalize.init(1, 1), obs, valid=torch.ones(1, 2, dtype=torch.bool))
    >>> stats["mean"].item(), normalize.variance(stats).item()
    (2.0, 1.0)
    >>> normalize.apply(stats, obs).flatten()
    tensor([-1.,  1.])
"""

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.types import Scalar

Stats = dict[str, Tensor]
"""``count (P,)``, ``mean (P, D)`` and ``squares (P, D)``, the sum of squared deviations from the mean; all float64."""


def init(members: int, features: int, device: torch.device | str = "cpu") -> Stats:
    """Statistics of no samples: mean 0, variance 1.

    Args:
        members: P.
        features: D.
        device: device of the statistics.
    """
    zeros = torch.zeros(members, features, dtype=torch.float64, device=device)
    return {"count": zeros[:, 0].clone(), "mean": zeros, "squares": zeros.clone()}


def update(stats: Stats, x: Tensor, valid: Tensor) -> Stats:
    """Add samples to the statistics.

    Two sets a and b are merged as in Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
    computing sample variances": with d = mean_b - mean_a,
    n = n_a + n_b, mean = mean_a + d n_b / n, squares = squares_a + squares_b + d^2 n_a n_b / n.

    Args:
        stats: the statistics so far.
        x: ``(P, B, D)``, B samples of each member.
        valid: ``(P, B)`` bool; samples where it is False are ignored and may hold anything, NaN included.

    Raises:
        PgkitError: the shapes do not match.
    """
    _check_samples(stats, x)
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
    """Normalize observations: ``(x - mean) / sqrt(variance + epsilon)``, clipped to ``[-limit, limit]``.

    Args:
        stats: statistics of observations.
        x: ``(P, ..., D)`` with at least three axes.
        epsilon: added to the variance.
        limit: bound of the result.
    """
    _check_samples(stats, x)
    shape = (len(x), *[1] * (x.dim() - 2), x.shape[-1])
    mean = stats["mean"].view(shape)
    factor = (variance(stats) + epsilon).rsqrt().view(shape)
    return ((x - mean) * factor).clamp(-limit, limit).to(x.dtype)


def apply_to_features(stats: Stats, obs: Tensor) -> Tensor:
    """:func:`apply` to the first D columns of observations ``(P, ..., D + M)``; M more, an action mask, stay."""
    features = stats["mean"].shape[1]
    if obs.shape[-1] == features:
        return apply(stats, obs)
    return torch.cat([apply(stats, obs[..., :features]), obs[..., features:]], -1)


def scale(stats: Stats, reward: Tensor, epsilon: float = 1e-8, limit: float = 10.0) -> Tensor:
    """Scale rewards: ``reward / sqrt(variance + epsilon)``, clipped to ``[-limit, limit]``.

    The mean is not subtracted, because that would change which policy is best in tasks whose episodes may end.

    Args:
        stats: statistics of discounted returns, D = 1.
        reward: ``(P, B)``.
        epsilon: added to the variance.
        limit: bound of the result.
    """
    _check_samples(stats, reward.unsqueeze(-1))
    return (reward * (variance(stats) + epsilon).rsqrt()).clamp(-limit, limit).to(reward.dtype)


def discounted(running: Tensor, reward: Tensor, gamma: Scalar) -> Tensor:
    """The running return ``gamma * running + reward``, whose variance scales rewards.

    The caller sets it to 0 where an episode ended, and keeps it where an environment idles.

    Args:
        running: ``(P, N)``, the return before this step.
        reward: ``(P, N)``.
        gamma: discount, a float or ``(P,)``.
    """
    if running.dim() != 2 or running.shape != reward.shape:
        raise PgkitError(
            f"normalize.discounted: expected two tensors (P, N), got {tuple(running.shape)} and {tuple(reward.shape)}"
        )
    return running * (gamma.unsqueeze(-1) if isinstance(gamma, Tensor) else gamma) + reward


def variance(stats: Stats) -> Tensor:
    """``(P, D)``, the population variance; 1 as long as there are fewer than two samples."""
    count = stats["count"].unsqueeze(-1)
    return torch.where(count < 2, 1.0, stats["squares"] / count.clamp(min=1))


def _check_samples(stats: Stats, x: Tensor) -> None:
    members, features = stats["mean"].shape
    if x.dim() < 3 or x.shape[0] != members or x.shape[-1] != features:
        raise PgkitError(f"normalize: expected samples of shape ({members}, ..., {features}), got {tuple(x.shape)}")
