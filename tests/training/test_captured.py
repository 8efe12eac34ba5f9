"""Captured updates are the same updates, to the last bit, and replace Python wherever they can."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.captured_updates import assert_equal, assert_same, no_snapshots, tensors
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit import optim
from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training import captured as captured_module
from pgkit.training import train
from pgkit.training.captured import CapturedUpdates
from pgkit.training.loop import compute_update, update
from pgkit.training.population import Population, build
from pgkit.training.result import TrainResult
from pgkit.tree import map_tree


def config(**changes: Any) -> TrainConfig:
    """Five members on CartPole with episodes of at most 23 steps."""
    table: dict[str, Any] = {
        "name": "captured",
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
    "environments that step as a block": {"env": {"id": "LunarLander-v3", "max_episode_steps": 30}},
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
    "caution, and TRAC": {
        "optimizer": {"name": "adamw", "cautious": True, "critic": {"name": "sgd", "lr": 0.1, "trac": True}}
    },
    "clipped, then TRAC": {"optimizer": {"name": "adam_rel", "trac": True, "trac_s_prev": 0.1, "max_grad_norm": 0.5}},
    "schedule-free": {
        "optimizer": {"name": "schedule_free_adamw", "lr": 0.01, "warmup_steps": 5, "r": 0.5, "max_grad_norm": 0.5}
    },
    "schedule-free, but for the critic": {
        "optimizer": {"name": "schedule_free_sgd", "weight_decay": 1e-3, "critic": {"name": "adam"}}
    },
    "an exponential": {"optimizer": {"name": "adamw", "schedule": {"lr": {"kind": "exponential", "end": 1e-4}}}},
    "normalised advantages": {"agent": {"name": "actor-critic", "normalize_advantage": True}},
    "settings that differ": {"agent": {"name": "actor-critic", "gamma": 0.95, "value_coef": 0.7}},
}
OPTIMIZERS = [
    {"name": "sgd", "lr": 0.1},
    {"name": "adam", "lr": 0.01},
    {"name": "sgd", "lr": 0.01},
    {"name": "schedule_free_sgd", "lr": 0.1, "max_grad_norm": 1.0},
    {"name": "adam", "lr": 0.001},
]


def population_of(case: str) -> Population:
    if case == "mixed optimizers":
        return build([config(seeds=[k], optimizer=optimizer) for k, optimizer in enumerate(OPTIMIZERS)])
    return build(expand_seeds(config(**CASES[case])))


def alternate(single: Population, whole: Population, diagnose: bool = False) -> Population:
    """Updates with and without Python in turns, against updates with Python; then of two members, in another order."""
    captured = CapturedUpdates(compute_update)
    for turn, times in enumerate([1, 13, 2, 9]):
        if turn == 2:
            single, whole = (population.take(torch.tensor([3, 1])) for population in (single, whole))
        update(single)
        update(whole)
        if diagnose:
            metrics = update(single, diagnose=range(single.size))
            output = captured.run(whole, 1, no_snapshots(whole), diagnose=True)
            assert output is not None
            assert_same_metrics(output.metrics, metrics)
        for _ in range(times):
            update(single)
        assert captured.run(whole, times, no_snapshots(whole)) is not None
        assert_same(single, whole)
    return single


DIAGNOSED = {
    "adam, clipped, with a schedule",
    "a shared trunk",
    "no hidden layer",
    "an optimizer of the critic's own",
    "everything around",
    "clipped, then TRAC",
    "normalised advantages",
    "mixed optimizers",
}


@pytest.mark.parametrize("case", [*CASES, "mixed optimizers"])
def test_captured_updates_are_the_same_updates(case: str) -> None:
    """Log rows, too, of optimizers and networks that differ in what they report."""
    single = alternate(population_of(case), population_of(case), diagnose=case in DIAGNOSED)
    assert single.collector.statistics.episodes.min() > 2


def test_members_are_captured_as_alone() -> None:
    together, captured = population_of("mixed optimizers"), CapturedUpdates(compute_update)
    assert captured.run(together, 20, no_snapshots(together)) is not None
    for k, optimizer in enumerate(OPTIMIZERS):
        alone = build([config(seeds=[k], optimizer=optimizer)])
        assert CapturedUpdates(compute_update).run(alone, 20, no_snapshots(alone)) is not None
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], together.params[name][k])


@pytest.mark.parametrize("case", ["adam, clipped, with a schedule", "schedule-free", "mixed optimizers"])
def test_evaluation_parameters_are_snapshot_where_members_reach_their_step(case: str) -> None:
    single, whole = (population_of(case) for _ in range(2))
    snapshot_at = torch.tensor([100.0, torch.inf, 330.0, 32.0, 5000.0], dtype=torch.float64)
    output = CapturedUpdates(compute_update).run(whole, 12, snapshot_at)
    assert output is not None
    assert output.snapshots is not None
    snapshots = output.snapshots
    passed = torch.zeros(5, dtype=torch.bool)
    for _ in range(12):
        update(single)
        for row in ((single.env_steps >= snapshot_at) & ~passed).nonzero().squeeze(1).tolist():
            passed[row] = True
            assert snapshots.env_steps[row] == single.env_steps[row]
            for name, leaf in single.eval_params.items():
                assert torch.equal(snapshots.params[name][row], leaf[row])
    assert passed.tolist() == [True, False, True, True, False]
    assert snapshots.env_steps.isnan().tolist() == (~passed).tolist()


BREAKING = {"name": "sgd", "lr": 1e30}


def test_captured_updates_end_before_a_member_breaks() -> None:
    """Of two populations, one stops short as if nothing had happened after it; then one update breaks the member."""
    settings = [{"name": "adam"}, {"name": "rmsprop", "lr": 1e18}, {"name": "adam"}]
    single, whole = (
        build([config(seeds=[k], optimizer=optimizer) for k, optimizer in enumerate(settings)]) for _ in range(2)
    )
    captured, done = CapturedUpdates(compute_update), 0
    while captured.run(whole, 10, no_snapshots(whole)) is not None:
        done += 1
        assert whole.alive.all()
        assert done < 100
    while single.alive.all():
        update(single)
    update(whole)
    assert whole.alive.tolist() == single.alive.tolist() == [True, False, True]
    assert_same(single, whole)


def test_a_member_that_breaks_at_once_stops_everything() -> None:
    population = build(
        [config(seeds=[k], optimizer=optimizer) for k, optimizer in enumerate([BREAKING, {"name": "adam"}])]
    )
    captured = CapturedUpdates(compute_update)
    assert captured.run(population, 10, no_snapshots(population)) is not None
    assert population.updates == 1
    before = [tensor.clone() for tensor in tensors(population)]
    assert captured.run(population, 10, no_snapshots(population)) is None
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
    "environments that step as a block": {"env": {"id": "LunarLander-v3", "max_episode_steps": 90}},
    "long episodes": {"env": {"id": "CartPole-v1"}, "optimizer": {"name": "sgd", "lr": 0.3, "max_grad_norm": 0.5}},
}


def after_one_update(configs: list[TrainConfig]) -> Population:
    """After the first update, environments wait at the end of an episode."""
    population = build(configs)
    update(population)
    return population


@pytest.mark.parametrize("case", EPISODES)
def test_captured_whole_episodes_are_the_same_updates(case: str) -> None:
    single, whole = (after_one_update(episodes_of(**EPISODES[case])) for _ in range(2))
    before = single.params
    after = alternate(single, whole)
    assert after.updates == 1 + 4 + 1 + 13 + 2 + 9
    assert any(not torch.equal(after.params[name], leaf[[3, 1]]) for name, leaf in before.items())


def test_members_with_whole_episodes_stop_at_their_step() -> None:
    """Each after as many updates as it takes by itself."""
    whole = after_one_update(episodes_of())
    stop_at = torch.tensor([400.0, 1000.0, 0.0, 401.0, 2000.0], dtype=torch.float64)
    assert CapturedUpdates(compute_update).run(whole, 1000, no_snapshots(whole), stop_at) is not None
    for row, end in enumerate(stop_at.tolist()):
        alone = after_one_update(episodes_of(seeds=[row]))
        update(alone)
        while float(alone.env_steps) < end:
            update(alone)
        assert float(alone.env_steps) == float(whole.env_steps[row])
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], whole.params[name][row])


def test_captured_whole_episodes_end_before_a_member_breaks() -> None:
    settings = [{"name": "adam"}, {"name": "rmsprop", "lr": 1e18}, {"name": "adam"}]
    configs = [episodes_of(seeds=[k], optimizer=optimizer)[0] for k, optimizer in enumerate(settings)]
    single, whole, captured = after_one_update(configs), after_one_update(configs), CapturedUpdates(compute_update)
    stop_at = torch.full((3,), 1e6, dtype=torch.float64)
    while captured.run(whole, 10, no_snapshots(whole), stop_at) is not None:
        assert whole.updates < 1000
    while single.alive.all():
        update(single)
    update(whole)
    assert whole.alive.tolist() == single.alive.tolist() == [True, False, True]
    assert_same(single, whole)


def test_a_training_with_captured_whole_episodes_ends_as_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log rows, evaluations, a member that breaks, and members that are done at different times."""
    ran: list[bool] = []
    run = CapturedUpdates.run

    def spy(self: CapturedUpdates, *arguments: Any) -> Any:
        output = run(self, *arguments)
        ran.append(output is not None)
        return output

    monkeypatch.setattr(CapturedUpdates, "run", spy)
    changes: dict[str, Any] = {
        "evaluation": {"points": 7, "episodes": 3},
        "env": {"id": "CartPole-v1"},
        "optimizer": {"name": "sgd", "lr": 0.04},
        "steps": 20_000,
    }

    def done(captured: bool) -> TrainResult:
        with monkeypatch.context() as patch:
            if not captured:
                set_compile_mode(patch, "kernels")
            return train.train(episodes_of(**changes))

    whole, single = done(True), done(False)
    assert sum(ran) > 10
    assert whole.table == single.table
    assert whole.reasons == single.reasons
    assert len(whole.evaluations) == len(single.evaluations) > 20
    for evaluation, other in zip(whole.evaluations, single.evaluations, strict=True):
        assert evaluation[:3] == other[:3]
        assert torch.equal(evaluation.episodes.returns, other.episodes.returns)
    for name, leaf in whole.params.items():
        assert torch.equal(leaf, single.params[name])


NOT_CAPTURED: Mapping[str, Mapping[str, Any]] = {
    "normalised observations": {"env": {"id": "CartPole-v1", "normalize_observations": True}},
    "normalised rewards": {"env": {"id": "CartPole-v1", "normalize_rewards": True}},
    "powers": {"optimizer": {"name": "radam"}},
    "steered by the divergence": {"optimizer": {"name": "adam", "schedule": {"lr": "kl"}}},
    "layer norms": {"optimizer": {"name": "adam", "max_layer_norm": 0.5}},
    "natural gradients": {"optimizer": {"name": "npg", "critic": {"name": "adam"}}},
    "a line search": {"optimizer": {"name": "trpo", "critic": {"name": "adam"}}},
    "limited steps": {"optimizer": {"name": "adam", "kl_limit": 0.01}},
    "steps limited by the Fisher matrix": {"optimizer": {"name": "adam", "kl_limit": 0.01, "kl_backtracking": False}},
    "projected weights": {
        "optimizer": {"name": "adam", "normalize_and_project": 1},
        "policy": {"hidden": [8], "layer_norm": True},
    },
    "an optimizer of PyTorch's": {"optimizer": {"name": "torch.optim:SGD", "lr": 0.01}},
    "environments of others": {"env": {"id": "Acrobot-v1", "backend": "gymnasium"}},
}


@pytest.mark.parametrize("case", NOT_CAPTURED)
def test_what_cannot_be_captured_is_left_alone(case: str) -> None:
    population = build(expand_seeds(config(**NOT_CAPTURED[case])))
    before = [tensor.clone() for tensor in tensors(population)]
    assert CapturedUpdates(compute_update).run(population, 5, no_snapshots(population)) is None
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
    population = build(configs) if case == "the first episodes" else after_one_update(configs)
    before = [tensor.clone() for tensor in tensors(population)]
    assert CapturedUpdates(compute_update).run(population, 5, no_snapshots(population)) is None
    assert_equal(before, tensors(population))


LEARNT: Mapping[str, Mapping[str, Any]] = {
    "environments of others": {"env": {"id": "Acrobot-v1", "backend": "gymnasium", "max_episode_steps": 23}},
    "normalised observations and rewards": {
        "env": {"id": "CartPole-v1", "normalize_observations": True, "normalize_rewards": True}
    },
    "a shared trunk": {"policy": {"shared": True, "hidden": [16]}, "env": {"id": "Acrobot-v1", "backend": "gymnasium"}},
    "normalised advantages": {
        "agent": {"name": "actor-critic", "normalize_advantage": True},
        "env": {"id": "Acrobot-v1", "backend": "gymnasium", "reward_scale": 0.1},
    },
}


@pytest.mark.parametrize("case", LEARNT)
def test_learning_without_python_is_the_same_update(case: str) -> None:
    """Where no whole update can be captured; then of two members that are left."""
    single, learnt = (build(expand_seeds(config(**LEARNT[case]))) for _ in range(2))
    captured = CapturedUpdates(compute_update)
    assert captured.run(learnt, 2, no_snapshots(learnt)) is None
    for turn in range(12):
        if turn == 8:
            single, learnt = (population.take(torch.tensor([4, 0])) for population in (single, learnt))
        update(single)
        assert update(learnt, captured=captured) == {}
        assert_same(single, learnt)
    for population in (single, learnt):
        population.collector.envs.close()


def test_learning_sees_true_last_observations() -> None:
    """As of environments that show the next episode's first observation instead."""
    single, learnt = (build(expand_seeds(config())) for _ in range(2))
    ended = 0
    for _ in range(5):
        (member,) = single.collect()
        rollout = member.rollout
        ended += int(rollout.terminated.sum())
        seen = replace(rollout, final_obs=torch.randn(rollout.obs[1:].shape), cache=None)
        rollouts = [MemberRollout(None, seen, seen, member.steps_before)]
        result = compute_update(single, rollouts)
        single.params = result.params
        single.opt_state = result.opt_state
        single.updates += 1
        learnt.collect()
        assert CapturedUpdates(compute_update).update_from_rollouts(learnt, rollouts) is not None
        assert_same(single, learnt)
    assert ended > 0


def test_a_member_that_breaks_while_learning_leaves_a_trace() -> None:
    settings = [{"name": "adam"}, BREAKING]
    configs = [
        config(seeds=[k], env={"id": "Acrobot-v1", "backend": "gymnasium"}, optimizer=optimizer)
        for k, optimizer in enumerate(settings)
    ]
    single, learnt = build(configs), build(configs)
    captured, done = CapturedUpdates(compute_update), 0
    while single.alive.all():
        update(single)
        done += update(learnt, captured=captured) == {}
    assert done > 0
    assert learnt.alive.tolist() == [True, False]
    assert learnt.trace is not None
    assert_same(single, learnt)
    for population in (single, learnt):
        population.collector.envs.close()


def assert_same_metrics(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """To the last bit; names may come in another order."""
    assert sorted(some) == sorted(others)
    assert_equal([some[tag].double() for tag in others], [number.double() for number in others.values()])


@pytest.mark.parametrize("case", LEARNT)
def test_a_diagnosis_of_learning_without_python_is_the_same(case: str) -> None:
    single, learnt = (build(expand_seeds(config(**LEARNT[case]))) for _ in range(2))
    captured = CapturedUpdates(compute_update)
    for _ in range(3):
        metrics = update(single, diagnose=range(single.size))
        assert_same_metrics(update(learnt, diagnose=range(learnt.size), captured=captured), metrics)
        assert learnt.trace is None
        assert_same(single, learnt)
    for population in (single, learnt):
        population.collector.envs.close()


def trained(monkeypatch: pytest.MonkeyPatch, captured: bool, **changes: Any) -> TrainResult:
    """A whole training, with captured updates or without."""
    with monkeypatch.context() as patch:
        if not captured:
            set_compile_mode(patch, "kernels")
        return train.train(expand_seeds(config(**changes)))


def test_a_training_with_captured_updates_ends_as_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations, budgets, a member that breaks on the way: all the same; and most updates are captured."""
    seen: list[int] = []
    run = CapturedUpdates.run

    def spy(self: CapturedUpdates, population: Population, *arguments: Any) -> Any:
        before = population.updates
        output = run(self, population, *arguments)
        seen.append(population.updates - before)
        return output

    monkeypatch.setattr(CapturedUpdates, "run", spy)
    changes = {
        "evaluation": {"points": 7, "episodes": 3},
        "optimizer": {"name": "sgd", "lr": 0.17},
        "log_interval": 900,
    }
    whole, single = (trained(monkeypatch, captured, **changes) for captured in (True, False))
    assert sum(seen) > 0.8 * single.parts[-1]["updates"] > 100
    assert whole.table == single.table
    assert whole.reasons == single.reasons
    assert len(whole.evaluations) == len(single.evaluations) > 20
    for evaluation, other in zip(whole.evaluations, single.evaluations, strict=True):
        assert evaluation[:3] == other[:3]
        assert torch.equal(evaluation.episodes.returns, other.episodes.returns)
    for part, other in zip(whole.parts, single.parts, strict=True):
        assert part["updates"] == other["updates"]
        leaves: tuple[list[Tensor], list[Tensor]] = ([], [])
        map_tree(leaves[0].append, part)
        map_tree(leaves[1].append, other)
        assert_equal(*leaves)


def test_captured_updates_take_about_as_long_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many updates that are; it changes nothing else."""
    clock = iter([0.0, 0.01, 10.0, 15.0])  # five updates of 2 ms, then five of a second
    monkeypatch.setattr(captured_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    captured, population = CapturedUpdates(compute_update), population_of("one environment")
    assert captured.max_updates == 2
    assert captured.run(population, 5, no_snapshots(population)) is not None
    assert captured.max_updates == int(5 * captured_module.SECONDS / 0.01)
    assert captured.run(population, 5, no_snapshots(population)) is not None
    assert captured.max_updates == 2


def test_a_number_that_python_has_read_is_not_captured() -> None:
    """PyTorch does not tell of ``tolist`` and ``numpy``: the next update shows it."""

    def reading(population: Population, rollouts: Sequence[MemberRollout], diagnose: Sequence[int]) -> Any:
        result = compute_update(population, rollouts)
        result.params["actor.2.bias"].add_(result.params["critic.2.bias"].view(-1).tolist()[0])
        return result

    population = population_of("adam, clipped, with a schedule")
    before = [tensor.clone() for tensor in tensors(population)]
    assert CapturedUpdates(reading).run(population, 5, no_snapshots(population)) is None
    assert_equal(before, tensors(population))


def test_a_custom_transform_with_torch_outside_the_captured_functions_trains_on() -> None:
    """A step that is compiled, numbers that are not: nothing is captured, the training is the same."""
    part = optim.Transform(
        step=lambda grad, leaf, scalars: scalars["rate"] * grad,
        precompute=lambda hyper, member, extra_args: {"rate": -hyper["lr"].exp()},
        hyperparameters={"lr": -5.0},
    )
    population = build(expand_seeds(config()))
    population.optimizer = optim.chain(part)
    population.opt_state = population.optimizer.init(population.params)
    assert CapturedUpdates(compute_update).run(population, 5, no_snapshots(population)) is None
    update(population)
    assert population.alive.all()
