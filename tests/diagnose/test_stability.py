"""Thresholds of optimizers, against the optimizers themselves."""

from typing import Any

import pytest
import torch
from helpers.curvature_oracles import enumerated, two_locks

from pgkit.diagnose.curvature import return_hessian
from pgkit.diagnose.lanczos import lanczos
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.stability import (
    linear_rule,
    loss_curvature,
    precondition,
    preconditioned,
    root_radius,
    sharpness_ratio,
)
from pgkit.errors import PgkitError
from pgkit.optim import apply_updates, make

LR = 0.01
RULES: list[tuple[str, dict[str, Any], float]] = [
    ("sgd", {}, 2.0),
    ("momentum", {}, 3.8),
    ("momentum", {"dampening": 0.9}, 38.0),
    ("nesterov", {}, 3.8 / 2.8),
    ("rmsprop", {}, 2.0),
    ("rmsprop", {"momentum": 0.9}, 3.8),
    ("adam", {}, 38.0),
    ("adamw", {"beta1": 0.5}, 6.0),
    ("amsgrad", {"beta1": 0.0}, 2.0),
]


@pytest.mark.parametrize(("name", "settings", "multiple"), RULES)
def test_the_radius_passes_1_at_the_threshold(name: str, settings: dict[str, Any], multiple: float) -> None:
    rule = linear_rule(name, {"lr": LR, **settings})
    assert rule.threshold == pytest.approx(multiple / LR)
    assert root_radius(rule, 0.999 * rule.threshold) < 1
    assert root_radius(rule, 1.001 * rule.threshold) > 1


def test_nesterov_is_1_357() -> None:
    assert linear_rule("nesterov", {"lr": 1.0}).threshold == pytest.approx(1.357, abs=5e-4)


@pytest.mark.parametrize(("name", "settings", "multiple"), RULES[:4])
@pytest.mark.parametrize("share", [0.98, 1.02])
def test_optimizers_diverge_above_their_threshold(
    name: str, settings: dict[str, Any], multiple: float, share: float
) -> None:
    """On a quadratic of that curvature, pgkit's optimizer grows or shrinks by the root radius per step."""
    sharpness = share * multiple / LR
    optimizer = make(name, lr=LR, **settings)
    params = {"p": torch.ones(1, 1, dtype=torch.float64)}
    state = optimizer.init(params)
    sizes = []
    for _ in range(1200):
        updates, state = optimizer.update({"p": sharpness * params["p"]}, state, params)
        params = apply_updates(params, updates)
        sizes.append(float(params["p"].abs()))
    growth = (max(sizes[-100:]) / max(sizes[400:500])) ** (1 / 700)
    assert (growth > 1) == (share > 1)
    radius = root_radius(linear_rule(name, {"lr": LR, **settings}), sharpness)
    assert growth == pytest.approx(radius, abs=1e-3)


def test_optimizers_without_a_known_threshold_are_refused() -> None:
    with pytest.raises(PgkitError, match="no threshold of stability is known for optimizer 'lion'"):
        linear_rule("lion", {})
    with pytest.raises(PgkitError, match="unknown optimizer"):
        linear_rule("adem", {})


def test_units_of_the_loss() -> None:
    """J curves down by 100; rewards / 10, episodes of 50 steps, a gradient clipped to half: 100 * .1 / 50 / 2."""
    sharpness = loss_curvature(Quantity(-100.0, -120.0, -80.0, 9), 0.1, 50.0, 0.5)
    assert sharpness[:4] == pytest.approx((0.1, 0.08, 0.12, 9))
    ratio = sharpness_ratio(sharpness, linear_rule("sgd", {"lr": 10.0}))
    assert ratio[:4] == pytest.approx((0.5, 0.4, 0.6, 9))


def test_preconditioned_sharpness() -> None:
    """Of the two locks, with second moments that differ: D^-1/2 H D^-1/2 written out."""
    task = two_locks((0.5, -1.0))
    product = return_hessian(task.policy, task.params, enumerated(task))
    second_moment = torch.arange(1.0, 7.0, dtype=torch.float64) ** 2
    apply = preconditioned(product, second_moment, eps=0.5)
    dense = torch.stack([product(axis) for axis in torch.eye(6, dtype=torch.float64)])
    root = (torch.arange(1.0, 7.0, dtype=torch.float64) + 0.5) ** -0.5
    scaled = root[:, None] * dense * root
    pairs = lanczos(apply, torch.ones(6, dtype=torch.float64) + torch.arange(6), steps=6)
    exact = torch.linalg.eigvalsh((scaled + scaled.T) / 2)
    assert pairs.values[[0, -1]].tolist() == pytest.approx(exact[[0, -1]].tolist(), abs=1e-5)
    assert exact[-1] > 0.01
    v = pairs.vectors[-1]
    moved = precondition(v, second_moment, eps=0.5)
    assert float(moved @ product(moved)) == pytest.approx(float(v @ apply(v)))
