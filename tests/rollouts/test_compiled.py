"""Compiled rollouts and evaluations are those of acting and stepping one after the other, to the last bit."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.envs import make_envs
from pgkit.rollouts import episodes, evaluate
from pgkit.rollouts.compiled import compiled_envs
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.training.loop import gradient, targets, update
from pgkit.training.population import Population, build
from pgkit.types import Rollout


def config(**changes: Any) -> TrainConfig:
    """Five members on CartPole with episodes of at most 23 steps."""
    table: dict[str, Any] = {
        "name": "rollout",
        "env": {"id": "CartPole-v1", "max_episode_steps": 23},
        "agent": {"name": "actor-critic"},
        "optimizer": {"name": "adam", "lr": 0.01},
        "steps": 100_000,
        "seeds": 5,
        "envs_per_member": 8,
        "rollout_steps": 16,
    }
    return parse_config(table | changes)


def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing is compiled whole."""
    for module in (episodes, evaluate):
        monkeypatch.setattr(module, "compiled_envs", lambda envs, policy, params: None)


def tensors(one: Rollout) -> dict[str, Tensor]:
    values = {field.name: getattr(one, field.name) for field in fields(one)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


CASES: Mapping[str, Mapping[str, Any]] = {
    "as shipped": {},
    "few environments": {"envs_per_member": 1},
    "environments that fill no register": {"envs_per_member": 11},
    "a shared trunk": {"policy": {"shared": True, "hidden": [16]}},
    "silu": {"policy": {"activation": "silu", "hidden": [16, 7]}},
    "no hidden layer": {"policy": {"hidden": []}},
    "scaled rewards": {"env": {"id": "CartPole-v1", "reward_scale": 0.1, "normalize_rewards": True}},
    "environments that step as a block": {
        "env": {"id": "LunarLander-v3", "max_episode_steps": 70},
        "rollout_steps": 64,
    },
    "a block and continuous actions": {
        "env": {"id": "LunarLander-v3", "max_episode_steps": 70, "kwargs": {"continuous": True}},
        "rollout_steps": 64,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_compiled_rollout_is_that_of_single_steps(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All transitions of four rollouts with updates between them, and the statistics; then of two members alone."""

    def collect() -> tuple[list[Rollout], Population]:
        population = build(expand_seeds(config(**CASES[case])))
        rollouts = []
        for turn in range(6):
            if turn == 4:
                population = population.take(torch.tensor([3, 1]))
            update(population)
            assert population.trace is not None
            rollouts.append(population.trace.rollouts[0].unnormalized)
        return rollouts, population

    compiled, whole = collect()
    step_by_step(monkeypatch)
    single, stepped = collect()
    for actual, expected in zip(compiled, single, strict=True):
        for name, value in tensors(actual).items():
            assert torch.equal(value, getattr(expected, name)), name
    assert any(actual.terminated.any() and (actual.truncated.any() or case == "scaled rewards") for actual in compiled)
    for actual, expected in zip(whole.collector.statistics, stepped.collector.statistics, strict=True):
        assert torch.equal(actual, expected)
    for name, leaf in whole.params.items():
        assert torch.equal(leaf, stepped.params[name])


@pytest.mark.parametrize("case", sorted(set(CASES) - {"scaled rewards"}))
def test_compiled_episodes_are_those_of_single_steps(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some members leave early, others late; again with moved parameters, then of fewer and fewer members."""
    changes = {"env": {"id": "CartPole-v1", "max_episode_steps": 90}, **CASES[case]}
    changes |= {"agent": {"name": "reinforce"}, "rollout_steps": None}
    if "block" in case:
        changes["env"] = {**changes["env"], "max_episode_steps": 160}

    def collect() -> tuple[list[Any], Population]:
        population = build(expand_seeds(config(**changes)))
        name = f"actor.{len(population.policy.hidden) if not population.policy.shared else 0}.weight"
        population.params[name] *= torch.logspace(0, 2.5, 5)[:, None, None]  # steady policies keep the pole up longer
        pieces = []
        for taken in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [4, 0, 2], [1]):
            population = population.take(torch.tensor(taken))
            update(population)
            assert population.trace is not None
            pieces += population.trace.rollouts
        return pieces, population

    compiled, whole = collect()
    step_by_step(monkeypatch)
    single, stepped = collect()
    assert len({len(piece.rollout.valid) for piece in compiled}) > 1
    assert {piece.rows is None for piece in compiled} == {True, False}
    for actual, expected in zip(compiled, single, strict=True):
        assert (actual.rows is None) == (expected.rows is None)
        assert actual.rows is None or torch.equal(actual.rows, expected.rows)
        valid = actual.rollout.valid
        assert not valid.all()
        for name in ("valid", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(actual.unnormalized, name), getattr(expected.unnormalized, name)), name
        assert torch.equal(actual.unnormalized.action[valid], expected.unnormalized.action[valid])
        for at in (slice(0, -1), slice(1, None)):
            assert torch.equal(actual.unnormalized.obs[at][valid], expected.unnormalized.obs[at][valid])
    for actual, expected in zip(whole.collector.statistics, stepped.collector.statistics, strict=True):
        assert torch.equal(actual, expected)
    for name, leaf in whole.params.items():
        assert torch.equal(leaf, stepped.params[name])


def test_what_cannot_be_compiled_whole_is_stepped() -> None:
    """Other environments, and distributions over more than CartPole's actions are told by ``compiled_envs``."""
    population = build(expand_seeds(config()))
    collector = population.collector
    assert compiled_envs(collector.envs, population.policy, population.params) is not None
    twice = {name: leaf.double() for name, leaf in population.params.items()}
    assert compiled_envs(collector.envs, population.policy, twice) is None
    population = build(expand_seeds(config(env={"id": "CartPole-v1", "backend": "gymnasium"}, seeds=2)))
    assert compiled_envs(population.collector.envs, population.policy, population.params) is None
    population.collector.envs.close()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_compiled_evaluation_is_that_of_single_steps(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Players whose episodes end at very different times, some groups of them at once."""
    population = build(expand_seeds(config(seeds=7)))
    population.params["actor.2.weight"] *= torch.logspace(0, 3, 7)[:, None, None]
    players = [EvalKey(seed, point) for seed, point in zip(range(7), (0, 5, 2, 0, 1, 1, 9), strict=True)]

    def played() -> Any:
        envs = make_envs("CartPole-v1", 35, max_episode_steps=120)
        return evaluate_policy(population.policy, population.params, envs, players, 9, deterministic=deterministic)

    compiled = played()
    step_by_step(monkeypatch)
    single = played()
    assert torch.equal(compiled.returns, single.returns)
    assert torch.equal(compiled.lengths, single.lengths)
    assert len(compiled.lengths.unique()) > 10


@pytest.mark.parametrize("shared", [False, True])
def test_the_cache_changes_no_bit_of_a_gradient(shared: bool) -> None:
    population = build(expand_seeds(config(policy={"shared": shared, "hidden": [16, 16]})))
    (piece,) = population.collect()
    batch = targets(population, piece)
    assert batch.cache is not None
    assert set(batch.cache.layer_outputs) == ({"trunk", "critic"} if shared else {"actor", "critic"})
    loss, grads, _ = gradient(population, [(None, batch)])
    computed, others, _ = gradient(population, [(None, batch._replace(cache=None))])
    assert torch.equal(loss, computed)
    assert all(torch.equal(grad, others[name]) for name, grad in grads.items())


def test_the_cache_of_other_observations_is_not_used() -> None:
    population = build(expand_seeds(config()))
    (piece,) = population.collect()
    batch = targets(population, piece)
    batch = batch._replace(obs=batch.obs * 2)
    loss = gradient(population, [(None, batch)])[0]
    assert torch.equal(loss, gradient(population, [(None, batch._replace(cache=None))])[0])


def test_the_cache_of_packed_observations_is_used() -> None:
    """Whole episodes of several groups of members: each batch has the critic's pass over what was packed."""
    population = build(expand_seeds(config(agent={"name": "reinforce"}, rollout_steps=None)))
    batches = [(piece.rows, targets(population, piece)) for piece in population.collect()]
    for _, batch in batches:
        packed = batch.without_padding()
        assert batch.cache is not None
        assert packed.cache is not None
        assert batch.cache.lookup("critic", batch.obs) is None, "its rows are those of packed observations"
        assert packed.cache.lookup("critic", packed.obs) is not None
    loss, grads, _ = gradient(population, batches)
    computed, others, _ = gradient(population, [(rows, batch._replace(cache=None)) for rows, batch in batches])
    assert torch.equal(loss, computed)
    assert all(torch.equal(grad, others[name]) for name, grad in grads.items())


def test_nothing_is_cached_after_an_update() -> None:
    population = build(expand_seeds(config()))
    update(population)
    assert population.trace is not None
    assert all(batch.cache is None for _, batch in population.trace.batches)
