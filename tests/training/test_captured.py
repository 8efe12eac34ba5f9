"""Stretches of updates are the same updates, to the last bit, and happen wherever they can."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit import optim
from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training import captured as stretches_module
from pgkit.training import train
from pgkit.training.captured import CapturedUpdates
from pgkit.training.loop import compute_update, learn, update
from pgkit.training.monitor import Monitor
from pgkit.training.population import Population, build
from pgkit.training.result import TrainResult
from pgkit.tree import map_tree


def config(**changes: Any) -> TrainConfig:
    """Five members on CartPole with episodes of at most 23 steps."""
    table: dict[str, Any] = {
        "name": "stretches",
        "env": {"id": "CartPole-v1", "max_episode_steps": 23},
        "agent": {"name": "actor-critic", "lam": 0.9, "entropy_coef": 0.01},
        "optimizer": {"name": "adam", "lr": 0.01, "max_grad_norm": 0.5, "schedule": {"lr": "linear"}},
        "steps": 6_000,
        "seeds": 5,
        "envs_per_member": 4,
        "rollout_steps": 8,
    }
    return parse_config(table | changes)


CASES: Mapping[str, Mapping[str, Any]] = {
    "adam, clipped, with a schedule": {},
    "a shared trunk": {"policy": {"shared": True, "hidden": [16]}},
    "no hidden layer": {"policy": {"hidden": [], "critic_hidden": [5]}},
    "silu, as many environments as fill no register": {"policy": {"activation": "silu"}, "envs_per_member": 11},
    "one environment": {"envs_per_member": 1},
    "scaled rewards": {"env": {"id": "CartPole-v1", "reward_scale": 0.1}},
    "an optimizer of the critic's own": {
        "optimizer": {"name": "rmsprop", "critic": {"name": "adam", "lr": 0.01}, "groups": {"*.bias": {"lr": 0.1}}}
    },
    "everything around": {
        "optimizer": {
            "name": "momentum",
            "max_grad_value": 0.1,
            "reset_moments": 7,
            "lookahead_steps": 5,
            "weight_decay": 1e-3,
        }
    },
    "a cosine, with a warmup": {
        "optimizer": {"name": "nadam", "schedule": {"lr": {"kind": "cosine", "warmup": 0.05}}, "max_grad_norm": 0.5}
    },
    "steps": {"optimizer": {"name": "amsgrad", "schedule": {"lr": {"kind": "step", "every": 0.1}}}},
    "an exponential": {"optimizer": {"name": "adamw", "schedule": {"lr": {"kind": "exponential", "end": 1e-4}}}},
    "normalised advantages": {"agent": {"name": "actor-critic", "normalize_advantage": True}},
    "settings that differ": {"agent": {"name": "actor-critic", "gamma": 0.95, "value_coef": 0.7}},
}
KINDS = [
    {"name": "sgd", "lr": 0.1},
    {"name": "adam", "lr": 0.01},
    {"name": "sgd", "lr": 0.01},
    {"name": "rmsprop_tf", "max_grad_norm": 1.0},
    {"name": "adam", "lr": 0.001},
]


def population_of(case: str) -> Population:
    if case == "kinds":
        return build([config(seeds=[k], optimizer=own) for k, own in enumerate(KINDS)])
    return build(expand_seeds(config(**CASES[case])))


def tensors(population: Population) -> list[Tensor]:
    """All that differs between two populations."""
    found: list[Tensor] = []
    map_tree(found.append, population.state())
    return found


def assert_same(one: Population, other: Population) -> None:
    assert one.updates == other.updates
    assert_equal(tensors(one), tensors(other))


def assert_equal(some: list[Tensor], others: list[Tensor]) -> None:
    assert len(some) > 20
    for own, other in zip(some, others, strict=True):
        assert torch.equal(own.nan_to_num(7.0), other.nan_to_num(7.0))


def no_marks(population: Population) -> Tensor:
    return torch.full((population.size,), torch.inf, dtype=torch.float64)


def alternate(single: Population, whole: Population) -> Population:
    """Updates and stretches in turns, or updates alone; then of two members that are left, in another order."""
    stretches = CapturedUpdates(compute_update, learn)
    for turn, times in enumerate([1, 13, 2, 9]):
        if turn == 2:
            single, whole = (population.take(torch.tensor([3, 1])) for population in (single, whole))
        update(single), update(whole)
        for _ in range(times):
            update(single)
        assert stretches.go(whole, times, no_marks(whole)) is not None
        assert_same(single, whole)
    return single


@pytest.mark.parametrize("case", [*CASES, "kinds"])
def test_a_stretch_is_as_many_updates(case: str) -> None:
    single, whole = population_of(case), population_of(case)
    assert alternate(single, whole).collector.statistics.episodes.min() > 2


def test_members_of_a_stretch_are_as_alone() -> None:
    together, stretches = population_of("kinds"), CapturedUpdates(compute_update, learn)
    assert stretches.go(together, 20, no_marks(together)) is not None
    for k, own in enumerate(KINDS):
        alone = build([config(seeds=[k], optimizer=own)])
        assert CapturedUpdates(compute_update, learn).go(alone, 20, no_marks(alone)) is not None
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], together.params[name][k])


def test_parameters_are_put_aside_where_members_pass_their_marks() -> None:
    single, whole = (population_of("adam, clipped, with a schedule") for _ in range(2))
    marks = torch.tensor([100.0, torch.inf, 330.0, 32.0, 5000.0], dtype=torch.float64)
    gone = CapturedUpdates(compute_update, learn).go(whole, 12, marks)
    assert gone is not None
    assert gone.aside is not None
    aside = gone.aside
    passed = torch.zeros(5, dtype=torch.bool)
    for _ in range(12):
        update(single)
        for row in ((single.env_steps >= marks) & ~passed).nonzero().squeeze(1).tolist():
            passed[row] = True
            assert aside.env_steps[row] == single.env_steps[row]
            for name, leaf in single.params.items():
                assert torch.equal(aside.params[name][row], leaf[row])
    assert passed.tolist() == [True, False, True, True, False]
    assert aside.env_steps.isnan().tolist() == (~passed).tolist()


BREAKING = {"name": "sgd", "lr": 1e30}


def test_a_stretch_ends_before_an_update_in_which_a_member_breaks() -> None:
    """Of two populations, one stops short as if nothing had happened after it; then one update breaks the member."""
    settings = [{"name": "adam"}, {"name": "rmsprop", "lr": 1e18}, {"name": "adam"}]
    single, whole = (build([config(seeds=[k], optimizer=own) for k, own in enumerate(settings)]) for _ in range(2))
    stretches, done = CapturedUpdates(compute_update, learn), 0
    while stretches.go(whole, 10, no_marks(whole)) is not None:
        done += 1
        assert whole.alive.all()
        assert done < 100
    while single.alive.all():
        update(single)
    update(whole)
    assert whole.alive.tolist() == single.alive.tolist() == [True, False, True]
    assert_same(single, whole)


def test_a_member_that_breaks_at_once_stops_everything() -> None:
    population = build([config(seeds=[k], optimizer=own) for k, own in enumerate([BREAKING, {"name": "adam"}])])
    stretches = CapturedUpdates(compute_update, learn)
    assert stretches.go(population, 10, no_marks(population)) is not None
    assert population.updates == 1
    before = [tensor.clone() for tensor in tensors(population)]
    assert stretches.go(population, 10, no_marks(population)) is None
    assert_equal(before, tensors(population))


def episodes_of(**changes: Any) -> list[TrainConfig]:
    """The same five members with REINFORCE."""
    table = config().model_dump(exclude_defaults=True) | {"agent": {"name": "reinforce"}}
    del table["rollout_steps"]
    return expand_seeds(parse_config(table | changes))


EPISODES: Mapping[str, Mapping[str, Any]] = {
    "adam, clipped, with a schedule": {},
    "no baseline, by episodes": {"agent": {"name": "reinforce", "baseline": "none", "average": "episode"}},
    "whole returns, normalised": {"agent": {"name": "reinforce", "returns": "full", "normalize_advantage": True}},
    "three environments, scaled rewards": {
        "envs_per_member": 3,
        "env": {"id": "CartPole-v1", "max_episode_steps": 23, "reward_scale": 0.1},
    },
    "long episodes": {"env": {"id": "CartPole-v1"}, "optimizer": {"name": "sgd", "lr": 0.3, "max_grad_norm": 0.5}},
}


def begun(configs: list[TrainConfig]) -> Population:
    """After a first update, with which environments wait at the end of an episode."""
    population = build(configs)
    update(population)
    return population


@pytest.mark.parametrize("case", EPISODES)
def test_a_stretch_of_whole_episodes_is_as_many_updates(case: str) -> None:
    single, whole = (begun(episodes_of(**EPISODES[case])) for _ in range(2))
    alternate(single, whole)


def test_members_with_whole_episodes_stop_where_they_are_looked_at() -> None:
    """Each after as many updates as it takes by itself."""
    whole = begun(episodes_of())
    until = torch.tensor([400.0, 1000.0, 0.0, 401.0, 2000.0], dtype=torch.float64)
    assert CapturedUpdates(compute_update, learn).go(whole, 1000, no_marks(whole), until) is not None
    for row, end in enumerate(until.tolist()):
        alone = begun(episodes_of(seeds=[row]))
        update(alone)
        while float(alone.env_steps) < end:
            update(alone)
        assert float(alone.env_steps) == float(whole.env_steps[row])
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], whole.params[name][row])


def test_a_stretch_of_whole_episodes_ends_before_a_member_breaks() -> None:
    settings = [{"name": "adam"}, {"name": "rmsprop", "lr": 1e18}, {"name": "adam"}]
    configs = [episodes_of(seeds=[k], optimizer=own)[0] for k, own in enumerate(settings)]
    single, whole, stretches = begun(configs), begun(configs), CapturedUpdates(compute_update, learn)
    until = torch.full((3,), 1e6, dtype=torch.float64)
    while stretches.go(whole, 10, no_marks(whole), until) is not None:
        assert whole.updates < 1000
    while single.alive.all():
        update(single)
    update(whole)
    assert whole.alive.tolist() == single.alive.tolist() == [True, False, True]
    assert_same(single, whole)


def test_a_training_with_whole_episodes_ends_as_one_without_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log rows, evaluations, a member that breaks, and members that are done at different times."""
    went: list[bool] = []
    go = CapturedUpdates.go

    def spy(self: CapturedUpdates, *arguments: Any) -> Any:
        gone = go(self, *arguments)
        went.append(gone is not None)
        return gone

    monkeypatch.setattr(CapturedUpdates, "go", spy)
    changes: dict[str, Any] = {
        "evaluation": {"points": 7, "episodes": 3},
        "env": {"id": "CartPole-v1"},
        "optimizer": {"name": "sgd", "lr": 0.04},
        "steps": 20_000,
    }

    def done(stretched: bool) -> TrainResult:
        with monkeypatch.context() as patch:
            if not stretched:
                patch.setattr(Monitor, "updates_until_event", lambda *arguments: 0)
            return train.train(episodes_of(**changes))

    whole, single = done(True), done(False)
    assert sum(went) > 10
    assert whole.table == single.table
    assert whole.reasons == single.reasons
    assert len(whole.evaluations) == len(single.evaluations) > 20
    for own, other in zip(whole.evaluations, single.evaluations, strict=True):
        assert own[:3] == other[:3]
        assert torch.equal(own.episodes.returns, other.episodes.returns)
    for name, leaf in whole.params.items():
        assert torch.equal(leaf, single.params[name])


NOT_CAPTURED: Mapping[str, Mapping[str, Any]] = {
    "normalised observations": {"env": {"id": "CartPole-v1", "normalize_observations": True}},
    "normalised rewards": {"env": {"id": "CartPole-v1", "normalize_rewards": True}},
    "powers": {"optimizer": {"name": "radam"}},
    "steered by the divergence": {"optimizer": {"name": "adam", "schedule": {"lr": "kl"}}},
    "layer norms": {"optimizer": {"name": "adam", "max_layer_norm": 0.5}},
    "natural gradients": {"optimizer": {"name": "npg", "critic": {"name": "adam"}}},
    "an optimizer of PyTorch's": {"optimizer": {"name": "torch.optim:SGD", "lr": 0.01}},
    "environments of others": {"env": {"id": "Acrobot-v1"}},
}


@pytest.mark.parametrize("case", NOT_CAPTURED)
def test_what_cannot_be_captured_is_left_alone(case: str) -> None:
    population = build(expand_seeds(config(**NOT_CAPTURED[case])))
    before = [tensor.clone() for tensor in tensors(population)]
    assert CapturedUpdates(compute_update, learn).go(population, 5, no_marks(population)) is None
    assert_equal(before, tensors(population))
    population.collector.envs.close()


@pytest.mark.parametrize("case", ["the first episodes", "sums over episodes", "a shared trunk", "very long episodes"])
def test_whole_episodes_that_cannot_be_captured_are_left_alone(case: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "sums over episodes": {"agent": {"name": "reinforce", "baseline": "mean"}},
        "a shared trunk": {"policy": {"shared": True, "hidden": [16]}},
        "very long episodes": {"env": {"id": "CartPole-v1", "max_episode_steps": 1_000_000}},
    }
    configs = episodes_of(**changes.get(case, {}))
    population = build(configs) if case == "the first episodes" else begun(configs)
    before = [tensor.clone() for tensor in tensors(population)]
    assert CapturedUpdates(compute_update, learn).go(population, 5, no_marks(population)) is None
    assert_equal(before, tensors(population))


LEARNT: Mapping[str, Mapping[str, Any]] = {
    "environments of others": {"env": {"id": "Acrobot-v1", "max_episode_steps": 23}},
    "normalised observations and rewards": {
        "env": {"id": "CartPole-v1", "normalize_observations": True, "normalize_rewards": True}
    },
    "a shared trunk": {"policy": {"shared": True, "hidden": [16]}, "env": {"id": "Acrobot-v1"}},
    "normalised advantages": {
        "agent": {"name": "actor-critic", "normalize_advantage": True},
        "env": {"id": "Acrobot-v1", "reward_scale": 0.1},
    },
}


@pytest.mark.parametrize("case", LEARNT)
def test_learning_without_python_is_the_same_update(case: str) -> None:
    """Where no whole stretch can be captured; then of two members that are left."""
    single, learnt = (build(expand_seeds(config(**LEARNT[case]))) for _ in range(2))
    stretches = CapturedUpdates(compute_update, learn)
    assert stretches.go(learnt, 2, no_marks(learnt)) is None
    for turn in range(12):
        if turn == 8:
            single, learnt = (population.take(torch.tensor([4, 0])) for population in (single, learnt))
        update(single)
        assert update(learnt, stretches=stretches) == {}
        assert_same(single, learnt)
    for population in (single, learnt):
        population.collector.envs.close()


def test_learning_sees_true_last_observations() -> None:
    """As of environments that show the next episode's first observation instead."""
    single, learnt = (build(expand_seeds(config())) for _ in range(2))
    ended = 0
    for _ in range(5):
        steps = single.env_steps
        rollout = single.collect()[0].rollout
        ended += int(rollout.terminated.sum())
        seen = replace(rollout, final_obs=torch.randn(rollout.obs[1:].shape), cache=None)
        made = learn(single, [MemberRollout(None, seen, seen)], steps)
        single.params, single.updates = made.params, single.updates + 1
        learnt.collect()
        assert (
            CapturedUpdates(compute_update, learn).learn(learnt, [MemberRollout(None, seen, seen)], steps) is not None
        )
        assert_same(single, learnt)
    assert ended > 0


def test_a_member_that_breaks_while_learning_has_evidence() -> None:
    settings = [{"name": "adam"}, BREAKING]
    configs = [config(seeds=[k], env={"id": "Acrobot-v1"}, optimizer=own) for k, own in enumerate(settings)]
    single, learnt = build(configs), build(configs)
    stretches, done = CapturedUpdates(compute_update, learn), 0
    while single.alive.all():
        update(single)
        done += update(learnt, stretches=stretches) == {}
    assert done > 0
    assert learnt.alive.tolist() == [True, False]
    assert learnt.evidence is not None
    assert_same(single, learnt)
    for population in (single, learnt):
        population.collector.envs.close()


@pytest.mark.parametrize("case", [*CASES, "kinds"])
def test_a_diagnosis_without_python_is_the_same(case: str) -> None:
    """Of one update among others, also when members have left."""
    single, whole = population_of(case), population_of(case)
    stretches = CapturedUpdates(compute_update, learn)
    for turn in range(4):
        if turn == 2:
            single, whole = (population.take(torch.tensor([3, 1])) for population in (single, whole))
        metrics = update(single, diagnose=range(single.size))
        gone = stretches.go(whole, 1, no_marks(whole), diagnose=True)
        assert gone is not None
        assert_same_metrics(gone.metrics, metrics)
        update(single)
        assert stretches.go(whole, 1, no_marks(whole)) is not None
        assert_same(single, whole)


def assert_same_metrics(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """To the last bit; names may come in another order."""
    assert sorted(some) == sorted(others)
    assert_equal([some[tag].double() for tag in others], [number.double() for number in others.values()])


@pytest.mark.parametrize("case", LEARNT)
def test_a_diagnosis_of_learning_without_python_is_the_same(case: str) -> None:
    single, learnt = (build(expand_seeds(config(**LEARNT[case]))) for _ in range(2))
    stretches = CapturedUpdates(compute_update, learn)
    for _ in range(3):
        metrics = update(single, diagnose=range(single.size))
        assert_same_metrics(update(learnt, diagnose=range(learnt.size), stretches=stretches), metrics)
        assert learnt.evidence is None
        assert_same(single, learnt)
    for population in (single, learnt):
        population.collector.envs.close()


def trained(monkeypatch: pytest.MonkeyPatch, stretched: bool, **changes: Any) -> TrainResult:
    """A whole training; without stretches, every update is looked at."""
    with monkeypatch.context() as patch:
        if not stretched:
            patch.setattr(Monitor, "updates_until_event", lambda *arguments: 0)  # so they do not act, nor learn
            patch.setattr(CapturedUpdates, "learn", lambda *arguments: None)
        return train.train(expand_seeds(config(**changes)))


def test_a_training_with_stretches_ends_as_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations, budgets, a member that breaks on the way: all the same; and most updates are in stretches."""
    seen: list[int] = []
    go = CapturedUpdates.go

    def spy(self: CapturedUpdates, population: Population, *arguments: Any) -> Any:
        before = population.updates
        gone = go(self, population, *arguments)
        seen.append(population.updates - before)
        return gone

    monkeypatch.setattr(CapturedUpdates, "go", spy)
    changes = {
        "evaluation": {"points": 7, "episodes": 3},
        "optimizer": {"name": "sgd", "lr": 0.17},
        "log_interval": 900,
    }
    whole, single = (trained(monkeypatch, stretched, **changes) for stretched in (True, False))
    assert sum(seen) > 0.8 * single.parts[-1].updates > 100
    assert whole.table == single.table
    assert whole.reasons == single.reasons
    assert len(whole.evaluations) == len(single.evaluations) > 20
    for own, other in zip(whole.evaluations, single.evaluations, strict=True):
        assert own[:3] == other[:3]
        assert torch.equal(own.episodes.returns, other.episodes.returns)
    for own_part, other_part in zip(whole.parts, single.parts, strict=True):
        assert_same(own_part, other_part)


def test_stretches_take_about_as_long_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many updates that are; it changes nothing else."""
    monkeypatch.setattr(stretches_module, "SECONDS", 0.02)
    stretches, population = CapturedUpdates(compute_update, learn), population_of("one environment")
    assert stretches.most == 2
    for _ in range(4):
        assert stretches.go(population, stretches.most, no_marks(population)) is not None
    assert stretches.most > 20
    monkeypatch.setattr(stretches_module, "SECONDS", 0.0)
    assert stretches.go(population, 5, no_marks(population)) is not None
    assert stretches.most == 2


def test_a_number_that_python_has_read_is_not_captured() -> None:
    """PyTorch does not tell of ``tolist`` and ``numpy``: the next update shows it."""

    def reading(population: Population, diagnose: Sequence[int]) -> Any:
        made = compute_update(population)
        made.params["actor.2.bias"].add_(made.params["critic.2.bias"].view(-1).tolist()[0])
        return made

    population = population_of("adam, clipped, with a schedule")
    before = [tensor.clone() for tensor in tensors(population)]
    assert CapturedUpdates(reading, learn).go(population, 5, no_marks(population)) is None
    assert_equal(before, tensors(population))


def test_an_own_transform_with_torch_outside_the_captured_functions_trains_on() -> None:
    """A step that is compiled, numbers that are not: no stretch, the same training."""
    part = optim.Transform(
        step=lambda grad, leaf, scalars: scalars["rate"] * grad,
        precompute=lambda hyper, member, extra_args: {"rate": -hyper["lr"].exp()},
        hyperparameters={"lr": -5.0},
    )
    population = build(expand_seeds(config()))
    population.optimizer = optim.chain(part)
    population.opt_state = population.optimizer.init(population.params)
    assert CapturedUpdates(compute_update, learn).go(population, 5, no_marks(population)) is None
    update(population)
    assert population.alive.all()
