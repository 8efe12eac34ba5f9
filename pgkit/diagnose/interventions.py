"""What would have helped: the next updates with one thing changed, and other optimizers' steps at an equal size.

An intervention repeats the K updates of :mod:`pgkit.diagnose.post_update` and changes one thing. If P_K(half), the
share of copies that lose half of the return, falls, the thing that was changed took part in it.

>>> as_it_is = Quantity(49 / 64, n=64)
>>> round(share_improvement(as_it_is, Quantity(12 / 64, n=64)).value, 3)
0.578
>>> INTERVENTIONS["rate_div_10"].updates
10
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy import stats as scipy_stats
from torch import Tensor

from pgkit.diagnose.results import Quantity
from pgkit.stats import LEVEL, Estimate

BISECTION_STEPS = 18
"""They find the length of a step within a factor of 1.0001, see :func:`scale_to_kl`."""

SHORTEST, LONGEST = 1e-6, 1e2
"""Between these norms a step is looked for."""


@dataclass(frozen=True)
class Intervention:
    """One thing that is changed for the next updates.

    Attributes:
        change: what is changed, as the subject of a sentence.
        updates: how many updates are made for each of the K as they are.
        batches: how much data they take altogether, in that of the K updates.
        cause: what was wrong if the change helps; None if that says nothing by itself.
        caution: what to keep in mind with its result.
    """

    change: str
    updates: int
    batches: int
    cause: str | None
    caution: str = ""


INTERVENTIONS: Mapping[str, Intervention] = {
    "batch_x8": Intervention("a batch 8 times as large", 1, 8, "the step is too large for the gradient noise"),
    "rate_div_10": Intervention(
        "a tenth of the learning rate, with 10 times as many updates",
        10,
        10,
        "the step is too large for the landscape, not for the noise",
        "at as many updates a small rate always looks safe, so the distance that it may travel is the same",
    ),
    "critic_fitted": Intervention("a critic that was fitted first", 1, 2, "the critic is wrong"),
    "optimizer_reset": Intervention(
        "a fresh state of the optimizer",
        1,
        1,
        "the optimizer's state is stale",
        "the first steps of a fresh optimizer have another length, too: read it beside other optimizers' directions",
    ),
    "lambda_1": Intervention("advantages that do not bootstrap (lambda 1)", 1, 1, None),
}
"""By the names of ``results.QUANTITIES``; ``cause`` is what section "verdicts" of the README says."""


def share_improvement(as_it_is: Quantity, changed: Quantity) -> Quantity:
    """Return P_K(half) as it is minus that with one thing changed, with Newcombe's interval; above 0 it helped.

    The copies count as independent. Copy i of both has the same random numbers, so where the change is small the
    interval is too wide rather than too narrow. One of both may have fewer. Missing if a share is.

    An example is in the module's notes.

    Args:
        as_it_is: share of its ``n`` copies.
        changed: share of its ``n`` copies.
    """
    for name, share in (("as it is", as_it_is), ("with the change", changed)):
        if math.isnan(share.value):
            return Quantity.missing(f"P(half) {name}: {share.reason}")
    counts = [round(share.value * share.n) for share in (as_it_is, changed)]
    difference = newcombe_difference(counts[0], as_it_is.n, counts[1], changed.n)
    return Quantity(*difference, min(as_it_is.n, changed.n))


def newcombe_difference(count: int, n: int, other_count: int, m: int, level: float = LEVEL) -> Estimate:
    """Return the difference of two independent shares, ``count/n - other_count/m``, with Newcombe's interval.

    ``d - sqrt((p - l)^2 + (u' - p')^2)`` and ``d + sqrt((u - p)^2 + (p' - l')^2)``, from Wilson's intervals [l, u] of p
    and [l', u'] of p' (Newcombe 1998, Statistics in Medicine 17, 873-890, method 10).

    >>> tuple(round(number, 4) for number in newcombe_difference(56, 70, 48, 80))
    (0.2, 0.0524, 0.3339)

    Args:
        count: how many of the first.
        n: how many there are, at least 1.
        other_count: how many of the second.
        m: how many there are, at least 1.
        level: confidence level in (0, 1).

    Raises:
        ValueError: a count is not in 0 ... n, or n is 0.
    """
    shares = []
    for successes, size in ((count, n), (other_count, m)):
        if not 0 <= successes <= size or size == 0:
            raise ValueError(f"expected a count in 0 ... n with n >= 1, got {successes} of {size}")
        interval = scipy_stats.binomtest(successes, size).proportion_ci(level, method="wilson")
        shares.append((successes / size, float(interval.low), float(interval.high)))
    (p, low, high), (q, other_low, other_high) = shares
    difference = p - q
    down, up = math.hypot(p - low, other_high - q), math.hypot(high - p, q - other_low)
    return Estimate(difference, difference - down, difference + up)


def scale_to_norm(directions: Tensor, norm: float) -> Tensor:
    """Return the factors that give each direction a norm; NaN where it is 0.

    >>> scale_to_norm(torch.tensor([[3.0, 4.0]]), 10.0)
    tensor([2.], dtype=torch.float64)

    Args:
        directions: ``(M, D)``.
        norm: above 0.

    Returns:
        ``(M,)`` float64.
    """
    lengths = _lengths(directions)
    return torch.where(lengths > 0, norm / lengths, torch.nan)


def scale_to_kl(
    directions: Tensor, kl: Callable[[Tensor], Tensor], target: float, steps: int = BISECTION_STEPS
) -> Tensor:
    """Find the factors at which each direction moves the policy by a KL divergence, by bisection of log |step|.

    The step's norm is looked for between 1e-6 and 1e2, so that 18 steps find it within a factor of 1.0001. A KL that is
    not finite counts as too large. The KL should grow with the step; if it does not, some crossing of the target is
    found. The factor is NaN where the direction is 0 or the KL crosses the target nowhere between these norms: a
    saturated policy may never get there.

    >>> directions = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> factors = scale_to_kl(directions, lambda scale: scale**2 * (directions**2).sum(1) / 2, target=0.02)
    >>> [round(factor, 3) for factor in factors.tolist()]
    [0.2, 0.1]

    Args:
        directions: ``(M, D)``.
        kl: takes factors ``(M,)`` float64 and returns ``(M,)``: KL(policy || policy moved by factor x direction).
        target: above 0, in nats.
        steps: at least 1; each evaluates ``kl`` once, and the ends of the bracket take two evaluations more.

    Returns:
        ``(M,)`` float64.
    """
    units = scale_to_norm(directions, 1.0)
    low, high = (torch.full_like(units, math.log(norm)) for norm in (SHORTEST, LONGEST))
    is_below = _below(kl, low.exp() * units, target)
    is_above = ~_below(kl, high.exp() * units, target)
    for _ in range(steps):
        middle = (low + high) / 2
        too_short = _below(kl, middle.exp() * units, target)
        low = torch.where(too_short, middle, low)
        high = torch.where(too_short, high, middle)
    return torch.where(is_below & is_above, ((low + high) / 2).exp() * units, torch.nan)


def _below(kl: Callable[[Tensor], Tensor], factors: Tensor, target: float) -> Tensor:
    return kl(factors).to(factors.dtype) < target  # False for NaN


def _lengths(directions: Tensor) -> Tensor:
    """Return norms ``(M,)`` in float64.

    Raises:
        ValueError: not ``(M, D)``.
    """
    if directions.dim() != 2:
        raise ValueError(f"directions must have shape (M, D), got {tuple(directions.shape)}")
    return directions.double().norm(dim=1)
