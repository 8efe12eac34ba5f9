"""Differences of shares against published intervals, and steps of equal size against closed forms."""

import math
import re

import pytest
import torch

from pgkit.diagnose.interventions import (
    INTERVENTIONS,
    newcombe_difference,
    scale_to_kl,
    scale_to_norm,
    share_improvement,
)
from pgkit.diagnose.results import Quantity


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),  # Newcombe 1998, table II, method 10
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((6, 7, 2, 7), (0.0582, 0.8062)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 20), (-0.1611, 0.2775)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
        ((10, 10, 0, 20), (0.6791, 1.0)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_newcombes_intervals_are_the_published_ones(counts, expected):
    difference = newcombe_difference(*counts)
    assert difference.value == pytest.approx(counts[0] / counts[1] - counts[2] / counts[3])
    assert difference[1:] == pytest.approx(expected, abs=6e-5)


def test_exchanging_the_shares_mirrors_the_interval():
    forth, back = newcombe_difference(5, 12, 3, 40), newcombe_difference(3, 40, 5, 12)
    assert forth == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize("counts", [(3, 2, 1, 2), (1, 2, -1, 2), (0, 0, 1, 2)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="count"):
        newcombe_difference(*counts)


def test_the_improvement_is_positive_where_the_change_helps():
    as_it_is, fitted = Quantity(49 / 64, n=64), Quantity(6 / 32, n=32)
    improvement = share_improvement(as_it_is, fitted)
    assert improvement[:3] == newcombe_difference(49, 64, 6, 32)
    assert improvement.low > 0
    assert improvement.n == 32


def test_there_is_no_improvement_without_both_shares():
    share = Quantity(0.5, n=64)
    missing = Quantity.missing("not played")
    assert "with the change: not played" in str(share_improvement(share, missing).reason)
    assert "as it is: not played" in str(share_improvement(missing, share).reason)


def test_every_cause_belongs_to_one_intervention():
    causes = [each.cause for each in INTERVENTIONS.values() if each.cause is not None]
    assert len(causes) == len(set(causes)) == 4
    assert [INTERVENTIONS[name].updates for name in ("rate_div_10", "batch_x8")] == [10, 1]


def test_directions_get_a_norm():
    directions = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1e-30]])
    factors = scale_to_norm(directions, 2.0)
    assert (factors[:, None] * directions.double()).norm(dim=1)[[0, 2]].tolist() == pytest.approx([2, 2])
    assert math.isnan(factors[1])


def test_directions_get_a_kl():
    fisher = torch.diag(torch.tensor([0.25, 0.125], dtype=torch.float64))
    directions = torch.tensor([[1.0, 2.0], [-50.0, 0.0], [1e-4, 1e-4], [0.0, 0.0]])

    def kl(factors):
        steps = factors[:, None] * directions.double()
        return ((steps @ fisher) * steps).sum(1) / 2

    factors = scale_to_kl(directions, kl, 0.02)
    assert kl(factors)[:3].tolist() == pytest.approx([0.02] * 3, rel=3e-4)
    assert (factors[:3] > 0).all()
    assert math.isnan(factors[3])


def test_a_kl_out_of_reach_is_not_a_number():
    directions = torch.ones(3, 2)
    limit = torch.tensor([0.01, 1.0, 1.0])

    def kl(factors):
        return torch.where(torch.tensor([True, True, False]), limit * torch.tanh(factors), torch.nan)

    factors = scale_to_kl(directions, kl, 0.02)
    assert [math.isnan(factor) for factor in factors] == [True, False, True]
    assert float(torch.tanh(factors[1])) == pytest.approx(0.02, rel=3e-4)


def test_an_overflowing_kl_counts_as_too_large():
    directions = torch.ones(1, 1)
    factors = scale_to_kl(directions, lambda scale: torch.where(scale < 0.3, scale, torch.nan), 0.1)
    assert float(factors) == pytest.approx(0.1, rel=3e-4)


def test_the_number_of_evaluations_is_the_promised_one():
    calls = []

    def kl(factors):
        calls.append(factors)
        return factors

    scale_to_kl(torch.ones(2, 1), kl, 0.1, steps=18)
    assert len(calls) == 20


def test_directions_need_two_axes():
    with pytest.raises(ValueError, match=re.escape("(M, D)")):
        scale_to_norm(torch.ones(3), 1.0)
