"""Copies of a point: the same bits alone and among others, from where the point stands."""

from collections.abc import Iterator

import pytest
import torch

import pgkit
from pgkit.diagnose.copies import (
    burn_in,
    copies_of,
    has_moments,
    learn,
    learn_critic,
    observed_update,
    warm,
    whole_episodes,
)
from pgkit.diagnose.play import open_player, without_skill
from pgkit.diagnose.points import Point, initial_point, open_run

pytestmark = pytest.mark.slow

QUICK = ["evaluation.points=0", "evaluation.final_episodes=5"]


@pytest.fixture(scope="module", params=["cartpole-actor-critic", "cartpole-reinforce", "cartpole-ppo"])
def point(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Point]:
    run = tmp_path_factory.mktemp("runs") / "run"
    pgkit.train(pgkit.load_config(request.param, ["steps=20_000", *QUICK]), run)
    with open_run(run, (0.5,)) as points:
        ((middle,),) = points.at((0.5,))
    return middle


def after(point: Point, count: int, updates: int) -> dict[str, torch.Tensor]:
    with copies_of(point, count, seed=0) as population:
        burn_in(population)
        first = observed_update(population)
        learn(population, updates - 1)
        assert population.updates == point.updates + updates
        return {**population.params, "grad": first.grads["actor"], "kl": first.kl}


def test_copies_have_the_same_bits_alone_and_among_others(point: Point) -> None:
    few, many = after(point, 2, 3), after(point, 5, 3)
    for name, leaf in few.items():
        assert torch.equal(leaf, many[name][:2]), name
    assert not torch.equal(few["grad"][0], few["grad"][1])


def test_copies_begin_where_the_point_stands(point: Point) -> None:
    with copies_of(point, 3, seed=0) as population:
        burn_in(population)
        assert population.env_steps.tolist() == [point.env_steps] * 3
        for name, leaf in population.params.items():
            assert torch.equal(leaf, point.params[name].expand_as(leaf)), name
        before = point.params["actor.0.weight"].clone()
        learn(population, 2)
        assert torch.equal(point.params["actor.0.weight"], before)
        assert (population.env_steps > point.env_steps).all()


def test_burn_in_puts_environments_out_of_phase() -> None:
    config = pgkit.load_config("cartpole-actor-critic", ["steps=2_000"])
    with copies_of(initial_point(config, "seed-0"), 4, seed=0) as population:
        before = population.collector.state.counts[:, 3].clone()
        params = {name: leaf.clone() for name, leaf in population.params.items()}
        burn_in(population)
        assert torch.equal(population.collector.state.counts[:, 3], before)  # counted as if it had not been
        assert population.collector.state.counts[:, 1].unique().numel() > 4  # lengths of the episodes under way
        assert all(torch.equal(leaf, params[name]) for name, leaf in population.params.items())


def test_the_rate_of_changed_copies_is_theirs_and_the_moments_are_the_points(point: Point) -> None:
    slow = point.config.model_copy(update={"optimizer": {**point.config.optimizer, "lr": 1e-9}})
    with copies_of(point, 2, 0, slow) as slowed, copies_of(point, 2, 0) as same:
        moved, usual = observed_update(slowed), observed_update(same)
        assert torch.equal(moved.grads["actor"], usual.grads["actor"])
        ratio = moved.changes["actor"].norm() / usual.changes["actor"].norm()
        assert ratio < 0.1
    with copies_of(point, 2, 0, fresh_optimizer=True) as fresh:
        assert not torch.equal(observed_update(fresh).changes["actor"], usual.changes["actor"])


def test_fitting_the_critic_leaves_the_actor_alone(point: Point) -> None:
    with copies_of(point, 2, 0) as population:
        critics = learn_critic(population, 2)
        names = set(critics)
        for name, leaf in population.params.items():
            assert torch.equal(leaf, point.params[name].expand_as(leaf)) != (name in names), name


def test_warming_leaves_parameters_alone_and_moves_the_optimizer(point: Point) -> None:
    with copies_of(point, 2, 0, fresh_optimizer=True) as population:
        before = population.params["actor.0.weight"].clone()
        warm(population, 3)
        assert torch.equal(population.params["actor.0.weight"], before)
        assert population.env_steps.tolist() == [point.env_steps] * 2  # a schedule stands where it was
        warmed = observed_update(population).changes["actor"]
    with copies_of(point, 2, 0, fresh_optimizer=True) as population:
        assert not torch.equal(observed_update(population).changes["actor"], warmed)


def test_whole_episodes_are_whole(point: Point) -> None:
    with copies_of(point, 3, 0) as population:
        rollout = whole_episodes(population)
    assert ((rollout.terminated | rollout.truncated) & rollout.valid).sum(0).eq(1).all()
    assert rollout.valid[0].all()
    assert rollout.valid[-1].any()
    assert rollout.reward[rollout.valid].eq(1).all()


def test_players_play_the_same_episodes_with_all_parameters(point: Point) -> None:
    with open_player(point.config, seed=0) as player:
        twice = player.play({name: leaf.repeat(2, *[1] * (leaf.dim() - 1)) for name, leaf in point.params.items()}, 5)
        alone = player.play(point.params, 5)
        assert (twice == alone).all()
        assert (player.play(point.params, 5, block=1) != alone).any()
        assert player.play(without_skill(point.params), 50).mean() < 40  # a random policy balances for 22 steps


@pytest.mark.parametrize(("name", "expected"), [("sgd", False), ("npg", False), ("momentum", True), ("adam", True)])
def test_only_optimizers_with_moments_are_warmed(name: str, expected: bool) -> None:
    table = {"name": name, "lr": 0.1, "critic": {"name": "adam", "lr": 0.01}}
    config = pgkit.load_config("cartpole-actor-critic", ["steps=2_000"]).model_copy(update={"optimizer": table})
    with copies_of(initial_point(config, "seed-0"), 2, 0, fresh_optimizer=True) as population:
        assert has_moments(population) is expected
