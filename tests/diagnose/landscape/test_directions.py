"""Directions: what the run would do, random ones, and those in which the return curves most."""

from dataclasses import replace

import pytest
import torch

import pgkit
from pgkit.diagnose.copies import burn_in, copies_of, observed_update
from pgkit.diagnose.curvature import directional_derivatives, episode_samples, step_weights
from pgkit.diagnose.episodes import play_batches
from pgkit.diagnose.landscape.directions import (
    curvature_directions,
    filter_normalized,
    random_directions,
    stack,
    unit_vector,
    unscheduled,
    update_directions,
)
from pgkit.diagnose.points import Point, initial_point
from pgkit.diagnose.vectors import actor_names, flatten_params


@pytest.fixture(scope="module")
def point() -> Point:
    return initial_point(pgkit.load_config("cartpole-actor-critic", ["policy.hidden=[16]", "steps=20_000"]), "seed-0")


def test_updates_and_gradient_are_those_of_the_copies(point: Point) -> None:
    measured = update_directions(point, seed=0, copies=8)
    with copies_of(point, 8, 0) as population:
        burn_in(population)
        update = observed_update(population)
    changes = update.changes["actor"].double()
    assert measured.unit == pytest.approx(float(changes.norm(dim=1).median()))
    assert list(measured.vectors) == ["mean_update", "gradient", "update-1", "update-2"]
    torch.testing.assert_close(measured.vectors["mean_update"], unit_vector(changes.mean(0)))
    torch.testing.assert_close(measured.vectors["gradient"], -unit_vector(update.grads["actor"].double().mean(0)))
    torch.testing.assert_close(measured.vectors["update-2"], unit_vector(changes[1]))
    assert float(measured.vectors["gradient"] @ measured.vectors["mean_update"]) > 0  # uphill, as updates go
    assert not measured.without_schedule


def test_where_the_schedule_has_ended_updates_are_those_without_it(point: Point) -> None:
    assert "schedule" in point.config.optimizer
    ended = replace(point, env_steps=float(point.config.steps), updates=10_000)
    measured = update_directions(ended, seed=0, copies=8)
    plain = replace(ended, config=unscheduled(point.config))
    assert measured.without_schedule
    assert measured.unit > 0
    assert measured.unit == pytest.approx(update_directions(plain, seed=0, copies=8).unit)
    assert "schedule" not in unscheduled(point.config).optimizer


def test_random_directions_have_length_one_and_no_part_in_biases(point: Point) -> None:
    drawn = random_directions(point.params, 3, seed=0)
    assert list(drawn) == ["random-1", "random-2", "random-3"]
    vectors = stack(drawn)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert float((vectors @ vectors.T - torch.eye(3)).abs().max()) < 0.3
    biases = {name: torch.full_like(point.params[name], float("bias" in name)) for name in actor_names(point.params)}
    assert float((vectors * flatten_params(biases)).abs().max()) == 0
    again = random_directions(point.params, 2, seed=0)
    assert torch.equal(again["random-2"], drawn["random-2"])


def test_each_unit_keeps_the_norm_of_its_incoming_weights(point: Point) -> None:
    direction = filter_normalized(point.params, torch.Generator().manual_seed(0))
    for name in ("actor.0.weight", "actor.1.weight"):
        torch.testing.assert_close(direction[name].norm(dim=1), point.params[name].double().norm(dim=1))
        ratio = direction[name].norm(dim=2) / point.params[name].double().norm(dim=2)
        assert float((ratio - 1).abs().max()) > 0.1
    assert not any(name.startswith("critic") for name in direction)


def test_units_of_modules_stand_first_and_scales_stay() -> None:
    params = {
        "network.0.weight": torch.rand(1, 3, 2, 4, 4) + 1,  # out, in, height, width
        "network.0.bias": torch.ones(1, 3),
        "network.1.weight": torch.rand(1, 5, 48) + 1,
        "network.1.bias": torch.ones(1, 5),
        "network.norm.weight": torch.ones(1, 5),
        "actor.log_std": torch.ones(1, 1, 2),
    }
    direction = filter_normalized(params, torch.Generator().manual_seed(0))
    for name in ("network.0.weight", "network.1.weight"):
        norms = [x[name].double().flatten(2).norm(dim=2) for x in (params, direction)]
        torch.testing.assert_close(*norms)
    for name in ("network.norm.weight", "network.0.bias", "actor.log_std"):
        assert float(direction[name].abs().max()) == 0


def test_the_ends_of_the_spectrum_curve_more_than_random_directions(point: Point) -> None:
    ends, env_steps = curvature_directions(point, seed=0)
    assert env_steps > 0
    batches = play_batches(point, 48, seed=9)
    samples = episode_samples(batches.policy, batches.rollout, step_weights(batches.rollout))

    def curvature(vector: torch.Tensor) -> float:
        return float(directional_derivatives(batches.policy, point.params, samples, vector).curvature.mean())

    bottom, top = curvature(ends["bottom"]), curvature(ends["top"])
    others = [curvature(vector) for vector in random_directions(point.params, 5, 0).values()]
    assert bottom < min(others) < max(others) < top
    assert abs(float(ends["bottom"] @ ends["top"])) < 1e-8


def test_a_vector_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="with a direction"):
        unit_vector(torch.zeros(3))
