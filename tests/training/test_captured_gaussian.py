"""Captured updates of Gaussian policies are the same updates, to the last bit."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers.captured_updates import assert_same, no_snapshots
from helpers.compile_mode import set_compile_mode
from helpers.parameters import few_by_default
from helpers.point_mass import use_point_mass

from pgkit.compiler.graph import Capture
from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.training.captured import CapturedUpdates
from pgkit.training.loop import compute_update, update
from pgkit.training.population import Population, build
from pgkit.training.train import train
from pgkit.types import Params


def config(**changes: Any) -> TrainConfig:
    table: dict[str, Any] = {
        "name": "captured",
        "env": {"id": "Pendulum-v1", "max_episode_steps": 23},  # a point mass stands in for it
        "agent": {"name": "actor-critic", "lam": 0.9, "entropy_coef": 0.01},
        "optimizer": {"name": "adam", "lr": 0.01, "max_grad_norm": 0.5, "schedule": {"lr": "linear"}},
        "policy": {"log_std": 0.5},
        "steps": 6_000,
        "seeds": 5,
        "envs_per_member": 4,
        "rollout_steps": 8,
    }
    return parse_config(table | changes)


STEPS: Mapping[str, Mapping[str, Any]] = {
    "adam, clipped, with a schedule": {},
    "a shared trunk": {"policy": {"shared": True, "hidden": [16]}},
    "no hidden layer": {"policy": {"hidden": [], "critic_hidden": [5]}},
    "as many environments as fill no register": {"envs_per_member": 11},
    "one environment": {"envs_per_member": 1},
    "an optimizer for log_std": {"optimizer": {"name": "rmsprop", "groups": {"actor.log_std": {"lr": 0.1}}}},
    "everything around": {
        "optimizer": {"name": "momentum", "max_grad_value": 0.1, "lookahead_steps": 5, "weight_decay": 1e-3}
    },
    "normalised advantages": {"agent": {"name": "actor-critic", "normalize_advantage": True}},
    "squashed": {"policy": {"squash_output": True}},
}
WHOLE: Mapping[str, Mapping[str, Any]] = {
    "adam, clipped, with a schedule": {},
    "no baseline, by episodes": {"agent": {"name": "reinforce", "baseline": "none", "average": "episode"}},
    "three environments": {"envs_per_member": 3, "env": {"id": "Pendulum-v1", "max_episode_steps": 60}},
}


def alternate(single: Population, whole: Population) -> None:
    """Updates with and without Python in turns, against updates with Python; then of two members, in another order."""
    captured = CapturedUpdates(compute_update)
    for turn, times in enumerate([1, 13, 2, 9]):
        if turn == 2:
            single, whole = (population.take(torch.tensor([3, 1])) for population in (single, whole))
        update(single)
        update(whole)
        metrics = update(single, diagnose=range(single.size))
        output = captured.run(whole, 1, no_snapshots(whole), diagnose=True)
        assert output is not None
        assert output.metrics.keys() == metrics.keys()
        assert (output.metrics["policy/approx_kl"] > 0).any()
        for tag, metric in metrics.items():
            assert torch.equal(output.metrics[tag], metric.double()), tag
        for _ in range(times):
            update(single)
        assert captured.run(whole, times, no_snapshots(whole)) is not None
        assert_same(single, whole)


def whole_episodes(**changes: Any) -> TrainConfig:
    return config(**{"agent": {"name": "reinforce"}, "rollout_steps": None, **changes})


def population_of(settings: TrainConfig, waits: bool) -> Population:
    """After the first update, environments wait at the end of an episode."""
    population = build(expand_seeds(settings))
    if waits:
        update(population)
    return population


@pytest.mark.parametrize("components", few_by_default([1, 2], 2))
@pytest.mark.parametrize("case", STEPS)
def test_captured_updates_are_the_same_updates(case: str, components: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_point_mass(monkeypatch, components)
    single, whole = (population_of(config(**STEPS[case]), False) for _ in range(2))
    before = single.params["actor.log_std"]
    alternate(single, whole)
    assert before.shape == (5, 1, components)
    assert (single.params["actor.log_std"] != before).all()


@pytest.mark.parametrize("squash", [False, True])
def test_captured_updates_with_deviations_of_the_state(squash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_point_mass(monkeypatch, 2)
    policy = {"state_dependent_std": True, "squash_output": squash, "log_std": 0.5}
    single, whole = (population_of(config(policy=policy), False) for _ in range(2))
    assert "actor.log_std" not in single.params
    alternate(single, whole)


@pytest.mark.parametrize("components", few_by_default([1, 2], 1))
@pytest.mark.parametrize("case", WHOLE)
def test_captured_whole_episodes_are_the_same_updates(
    case: str, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_point_mass(monkeypatch, components)
    settings = whole_episodes(**WHOLE[case])
    single, whole = (population_of(settings, True) for _ in range(2))
    captured = CapturedUpdates(compute_update)
    for times in (1, 7):
        for _ in range(times):
            update(single)
        assert captured.run(whole, times, no_snapshots(whole)) is not None
        assert_same(single, whole)


def test_members_are_captured_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use_point_mass(monkeypatch, 2)
    together = build(expand_seeds(config()))
    assert CapturedUpdates(compute_update).run(together, 20, no_snapshots(together)) is not None
    for seed in range(5):
        alone = build(expand_seeds(config(seeds=[seed])))
        assert CapturedUpdates(compute_update).run(alone, 20, no_snapshots(alone)) is not None
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], together.params[name][seed])


def test_updates_from_the_rollouts_of_other_environments_are_captured() -> None:
    """Environments that Python steps: the rest of the update is captured."""
    settings = config(env={"id": "MountainCarContinuous-v0", "max_episode_steps": 23, "backend": "gymnasium"}, seeds=2)
    single, whole = (build(expand_seeds(settings)) for _ in range(2))
    captured = CapturedUpdates(compute_update)
    for diagnosed in (False, True, False):
        rollouts = whole.collect()
        metrics = captured.update_from_rollouts(whole, rollouts, diagnosed)
        expected = update(single, range(2) if diagnosed else ())
        assert metrics is not None
        if diagnosed:
            assert all(torch.equal(metrics[tag], metric.double()) for tag, metric in expected.items())
        assert_same(single, whole)
    for population in (single, whole):
        population.collector.envs.close()


def test_captured_updates_end_before_a_member_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_point_mass(monkeypatch)
    settings = [{"name": "adam"}, {"name": "rmsprop", "lr": 1e18}, {"name": "adam"}]
    configs = [config(seeds=[k], optimizer=optimizer) for k, optimizer in enumerate(settings)]
    single, whole = build(configs), build(configs)
    captured = CapturedUpdates(compute_update)
    while captured.run(whole, 10, no_snapshots(whole)) is not None:
        assert whole.updates < 1000
    while single.alive.all():
        update(single)
    update(whole)
    assert whole.alive.tolist() == single.alive.tolist() == [True, False, True]
    assert_same(single, whole)


def trained(mode: str, settings: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Params:
    with monkeypatch.context() as patch:
        set_compile_mode(patch, mode)
        return train(expand_seeds(settings)).params


@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
def test_every_mode_trains_the_same_parameters(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs and kernels give the same bits; PyTorch rounds differently."""
    use_point_mass(monkeypatch, 2)
    small = {"seeds": 2, "steps": 300, "policy": {"hidden": [16]}, "evaluation": {"episodes": 1}}
    settings = config(**small) if agent == "actor-critic" else whole_episodes(**small)
    graphs = trained("graphs", settings, monkeypatch)

    def refuse(capture: Capture) -> None:
        raise AssertionError("nothing may be captured")

    monkeypatch.setattr(Capture, "__enter__", refuse)
    kernels = trained("kernels", settings, monkeypatch)
    off = trained("off", settings, monkeypatch)
    assert all(torch.equal(leaf, graphs[name]) for name, leaf in kernels.items())
    for name, leaf in off.items():
        torch.testing.assert_close(leaf, graphs[name], rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(leaf, graphs[name]) for name, leaf in off.items())


def test_a_policy_learns_to_hold_the_mass_at_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A perfect episode returns nearly one per step."""
    use_point_mass(monkeypatch)
    optimizer = {"name": "adam", "lr": 0.003}
    result = train(
        expand_seeds(config(steps=40_000, envs_per_member=8, rollout_steps=16, optimizer=optimizer, seeds=3))
    )
    assert all(row["return_mean"] > 0.9 * 23 for row in result.table)
