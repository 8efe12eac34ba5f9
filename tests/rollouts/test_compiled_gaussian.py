"""Compiled rollouts and evaluations with Box actions are those of single steps, to the last bit."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.point_mass import PointMass, use_point_mass
from torch import Tensor

from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.nn.distributions import bernoulli, gaussian, multi_categorical
from pgkit.nn.policy import Policy
from pgkit.rollouts import episodes, evaluate
from pgkit.rollouts.compiled import compiled_envs
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.training.loop import gradient, targets, update
from pgkit.training.population import Population, build
from pgkit.types import Rollout


def config(**changes: Any) -> TrainConfig:
    """Five members with episodes of at most 23 steps, some of which terminate."""
    table: dict[str, Any] = {
        "name": "rollout",
        "env": {"id": "Pendulum-v1", "max_episode_steps": 23},  # a point mass stands in for it
        "agent": {"name": "actor-critic"},
        "optimizer": {"name": "adam", "lr": 0.01},
        "policy": {"log_std": 1.0},
        "steps": 100_000,
        "seeds": 5,
        "envs_per_member": 8,
        "rollout_steps": 16,
    }
    return parse_config(table | changes)


EPISODES = {
    "agent": {"name": "reinforce"},
    "rollout_steps": None,
    "env": {"id": "Pendulum-v1", "max_episode_steps": 90},
}

CASES: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "one environment": {"envs_per_member": 1},
    "environments that fill no register": {"envs_per_member": 11},
    "a shared trunk": {"policy": {"shared": True, "hidden": [16], "log_std": 1.0}},
    "no hidden layer": {"policy": {"hidden": [], "log_std": 1.0}},
    "squashed, with deviations of the state": {
        "policy": {"squash_output": True, "state_dependent_std": True, "log_std": 1.0}
    },
}


def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing is compiled whole."""
    for module in (episodes, evaluate):
        monkeypatch.setattr(module, "compiled_envs", lambda envs, policy, params: None)


def collect(turns: list[list[int] | None], **changes: Any) -> tuple[list[Rollout], Population]:
    """The rollouts of some updates, before which only these members stay."""
    population = build(expand_seeds(config(**changes)))
    rollouts = []
    for staying in turns:
        if staying is not None:
            population = population.take(torch.tensor(staying))
        update(population)
        assert population.trace is not None
        rollouts += [rollout.unnormalized for rollout in population.trace.rollouts]
    return rollouts, population


def assert_same(compiled: tuple[list[Rollout], Population], stepped: tuple[list[Rollout], Population]) -> None:
    """What is valid in the rollouts, parameters and statistics."""
    for actual, expected in zip(compiled[0], stepped[0], strict=True):
        valid = expected.valid
        for field in fields(actual):
            value = getattr(actual, field.name)
            if not isinstance(value, Tensor):
                continue
            other = getattr(expected, field.name)
            pairs = [(value[:-1], other[:-1]), (value[1:], other[1:])] if field.name == "obs" else [(value, other)]
            for one, two in pairs:
                assert torch.equal(one[valid], two[valid]), field.name
    for name, leaf in compiled[1].params.items():
        assert torch.equal(leaf, stepped[1].params[name])
    for one, two in zip(compiled[1].collector.statistics, stepped[1].collector.statistics, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_compiled_rollouts_are_those_of_single_steps(
    case: str, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_point_mass(monkeypatch, components)
    turns = [None, None, None, [3, 1], None]
    compiled = collect(turns, **CASES[case])
    step_by_step(monkeypatch)
    assert_same(compiled, collect(turns, **CASES[case]))
    rollouts, population = compiled
    shape = (16, 5, population.collector.envs_per_member, components)
    assert rollouts[0].action.shape == shape
    assert rollouts[0].action.dtype == torch.float32
    assert rollouts[0].action.abs().max() > 1, "environments clip, the policy does not"
    assert any(rollout.truncated.any() for rollout in rollouts)
    valid = torch.cat([rollout.valid[:, :2].flatten() for rollout in rollouts])
    assert valid.any()
    assert not valid.all()


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_compiled_episodes_are_those_of_single_steps(
    case: str, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_point_mass(monkeypatch, components)
    turns = [[0, 1, 2, 3, 4], [4, 0, 2], [1]]
    changes = {**EPISODES, **CASES[case]}
    compiled = collect(turns, **changes)
    step_by_step(monkeypatch)
    assert_same(compiled, collect(turns, **changes))
    assert any(rollout.terminated.any() for rollout in compiled[0])
    assert any(not rollout.valid.all() for rollout in compiled[0])


@pytest.mark.parametrize("changes", [{}, EPISODES])
def test_a_member_alone_has_the_same_bits(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    use_point_mass(monkeypatch, 2)
    _, together = collect([None] * 4, **changes)
    for seed in (0, 3):
        _, alone = collect([None] * 4, **changes, seeds=[seed])
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], together.params[name][seed])


@pytest.mark.parametrize("components", [1, 2])
def test_packed_samples_are_those_of_the_rectangle(components: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_point_mass(monkeypatch, components)
    population = build(expand_seeds(config(**EPISODES)))
    for piece in population.collect():
        batch = targets(population, piece)
        packed = batch.without_padding()
        assert piece.rollout.packing is not None
        assert packed.valid.shape[1] <= batch.valid.shape[1]
        assert torch.equal(packed.action[packed.valid], batch.action[batch.valid])
        assert torch.equal(packed.obs[packed.valid], batch.obs[batch.valid])
        whole = targets(population, piece._replace(rollout=replace(piece.rollout, packing=None, cache=None)))
        (_, grads, _), (_, expected, _) = (gradient(population, [(piece.rows, one)]) for one in (batch, whole))
        for name, grad in grads.items():
            assert torch.equal(grad, expected[name]), name


@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_compiled_evaluation_is_that_of_single_steps(
    deterministic: bool, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(2 * components, gaussian(components), log_std=1.0)
    params = policy.init(range(7))
    params["actor.log_std"] += torch.linspace(-1, 2, 7)[:, None, None]
    params["actor.2.weight"] *= torch.logspace(0, 3, 7)[:, None, None]
    keys = [EvalKey(seed, seed % 3) for seed in range(7)]

    def evaluated() -> Any:
        envs = PointMass(35, components, 300)
        return evaluate_policy(policy, params, envs, keys, 9, deterministic=deterministic)

    compiled = evaluated()
    step_by_step(monkeypatch)
    single = evaluated()
    assert torch.equal(compiled.returns, single.returns)
    assert torch.equal(compiled.lengths, single.lengths)
    assert len(compiled.lengths.unique()) > 10
    set_compile_mode(monkeypatch, "off")
    torch.testing.assert_close(evaluated().returns[0], single.returns[0], rtol=1e-3, atol=1e-3)


def test_a_policy_that_has_diverged_acts_without_end() -> None:
    """Infinite deviations give infinite actions, and NaN: the environments see them, nothing hangs."""
    policy = Policy(2, gaussian(1))
    params = policy.init([0, 1])
    params["actor.log_std"][1] = 300.0
    keys = [EvalKey(0, 0), EvalKey(1, 0)]
    result = evaluate_policy(policy, params, PointMass(6, 1, 40), keys, 3)
    assert result.returns[0].isfinite().all()
    assert (result.lengths > 0).all()


@pytest.mark.parametrize("head", [multi_categorical([3, 2]), bernoulli(2), gaussian(33)])
def test_other_distributions_are_stepped(head: Any) -> None:
    policy = Policy(66, head)
    assert head.distribution is None
    assert not policy.supports_packing
    assert compiled_envs(PointMass(4, 33), policy, policy.init([0])) is None


@pytest.mark.parametrize("action", ["multi", "binary"])
@pytest.mark.parametrize("agent", ["reinforce", "actor-critic"])
def test_other_distributions_train_on(action: str, agent: str) -> None:
    """As before: by single operations of PyTorch."""
    env = {"id": "helpers.probe_envs:ProbeEcho-v0", "kwargs": {"action": action}, "max_episode_steps": 7}
    steps = {"rollout_steps": None} if agent == "reinforce" else {}
    settings = config(agent={"name": agent}, env=env, seeds=2, policy={}, **steps)
    population = build(expand_seeds(settings))
    before = population.params
    update(population), update(population)
    assert population.alive.all()
    assert any(not torch.equal(leaf, before[name]) for name, leaf in population.params.items())
    population.collector.envs.close()
