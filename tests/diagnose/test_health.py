"""Health of policies and networks: the reference of the specification, extremes, and real networks."""

import math

import numpy as np
import pytest
import torch

from pgkit.diagnose.health import churn, health, policy_health, unit_health, weight_health
from pgkit.nn import categorical
from pgkit.nn.network import LayerNormMLP
from pgkit.nn.policy import Policy

EXAMPLE = np.array([[1.0, 0.0, 0.5, 0.0], [1.0, 0.0, -0.5, 0.01]] * 2)
POLICY = Policy(obs_dim=3, head=categorical(2), hidden=(8, 8))
OBS = torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("dormant", 0.5),
        ("constant", 0.75),
        ("saturated", 0.25),
        ("sign_balance", 0.666667),
        ("srank", 2),
        ("feature_rank", 2),
        ("effective_rank", 1.889892),
        ("flat", 0.25),
    ],
)
def test_four_states_by_hand(measure: str, expected: float) -> None:
    assert unit_health(EXAMPLE)[measure].value == pytest.approx(expected, abs=1e-6)


def test_the_singular_values_of_the_example() -> None:
    assert np.linalg.svd(EXAMPLE, compute_uv=False)[:2] == pytest.approx([2.000025, 1.000050], abs=1e-6)


def test_sign_balance_is_the_expected_share_of_signs_that_differ_in_two_states() -> None:
    h = np.random.default_rng(0).normal(0.4, 1, (30, 7))
    pairs = [np.mean((h[i] > 0) != (h[j] > 0)) for i in range(30) for j in range(i)]
    assert unit_health(h)["sign_balance"].value == pytest.approx(2 * np.mean(pairs))


def test_tanh_units_that_saturate_are_flat_but_never_dormant() -> None:
    saturated = unit_health(np.ones((10, 4)))
    assert saturated["dormant"].value == 0
    assert saturated["flat"].value == saturated["saturated"].value == saturated["constant"].value == 1
    assert saturated["srank"].value == 1


def test_other_activations_do_not_saturate_at_1() -> None:
    assert "saturated" not in unit_health(EXAMPLE, "relu")
    assert "flat" not in unit_health(EXAMPLE, "relu")


def test_units_that_are_all_zero_have_no_rank() -> None:
    nothing = unit_health(np.zeros((5, 3)))
    assert nothing["srank"].value == nothing["feature_rank"].value == 0
    assert nothing["dormant"].value == 1


@pytest.mark.parametrize("units", [np.full((4, 2), np.nan), np.zeros((1, 2))])
def test_what_cannot_be_measured_says_why(units: np.ndarray) -> None:
    measured = unit_health(units)
    assert all(math.isnan(quantity.value) and quantity.reason for quantity in measured.values())


def test_a_uniform_policy_has_all_its_entropy_and_a_certain_one_none() -> None:
    params = {name: torch.zeros_like(leaf) for name, leaf in POLICY.init([0]).items()}
    uniform = policy_health(POLICY, params, OBS)
    assert uniform["entropy"].value == pytest.approx(1)
    assert uniform["certain"].value == uniform["gap"].value == 0
    params["actor.2.bias"][..., 0] = 20.0
    certain = policy_health(POLICY, params, OBS)
    assert certain["entropy"].value == pytest.approx(0, abs=1e-6)
    assert certain["certain"].value == 1
    assert certain["gap"].value == pytest.approx(20)


def test_the_interval_of_the_entropy_is_over_states() -> None:
    params = POLICY.init([0])
    params["actor.2.weight"] *= 300  # entropies that differ between states
    entropy = policy_health(POLICY, params, OBS)["entropy"]
    assert entropy.low < entropy.value < entropy.high
    assert entropy.n == 64


def test_weights_are_compared_with_the_initial_ones() -> None:
    params = POLICY.init([0])
    grown = {name: 3 * leaf for name, leaf in params.items()}
    assert weight_health(grown, "actor", params)["weight_norm"].value == pytest.approx(3)
    largest = max(float(torch.linalg.svdvals(grown[f"actor.{k}.weight"][0])[0]) for k in range(3))
    assert weight_health(grown, "actor")["largest_singular"].value == pytest.approx(largest, rel=1e-6)


def test_both_networks_are_looked_at_and_a_trunk_once() -> None:
    apart = health(POLICY, POLICY.init([0]), OBS)
    assert {name.split("/")[0] for name in apart} == {"policy", "actor", "critic"}
    shared = Policy(obs_dim=3, head=categorical(2), hidden=(8,), shared=True)
    names = health(shared, shared.init([0]), OBS)
    assert "trunk/srank" in names
    assert "actor/srank" not in names
    assert "actor/weight_norm" in names


def test_the_last_hidden_layer_is_what_its_weights_make_of_it() -> None:
    params = POLICY.init([0])
    h = OBS[0]
    for layer in range(2):
        h = torch.tanh(h @ params[f"actor.{layer}.weight"][0] + params[f"actor.{layer}.bias"][0])
    expected = unit_health(h.numpy())
    measured = health(POLICY, params, OBS)
    for name in ("srank", "constant", "sign_balance", "dormant"):
        assert measured[f"actor/{name}"].value == pytest.approx(expected[name].value), name


def test_networks_in_front_are_left_out_without_an_error() -> None:
    front = Policy(3, categorical(2), (8,), network=LayerNormMLP(3, (8,), "tanh", (1.0,)))
    measured = health(front, front.init([0]), OBS)
    assert measured["policy/entropy"].value > 0
    assert "actor/srank" not in measured


def test_churn_is_0_without_an_update_and_counts_changed_choices() -> None:
    params = POLICY.init([0])
    before = {name: leaf.expand(2, *leaf.shape[1:]).clone() for name, leaf in params.items()}
    after = {name: leaf.clone() for name, leaf in before.items()}
    still = churn(POLICY, before, after, OBS)
    assert still["kl"].value == pytest.approx(0, abs=1e-9)
    assert still["changed"].value == 0
    after["actor.2.weight"][1] *= -1  # the second copy prefers the other action in every state
    turned = churn(POLICY, before, after, OBS)
    assert turned["kl"].value > 0
    assert turned["changed"].value == pytest.approx(0.5)
    assert turned["kl"].n == 2
