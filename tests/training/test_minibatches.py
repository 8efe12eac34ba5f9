"""Epochs and minibatches: what an update does with its rollout, the same captured, in Python, alone and together."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from helpers.captured_updates import no_snapshots
from helpers.compile_mode import set_compile_mode
from helpers.parameters import few_by_default
from helpers.trees import assert_equal
from torch import Tensor

from pgkit import optim
from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.training import minibatches
from pgkit.training.captured import CapturedUpdates
from pgkit.training.loop import compute_update, gradient, targets, update
from pgkit.training.population import Population, UpdateResult, build
from pgkit.training.train import train
from pgkit.types import Batch


def config(**changes: Any) -> TrainConfig:
    """Four members on CartPole, 32 samples of each in an update."""
    table: dict[str, Any] = {
        "name": "minibatches",
        "env": {"id": "CartPole-v1", "max_episode_steps": 23},
        "agent": {"name": "ppo", "entropy_coef": 0.01},
        "policy": {"hidden": [16]},
        "optimizer": {"name": "adam", "lr": 0.01, "max_grad_norm": 0.5, "schedule": {"lr": "linear"}},
        "steps": 1_000,
        "seeds": 4,
        "envs_per_member": 4,
        "rollout_steps": 8,
        "epochs": 3,
        "minibatches": 4,
        "evaluation": {"points": 2, "episodes": 2, "final_episodes": 2},
        "log_interval": 200,
    }
    return parse_config(table | changes)


CASES: Mapping[str, Mapping[str, Any]] = {
    "shuffled": {},
    "stopped by the divergence": {"target_kl": 0.003, "optimizer": {"name": "adam", "lr": 0.02}},
    "whole batches": {"minibatches": 1},
    "one epoch": {"epochs": 1},
    "single samples": {"minibatches": 32, "epochs": 1},
    "actor-critic": {"agent": {"name": "actor-critic", "normalize_advantage": True}, "epochs": 3, "target_kl": 0.01},
    "clipped values, normalised over the batch": {
        "agent": {"name": "ppo", "clip_range_vf": 0.1, "normalize_over": "batch"}
    },
    "a shared trunk": {"policy": {"shared": True, "hidden": [16]}},
    "continuous actions": {"env": {"id": "Pendulum-v1", "max_episode_steps": 30}},
    "groups of the optimizer": {
        "optimizer": {"name": "rmsprop", "critic": {"name": "adam", "lr": 0.01}, "groups": {"*.bias": {"lr": 0.1}}},
        "target_kl": 0.002,
    },
    "moments that are reset at each rollout": {"optimizer": {"name": "adam", "lr": 0.01, "reset_moments": "rollout"}},
    "environments that step as a block": {"env": {"id": "LunarLander-v3", "max_episode_steps": 30}},
    "environments in Python": {"env": {"id": "CartPole-v1", "backend": "gymnasium"}, "seeds": 2},
    "normalised observations": {"env": {"id": "CartPole-v1", "normalize_observations": True}},
}


def outcome(configs: list[TrainConfig]) -> tuple[Any, Any]:
    result = train(configs)
    assert not any(row["failed"] for row in result.table)
    return result.params, result.table


FEW = ("shuffled", "stopped by the divergence", "actor-critic", "environments in Python")
CAPTURED = [case for case in CASES if case not in ("environments in Python", "normalised observations")]


@pytest.mark.parametrize("case", few_by_default(CASES, *FEW))
def test_captured_updates_are_pythons(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, over a whole training with log rows and evaluations."""
    configs = expand_seeds(config(**CASES[case]))
    captured = outcome(configs)
    set_compile_mode(monkeypatch, "kernels")
    params, table = outcome(configs)
    assert_equal(captured[0], params)
    assert captured[1] == table


@pytest.mark.parametrize("case", few_by_default(CAPTURED, *(case for case in FEW if case in CAPTURED)))
def test_updates_are_captured(case: str) -> None:
    """Whole, with their rollouts; the metrics of a log row are those of Python."""
    single, whole = (build(expand_seeds(config(**CASES[case]))) for _ in range(2))
    captured = CapturedUpdates(compute_update)
    for _ in range(3):
        metrics = update(single, diagnose=range(single.size))
        output = captured.run(whole, 1, no_snapshots(whole), diagnose=True)
        assert output is not None
        assert output.metrics.keys() == metrics.keys()
        for tag, metric in metrics.items():
            assert torch.equal(output.metrics[tag].nan_to_num(7.0), metric.double().nan_to_num(7.0)), tag
    assert_equal(single.params, whole.params)


@pytest.mark.parametrize("case", ["shuffled", "stopped by the divergence", "continuous actions", "actor-critic"])
def test_members_are_bit_identical_alone_and_together(case: str) -> None:
    configs = expand_seeds(config(**CASES[case]))
    together, table = outcome(configs)
    for k in (0, 3):
        alone, row = outcome([configs[k]])
        assert row[0] == table[k]
        for name, leaf in alone.items():
            assert torch.equal(leaf[0], together[name][k])


def test_kernels_and_tensor_operations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, which one update does not blow up; the minibatches are the same."""
    compiled, plain = (build(expand_seeds(config())) for _ in range(2))
    update(compiled)
    set_compile_mode(monkeypatch, "off")
    update(plain)
    for name, leaf in compiled.params.items():
        assert (leaf - plain.params[name]).abs().max() < 2e-4, name


def steps_of_update(population: Population) -> list[tuple[Batch, bool]]:
    """The minibatches of an update's steps, and whether each is the first from its rollout."""
    seen: list[tuple[Batch, bool]] = []
    rollouts = population.collect()
    batches = [(None, targets(population, rollouts[0]))]

    def step(at: Population, _: Any, batches: Any, diagnose: Any, is_first: Tensor) -> UpdateResult:
        seen.append((batches[0][1], bool(is_first.all())))
        ok = torch.ones_like(at.alive)
        return UpdateResult(batches, at.params, at.params, at.opt_state, torch.zeros(1, at.size), ok, at.kl, {})

    minibatches.for_each_minibatch(population, rollouts, batches, step, ())
    return seen


def test_each_epoch_has_each_sample_of_a_member_once() -> None:
    population = build(expand_seeds(config()))
    for _ in range(2):
        steps = steps_of_update(population)
        assert [is_first for _, is_first in steps] == [True] + [False] * 11
        rollout_obs = None
        for epoch in range(3):
            obs = torch.cat([batch.obs for batch, _ in steps[4 * epoch : 4 * epoch + 4]], 1)
            assert obs.shape == (4, 32, 4)
            rows = [sorted(map(tuple, member.tolist())) for member in obs]
            assert rows == (rollout_obs or rows)
            rollout_obs = rows
        orders = [torch.cat([batch.obs for batch, _ in steps[4 * e : 4 * e + 4]], 1) for e in range(3)]
        assert not torch.equal(orders[0], orders[1])


def test_the_early_stop_leaves_parameters_and_optimizer_state() -> None:
    """SB3's rule: the minibatch whose divergence is above 1.5 target_kl, and all later ones, change nothing."""
    changes = {"optimizer": {"name": "adam", "lr": 0.02}, "seeds": 4}
    whole = build(expand_seeds(config(**changes)))
    divergence = []

    def step_of(population: Population, stop: list[int] | None) -> Any:
        number = 0

        def step(at: Population, rollouts: Any, batches: Any, diagnose: Any, is_first: Tensor) -> UpdateResult:
            nonlocal number
            loss, grads, metrics = gradient(at, batches)
            params, largest, opt_state = at.optimizer.apply(grads, at.opt_state, at.params)
            for k, last in enumerate(stop or ()):
                if number >= last:
                    for name, leaf in params.items():
                        leaf[k] = at.params[name][k]
            if stop is None:
                divergence.append(metrics["update/approx_kl"])
            number += 1
            return UpdateResult(batches, at.params, params, opt_state, largest, loss == loss, at.kl, metrics)

        return step

    rollouts = whole.collect()
    batches = [(None, targets(whole, rollouts[0]))]
    fresh = whole.optimizer.copy(whole.opt_state)
    minibatches.for_each_minibatch(whole, rollouts, batches, step_of(whole, None), ())
    table = torch.stack(divergence)
    limit = 0.6 * float(table.max(0).values.min())  # so that everybody goes beyond 1.5 times as much
    stop = [int((table[:, k] > 1.5 * limit).nonzero()[0]) for k in range(4)]
    assert len(set(stop)) > 1
    assert max(stop) < 12
    whole.opt_state = whole.optimizer.copy(fresh)
    expected = minibatches.for_each_minibatch(whole, rollouts, batches, step_of(whole, stop), ())
    whole.passes = whole.passes._replace(target_kl=limit)
    whole.opt_state = whole.optimizer.copy(fresh)
    result = minibatches.for_each_minibatch(whole, rollouts, batches, step_of(whole, [99] * 4), range(4))
    assert_equal(result.params, expected.params)
    assert result.metrics["update/optimizer_steps"].tolist() == stop
    assert result.metrics["update/stopped"].tolist() == [1.0] * 4
    assert optim.diagnostics(result.opt_state)["lr"].shape == (4,)


def test_an_adapted_optimizer_stops_like_a_chain() -> None:
    """Adam of torch, and pgkit's with the same formula: the same minibatches count."""
    changes: dict[str, Any] = {"target_kl": 0.003, "seeds": 3}
    tables = [{"name": "adam", "lr": 0.02}, {"name": "torch.optim:Adam", "lr": 0.02}]
    populations = [build(expand_seeds(config(optimizer=table, **changes))) for table in tables]
    stopped = []
    for population in populations:
        for _ in range(3):
            metrics = update(population, range(3))
            stopped.append(metrics["update/optimizer_steps"].tolist())
    assert stopped[:3] == stopped[3:]
    assert any(0 < steps < 12 for row in stopped for steps in row)
    for name, leaf in populations[0].params.items():
        assert (leaf - populations[1].params[name]).abs().max() < 1e-4


def test_a_member_that_fails_in_a_later_minibatch_says_why() -> None:
    tables = [{"name": "adam", "lr": 0.01}, {"name": "sgd", "lr": 1e18, "max_grad_norm": 1e18}]
    configs = [config(seeds=[k], optimizer=table) for k, table in enumerate(tables)]
    result = train(configs)
    assert [row["failed"] for row in result.table] == [False, True]
    assert any(word in result.reasons[1] for word in ("loss/", "output of the actor", "gradient", "update of"))
    alone = train(configs[:1])
    for name, leaf in alone.params.items():
        assert torch.equal(leaf[0], result.params[name][0])


def test_one_epoch_of_one_minibatch_is_what_it_was() -> None:
    """No shuffle, no new metrics, and the cache of the forward pass is used."""
    population = build(expand_seeds(config(epochs=1, minibatches=1)))
    metrics = update(population, range(4))
    assert "update/optimizer_steps" not in metrics
    plain = build(expand_seeds(config(epochs=1, minibatches=1, agent={"name": "actor-critic", "lam": 0.95})))
    assert "update/approx_kl" not in update(plain, range(4))


@pytest.mark.parametrize("mode", ["graphs", "kernels"])
def test_the_clock_of_adam_rel_begins_anew_with_each_rollout_and_not_with_each_epoch(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every update it has counted the steps of all epochs: 3 times 4."""
    set_compile_mode(monkeypatch, mode)
    table = {"name": "adam_rel", "beta1": 0.9, "beta2": 0.99}
    population = build(expand_seeds(config(optimizer=table, seeds=2)))
    captured = CapturedUpdates(compute_update)
    for _ in range(3):
        if captured.run(population, 1, no_snapshots(population)) is None:
            assert mode == "kernels"
            update(population)
        powers = population.opt_state["member_state"]
        for name, beta in (("beta1_power", 0.9), ("beta2_power", 0.99)):
            torch.testing.assert_close(powers[name], torch.full((2,), beta**12, dtype=torch.float64))
