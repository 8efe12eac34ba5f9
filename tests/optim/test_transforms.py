"""Schedules, and what any optimizer can have around it: clipping, decay, centralisation, lookahead, resets."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim import Optimizer, apply_updates, diagnostics, from_config, make, measure
from pgkit.types import Params

MEMBERS = 3
SHAPES = {"actor.0.weight": (4, 5), "actor.0.bias": (1, 5), "critic.0.weight": (4, 1)}


def tree(seed: int, scale: float = 1.0) -> Params:
    random = torch.Generator().manual_seed(seed)
    draws = {
        name: torch.randn(MEMBERS, *shape, generator=random, dtype=torch.float64) for name, shape in SHAPES.items()
    }
    return {name: leaf * scale for name, leaf in draws.items()}


def first_update(optimizer: Optimizer, grads: Params, params: Params | None = None) -> Params:
    params = tree(0) if params is None else params
    return optimizer.update(grads, optimizer.init(params), params)[0]


def path(optimizer: Optimizer, steps: int, **arguments: Callable[[int], Tensor]) -> list[Params]:
    """Return the parameters after each step, with gradients tree(1), tree(2), ..."""
    params, visited = tree(0), []
    state = optimizer.init(params)
    for step in range(steps):
        extra_args = {name: argument(step) for name, argument in arguments.items()}
        updates, state = optimizer.update(tree(step + 1), state, params, **extra_args)
        params = apply_updates(params, updates)
        visited.append({name: leaf.clone() for name, leaf in params.items()})
    return visited


def assert_same(first: Params, second: Params) -> None:
    for name, leaf in first.items():
        torch.testing.assert_close(leaf, second[name], rtol=1e-12, atol=1e-14)


def lr_at(schedule: Any, progress: float, lr: float = 0.8) -> float:
    optimizer, params = (
        from_config([{"name": "sgd", "lr": lr, "schedule": {"lr": schedule}}]),
        {"w": torch.zeros(1, 1)},
    )
    signal = torch.tensor([progress], dtype=torch.float64)
    _, state = optimizer.update({"w": torch.ones(1, 1)}, optimizer.init(params), params, progress=signal)
    return diagnostics(state)["lr"].item()


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("constant", 0.7, 0.8),
        ("linear", 0.25, 0.6),
        ({"kind": "linear", "end": 0.4}, 0.5, 0.6),
        ("cosine", 0.5, 0.4),
        ({"kind": "cosine", "end": 0.2}, 0.25, 0.2 + 0.6 * (1 + math.cos(math.pi / 4)) / 2),
        ({"kind": "exponential", "end": 0.008}, 0.5, 0.08),
        ({"kind": "step", "factor": 0.5, "every": 0.25}, 0.6, 0.2),
        ({"kind": "warmup", "warmup": 0.2}, 0.05, 0.2),
        ({"kind": "warmup", "warmup": 0.2}, 0.5, 0.8),
        ({"kind": "linear", "warmup": 0.5}, 0.25, 0.4),
        ({"kind": "linear", "warmup": 0.5}, 0.75, 0.4),
        ("linear", 1.0, 0.0),
    ],
)
def test_schedules(schedule: Any, progress: float, expected: float) -> None:
    assert lr_at(schedule, progress) == pytest.approx(expected, rel=1e-12)


def test_any_hyperparameter_may_have_a_schedule_that_differs_between_members() -> None:
    tables = [
        {"name": "adam", "schedule": {"beta1": {"kind": "linear", "end": end}, "eps": "cosine"}}
        for end in (0.1, 0.5, 0.7)
    ]
    optimizer, params = from_config(tables), tree(0)
    progress = torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    _, state = optimizer.update(tree(1), optimizer.init(params), params, progress=progress)
    values = diagnostics(state)
    assert values["beta1"].tolist() == pytest.approx([0.5, 0.7, 0.7])
    assert values["eps"].tolist() == pytest.approx([5e-9, 5e-9, 0.0], abs=1e-24)
    assert values["beta2"].tolist() == [0.999] * 3


def test_the_kl_schedule_rises_and_falls_within_its_bounds() -> None:
    table = {"kind": "kl", "target": 0.01, "factor": 2.0, "least": 0.05, "most": 0.4}
    optimizer, params = (
        from_config([{"name": "sgd", "lr": 0.2, "schedule": {"lr": table}}] * 5),
        {"w": torch.ones(5, 1)},
    )
    state = optimizer.init(params)
    kl = torch.tensor([math.nan, 0.001, 0.01, 0.03, 0.0])
    rates = []
    for _ in range(3):
        _, state = optimizer.update({"w": torch.ones(5, 1)}, state, params, kl=kl)
        rates.append(diagnostics(state)["lr"].tolist())
    assert rates == [[0.2, 0.4, 0.2, 0.1, 0.4], [0.2, 0.4, 0.2, 0.05, 0.4], [0.2, 0.4, 0.2, 0.05, 0.4]]


def test_a_missing_or_misshapen_extra_argument_is_refused() -> None:
    optimizer, params = make("sgd", schedule={"lr": "linear"}), {"w": torch.ones(2, 1)}
    assert optimizer.requires == {"progress"}
    with pytest.raises(PgkitError, match="the optimizer requires 'progress'"):
        optimizer.update({"w": torch.ones(2, 1)}, optimizer.init(params), params)
    with pytest.raises(PgkitError, match=r"'progress' must be a tensor of shape \(2,\)"):
        optimizer.update({"w": torch.ones(2, 1)}, optimizer.init(params), params, progress=0.5)


def test_global_norm_clipping_is_that_of_torch_for_each_member() -> None:
    grads, limit = tree(1), [0.1, 2.0, 1e3]
    updates = first_update(make("sgd", lr=1.0, max_grad_norm=limit), grads)
    for k in range(MEMBERS):
        leaves = [torch.nn.Parameter(leaf[k].clone()) for leaf in tree(0).values()]
        for parameter, grad in zip(leaves, grads.values(), strict=True):
            parameter.grad = grad[k].clone()
        torch.nn.utils.clip_grad_norm_(leaves, limit[k])
        for parameter, update in zip(leaves, updates.values(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(update[k], -parameter.grad, rtol=1e-6, atol=0)


def test_clipping_is_reported() -> None:
    optimizer, params = make("sgd", max_grad_norm=[0.1, 1e3, 1e3]), tree(0)
    _, state = optimizer.update(tree(1), optimizer.init(params), params)
    reported = diagnostics(state)
    grads = tree(1)
    norm = torch.stack([leaf.flatten(1).square().sum(1) for leaf in grads.values()]).sum(0).sqrt()
    torch.testing.assert_close(reported["grad_norm"], norm)
    assert reported["clip_fraction"].tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(
        reported["grad_norm_clipped"], torch.minimum(norm, torch.tensor([0.1, 1e3, 1e3])).double()
    )


def test_layer_and_value_clipping() -> None:
    grads = tree(1)
    by_layer = first_update(make("sgd", lr=1.0, max_layer_norm=0.5), grads)
    for leaf in by_layer.values():
        assert (leaf.flatten(1).norm(dim=1) <= 0.5).all()
    by_value = first_update(make("sgd", lr=1.0, max_grad_value=0.3), grads)
    assert_same(by_value, {name: -leaf.clamp(-0.3, 0.3) for name, leaf in grads.items()})


def test_weight_decay_coupled_and_decoupled() -> None:
    params, zero = tree(0), tree(1, scale=0.0)
    coupled = first_update(make("sgd", lr=0.1, weight_decay=0.5), zero, params)
    assert_same(coupled, {name: -0.05 * leaf for name, leaf in params.items()})
    decoupled = first_update(make("adamw", lr=0.1, weight_decay=0.5), zero, params)
    assert_same(decoupled, {name: -0.05 * leaf for name, leaf in params.items()})
    through_moments = first_update(make("adam", lr=0.1, weight_decay=0.5, eps=1e-30), zero, params)
    assert_same(through_moments, {name: -0.1 * leaf.sign() for name, leaf in params.items()})


def test_centralisation_takes_the_mean_over_inputs_from_weights_only() -> None:
    grads = tree(1)
    updates = first_update(make("sgd", lr=1.0, centralize=True), grads)
    weight = grads["actor.0.weight"]
    torch.testing.assert_close(updates["actor.0.weight"], -(weight - weight.mean(1, keepdim=True)))
    torch.testing.assert_close(updates["actor.0.bias"], -grads["actor.0.bias"])


def test_lookahead_pulls_to_slow_weights() -> None:
    fast = path(make("sgd", lr=0.1), 3)[-1]
    met = path(make("sgd", lr=0.1, lookahead_steps=3, lookahead_alpha=0.25), 3)[-1]
    start = tree(0)
    assert_same(met, {name: start[name] + 0.25 * (leaf - start[name]) for name, leaf in fast.items()})
    assert_same(path(make("sgd", lr=0.1, lookahead_steps=3), 2)[-1], path(make("sgd", lr=0.1), 2)[-1])


def begin_again(name: str, after: int, steps: int) -> list[Params]:
    """Train with a new optimizer after so many steps."""
    params = tree(0)
    visited = []
    optimizer = make(name)
    for step in range(steps):
        if step % after == 0:
            state = optimizer.init(params)
        updates, state = optimizer.update(tree(step + 1), state, params)
        params = apply_updates(params, updates)
        visited.append(params)
    return visited


@pytest.mark.parametrize(
    "optimizer_name", ["momentum", "rmsprop", "rmsprop_tf", "adagrad", "adadelta", "adam", "amsgrad", "nadam"]
)
def test_a_reset_of_the_moments_is_a_new_optimizer(optimizer_name: str) -> None:
    """After a number of updates, and at ``rollout_start``."""
    expected = begin_again(optimizer_name, after=4, steps=10)[-1]
    assert_same(path(make(optimizer_name, reset_moments=4), 10)[-1], expected)
    at_four = path(
        make(optimizer_name, reset_moments="rollout"), 10, rollout_start=lambda step: torch.full((3,), step % 4 == 0)
    )
    assert_same(at_four[-1], expected)


def test_a_reset_of_the_step_keeps_the_moments() -> None:
    """Adam-Rel: only t in the bias corrections begins anew."""
    lr, beta1, beta2, eps, every = 0.1, 0.9, 0.99, 1e-8, 3
    result = path(make("adam", lr=lr, beta2=beta2, reset_step=every), 8)[-1]["actor.0.bias"]
    p = tree(0)["actor.0.bias"]
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for step in range(8):
        grad, t = tree(step + 1)["actor.0.bias"], step % every + 1
        m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
        p = p - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
    torch.testing.assert_close(result, p, rtol=1e-12, atol=1e-14)


def test_measures() -> None:
    grads, params = tree(1), tree(0)
    updates = {name: -0.5 * leaf for name, leaf in grads.items()}
    measures = measure(grads, updates, params)
    torch.testing.assert_close(measures["update_cosine"], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(measures["update_norm"], 0.5 * measures["grad_norm"])
    torch.testing.assert_close(measures["update_ratio"], measures["update_norm"] / measures["param_norm"])
    away = measure(grads, grads, params)["update_cosine"]
    torch.testing.assert_close(away, -torch.ones(3, dtype=torch.float64))
    still = {name: torch.zeros_like(leaf) for name, leaf in grads.items()}
    assert measure(grads, still, params)["update_cosine"].tolist() == [0.0] * 3


def test_the_norms_of_the_moments_are_those_of_the_formula() -> None:
    """Computed here as running averages of the gradients and of their squares."""
    optimizer, params = make("adam"), tree(0)
    state, moments = (
        optimizer.init(params),
        {"m": [torch.zeros(3, 20).double(), 0.9], "v": [torch.zeros(3, 20).double(), 0.999]},
    )
    for step in range(5):
        grad = tree(step + 1)["actor.0.weight"]
        _, state = optimizer.update({"w": grad.clone()}, state if step else optimizer.init({"w": grad}), {"w": grad})
        for (key, (average, beta)), power in zip(moments.items(), (1, 2), strict=True):
            moments[key] = [beta * average + (1 - beta) * grad.flatten(1) ** power, beta]
    for key, (average, _) in moments.items():
        torch.testing.assert_close(diagnostics(state)[f"{key}_norm"], average.norm(dim=1))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "adm"}, "unknown optimizer 'adm' (did you mean 'adam'?); one of sgd, momentum"),
        ({"name": "adam", "betas": 0.1}, "unknown key 'betas' (did you mean 'beta2'?); allowed: name, schedule, lr"),
        ({"name": "sgd", "lr": -0.1}, "lr is -0.1; it must be above 0"),
        ({"name": "adam", "beta1": 1.0}, "beta1 is 1; it must be at least 0 and below 1"),
        ({"name": "adam", "eps": -1e-8}, "eps is -1e-08; it must be at least 0"),
        ({"name": "sgd", "lr": math.nan}, "lr is nan; it must be above 0"),
        ({"name": "sgd", "lr": "fast"}, "lr is 'fast'; it must be a number"),
        ({"name": "rmsprop", "centered": "yes"}, "centered is 'yes'; it must be true or false"),
        ({"name": "sgd", "schedule": {"lr": "linnear"}}, "unknown kind 'linnear' (did you mean 'linear'?)"),
        ({"name": "sgd", "schedule": {"beta1": "linear"}}, "unknown key 'beta1'; allowed: lr, weight_decay"),
        ({"name": "sgd", "schedule": {"lr": {"kind": "exponential"}}}, "needs the key 'end'"),
        ({"name": "sgd", "schedule": {"lr": {"kind": "linear", "end": -1.0}}}, "end of the schedule of lr is -1"),
        ({"name": "sgd", "reset_step": "sometimes"}, "reset_step is 'sometimes'; it must be a number of updates"),
        ({"name": "sgd", "lookahead_alpha": 0.3}, "lookahead_alpha is for lookahead, which lookahead_steps turns on"),
        ({"name": "sgd", "groups": {"*.bias": {"momentum": 0.9}}}, "(group '*.bias'): unknown key 'momentum'"),
        ({"name": "sgd", "critic": {"beta1": 0.9}}, "(critic): unknown key 'beta1'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(PgkitError, match=re.escape(message)) as error:
        from_config([table])
    assert "\n" not in str(error.value)


def test_the_member_that_is_out_of_range_is_named() -> None:
    with pytest.raises(PgkitError, match="lr of member 1 is 0; it must be above 0"):
        make("sgd", lr=[0.1, 0.0, 0.2])
    with pytest.raises(PgkitError, match="lr has 2 values for 3 members"):
        make("sgd", lr=[0.1, 0.2]).init(tree(0))
