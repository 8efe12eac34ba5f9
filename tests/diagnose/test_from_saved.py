"""Copies that begin in the environments of a checkpoint: with the run's random numbers, they make its next update."""

from pathlib import Path

import pytest
import torch
from helpers.odd_envs import odd_id

import pgkit
from pgkit.diagnose import Settings, diagnose
from pgkit.diagnose.copies import copies_of, observed_update, start_acting, warm
from pgkit.diagnose.points import Point, open_run
from pgkit.errors import PgkitError
from pgkit.runs import checkpoint
from pgkit.seeding import stream_keys
from pgkit.training.population import Population

QUICK = ["seeds=[3,4]", "envs_per_member=4", "policy.hidden=[8]", "evaluation.points=0", "evaluation.final_episodes=1"]
QUICK += ["checkpoint_points=12", "keep_checkpoints=20"]
STEPS = {
    "actor-critic": ["cartpole-actor-critic", "rollout_steps=16", "steps=768"],
    "replayed": ["cartpole-actor-critic", "rollout_steps=16", "steps=768", "env.backend=gymnasium"],
    "ppo": ["cartpole-ppo", "rollout_steps=16", "steps=768"],
    "reinforce": ["cartpole-reinforce", "steps=1_000"],
}


@pytest.fixture(scope="module")
def actor_critic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"), "actor-critic")


def trained(place: Path, name: str) -> Path:
    config, *words = STEPS[name]
    pgkit.train(pgkit.load_config(config, [*QUICK, *words]), place / name, workers=1)
    return place / name


def saved_part(path: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint says of both members, in the order of their seeds."""
    ((part,),) = (worker["parts"] for worker in checkpoint.load(path)["workers"])
    return part


def with_random_numbers_of_the_run(population: Population, path: Path, row: int) -> None:
    """Give the last copy the random numbers with which the run acted next."""
    collector = population.collector
    counters = collector.state.counters.clone()
    counters[-1] = saved_part(path)["counters"][row]
    keys = collector.keys.clone()
    keys[-1] = stream_keys([3 + row], "action")[0]
    population.shuffle_keys = population.shuffle_keys.clone()
    population.shuffle_keys[-1] = stream_keys([3 + row], "shuffle")[0]
    collector.keys = keys
    object.__setattr__(collector.state, "counters", counters)


def test_the_next_update_is_that_of_the_run(actor_critic: Path) -> None:
    check_next_update(actor_critic)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replayed", "ppo", "reinforce"])
def test_so_it_is_of_other_agents_and_environments(tmp_path: Path, name: str) -> None:
    check_next_update(trained(tmp_path, name))


def check_next_update(run: Path) -> None:
    """With the run's random numbers, a copy of its second member gets the parameters of the next checkpoint."""
    now, after = checkpoint.checkpoints_in(run / "checkpoints")[4:6]
    with open_run(run, (), from_saved=True) as points:
        (members,) = points.at((checkpoint.step_of(now) / points.configs[0].steps,))
    expected = saved_part(after)
    assert expected["updates"] == members[1].updates + 1
    with copies_of(members[1], 3, seed=0) as population:
        start_acting(population, members[1])
        with_random_numbers_of_the_run(population, now, 1)
        observed_update(population)
        for leaf, value in population.params.items():
            assert torch.equal(value[-1], expected["params"][leaf][1]), leaf
            assert not torch.equal(value[0], value[-1])
            assert not torch.equal(value[-1], members[1].params[leaf][0])


def middle(run: Path) -> Point:
    with open_run(run, (), from_saved=True) as points:
        ((_, point),) = points.at((0.5,))
    return point


def test_copies_differ_by_their_actions_alone_and_larger_batches_repeat_the_environments(actor_critic: Path) -> None:
    point = middle(actor_critic)
    assert point.saved_envs is not None
    larger = point.config.model_copy(update={"envs_per_member": 8})
    with copies_of(point, 2, 0, larger) as population:
        start_acting(population, point)
        state = population.collector.state
        assert torch.equal(state.obs, point.saved_envs.obs.repeat(2, 2, 1))
        assert state.counts[:, 1].unique().numel() > 2  # steps of the episodes under way
        assert torch.equal(state.counts[:, 1], point.saved_envs.counts[:, 1].repeat(2, 2))
        assert population.env_steps.tolist() == [point.env_steps] * 2
        first = population.collector.noise(0, 1)[0]
        assert not torch.equal(first[0], first[1])


@pytest.mark.slow
def test_warmed_optimizers_stand_where_the_others_do(actor_critic: Path) -> None:
    point = middle(actor_critic)
    assert point.saved_envs is not None
    with copies_of(point, 2, 0, fresh_optimizer=True) as population:
        start_acting(population, point)
        warm(population, 2)
        assert not torch.equal(population.collector.state.obs, point.saved_envs.obs.repeat(2, 1, 1))
        warm(population, 2, back_to=point.saved_envs)
        assert torch.equal(population.collector.state.obs, point.saved_envs.obs.repeat(2, 1, 1))


@pytest.mark.slow
def test_environments_that_cannot_be_saved_are_refused_in_one_line(tmp_path: Path) -> None:
    place = tmp_path / "run"
    words = [f"env.id={odd_id('NoGenerator')}", "steps=128", "rollout_steps=16", *QUICK]
    pgkit.train(pgkit.load_config("cartpole-actor-critic", words), place)
    with pytest.raises(PgkitError, match="cannot be diagnosed from its saved environments: environment ") as error:
        diagnose(place, Settings(from_saved=True))
    assert "\n" not in str(error.value)
    assert not (place / "diagnosis").exists()
