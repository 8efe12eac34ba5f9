"""The sharpness of the loss, and what the optimizer of a point can stand."""

from typing import Any

import pytest
import torch
from helpers.curvature_oracles import Task, enumerated, flat_actor, two_locks

import pgkit
from pgkit import optim
from pgkit.diagnose.curvature import return_hessian
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.sharpness import optimizer_state, sharpness
from pgkit.errors import PgkitError

TASK = two_locks((0.5, -1.0))
STEPS = 3


def grads_of(task: Task, step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) + 0.5 for name, leaf in task.params.items()
    }


def point(table: dict[str, Any], agent: list[str] | None = None, steps: int = STEPS) -> Point:
    """The two locks after some steps of an optimizer, half-way through its schedule."""
    config = pgkit.load_config("cartpole-reinforce", agent or []).model_copy(update={"optimizer": table})
    optimizer = optim.from_config([table])
    state = optimizer.init(TASK.params)
    extra = {"progress": torch.full((1,), 0.5, dtype=torch.float64)} if "schedule" in table else {}
    for step in range(steps):
        _, state = optimizer.update(grads_of(TASK, step), state, TASK.params, **extra)
    zero = torch.zeros(1)
    return Point(config, "seed-0", 100.0, steps, TASK.params, optimizer.dump(state), {}, None, zero)


def flat_grads(step: int) -> torch.Tensor:
    return flat_actor(grads_of(TASK, step))


@pytest.mark.parametrize("name", ["adam", "amsgrad", "rmsprop", "centered"])
def test_second_moments(name: str) -> None:
    """By hand: with the bias corrected for adam, its maximum for amsgrad, the variance if centred."""
    beta = 0.9
    table: dict[str, Any] = {"name": name, "lr": 0.01, "beta2": beta}
    if name in ("rmsprop", "centered"):
        table = {"name": "rmsprop", "lr": 0.01, "alpha": beta, "centered": name == "centered"}
    moment, mean = torch.zeros(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    largest = moment
    for step in range(STEPS):
        moment = beta * moment + (1 - beta) * flat_grads(step) ** 2
        mean = beta * mean + (1 - beta) * flat_grads(step)
        largest = torch.maximum(largest, moment)
    correction = 1 - beta**STEPS
    expected = {"adam": moment / correction, "amsgrad": largest / correction, "rmsprop": moment}
    seen = optimizer_state(point(table)).second_moment
    assert seen is not None
    assert torch.allclose(seen, expected.get(name, moment - mean**2), rtol=1e-5)


def test_the_rate_is_that_of_the_time_and_clipping_counts() -> None:
    table = {"name": "sgd", "lr": 0.1, "schedule": {"lr": "linear"}, "max_grad_norm": 0.25}
    state = optimizer_state(point(table))
    assert state.rule.rate == pytest.approx(0.05)
    norm = torch.cat([leaf.flatten() for leaf in grads_of(TASK, STEPS - 1).values()]).norm()
    assert state.clip_factor == pytest.approx(0.25 / float(norm), rel=1e-4)
    assert state.second_moment is None


@pytest.mark.parametrize(
    ("table", "agent", "steps", "message"),
    [
        ({"name": "adam", "kl_limit": 0.01}, [], 0, "a KL limit shortens the steps"),
        ({"name": "adam", "groups": {"*.bias": {"lr": 0.1}}}, [], STEPS, "several groups"),
        ({"name": "adam"}, [], 0, "has made no step"),
        ({"name": "adam"}, ["agent.normalize_advantage=true"], STEPS, "advantages are normalized"),
        ({"name": "lion"}, [], STEPS, "no threshold of stability is known"),
    ],
)
def test_what_has_no_threshold(table: dict[str, Any], agent: list[str], steps: int, message: str) -> None:
    with pytest.raises(PgkitError, match=message):
        optimizer_state(point(table, agent, steps))


def test_preconditioned_sharpness_of_the_two_locks() -> None:
    """Exact episodes: the largest eigenvalue of D^-1/2 (-H) D^-1/2 per step, over 38 / lr."""
    at = point({"name": "adam", "lr": 0.01})
    fresh = enumerated(TASK)
    product = return_hessian(TASK.policy, TASK.params, fresh)
    moment = optimizer_state(at).second_moment
    assert moment is not None
    dense = torch.stack([product(axis) for axis in torch.eye(6, dtype=torch.float64)])
    root = (moment.sqrt() + 1e-8) ** -0.5
    scaled = root[:, None] * (dense + dense.T) / 2 * root
    length = float(fresh.sums(torch.ones_like(fresh.weight)).mean())
    expected = -float(torch.linalg.eigvalsh(scaled)[0]) / length
    generator = torch.Generator().manual_seed(0)
    found = sharpness(at, TASK.policy, product, fresh, Quantity(-1.0, -1.0, -1.0, 3), generator)
    assert found["sharpness"].value == pytest.approx(expected, rel=1e-3)
    assert found["sharpness_ratio"].value == pytest.approx(expected / 3800, rel=1e-3)


def test_without_a_threshold_the_plain_sharpness_is_left() -> None:
    fresh = enumerated(TASK)
    product = return_hessian(TASK.policy, TASK.params, fresh)
    bottom = Quantity(-3.0, -4.0, -2.0, 3)
    generator = torch.Generator().manual_seed(0)
    found = sharpness(point({"name": "lion"}), TASK.policy, product, fresh, bottom, generator)
    length = float(fresh.sums(torch.ones_like(fresh.weight)).mean())
    assert found["sharpness"].value == pytest.approx(3.0 / length)
    assert "no threshold" in (found["sharpness_ratio"].reason or "")
