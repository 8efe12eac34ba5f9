"""Packed rollouts give the same gradients as padded ones, to the last bit."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.config.load import load_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitWarning
from pgkit.kernels.layout import ROW_MULTIPLE
from pgkit.kernels.packing import pack
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training.loop import gradient, targets, update
from pgkit.training.population import Population, build
from pgkit.tree import take_tree
from pgkit.types import Batch


def configs(*overrides: str) -> list[TrainConfig]:
    """Six members on CartPole whose episodes differ in length."""
    settings = ["seeds=6", "envs_per_member=8", "optimizer.name=sgd", "optimizer.lr=0.3"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgkitWarning)  # the critic's learning rate is dropped
        return expand_seeds(load_config("cartpole-reinforce", [*settings, *overrides]))


def acted(*overrides: str) -> tuple[Population, list[MemberRollout]]:
    """A population after some updates, and what it does next."""
    population = build(configs(*overrides))
    for _ in range(12):
        update(population)
    return population, population.collect()


def unpacked(piece: MemberRollout) -> MemberRollout:
    return piece._replace(rollout=replace(piece.rollout, packing=None, cache=None))


def assert_same(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    for name, leaf in some.items():
        assert torch.equal(leaf, others[name]), name


CASES: Mapping[str, tuple[str, ...]] = {
    "values": (),
    "no baseline": ("agent.baseline=none",),
    "others' mean": ("agent.baseline=leave_one_out", "agent.entropy_coef=0.1"),
    "whole returns": ("agent.returns=full", "agent.average=episode"),
    "one environment": ("envs_per_member=1",),
    "three environments, one layer": ("envs_per_member=3", "policy.hidden=[7]", "policy.activation=silu"),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_all_steps(case: str) -> None:
    population, pieces = acted(*CASES[case])
    assert any(piece.rollout.packing is not None and not piece.rollout.packing.valid.all() for piece in pieces)
    batches = [(piece.rows, targets(population, piece)) for piece in pieces]
    whole = [(piece.rows, targets(population, unpacked(piece))) for piece in pieces]
    for (_, actual), (_, other) in zip(batches, whole, strict=True):
        assert torch.equal(actual.advantage[actual.valid], other.advantage[actual.valid])
        assert actual.without_padding().valid.shape[1] <= actual.valid.shape[1]
        assert torch.equal(actual.without_padding().obs[actual.without_padding().valid], actual.obs[actual.valid])
        assert torch.equal(actual.without_padding().action[actual.without_padding().valid], actual.action[actual.valid])
    (loss, grads, _), (whole_loss, whole_grads, _) = gradient(population, batches), gradient(population, whole)
    torch.testing.assert_close(loss, whole_loss)
    assert_same(grads, whole_grads)


def test_gradients_are_those_of_a_member_alone() -> None:
    """Whose packing has no rows for others."""
    population, pieces = acted()
    grads = gradient(population, [(piece.rows, targets(population, piece)) for piece in pieces])[1]
    rows = torch.cat([torch.arange(6) if piece.rows is None else piece.rows for piece in pieces])
    place = 0
    for piece in pieces:
        for k in range(piece.rollout.valid.shape[1]):
            fields = ("obs", "action", "reward", "terminated", "truncated", "valid")
            columns = {name: getattr(piece.rollout, name)[:, [k]] for name in fields}
            rollout = replace(piece.rollout, cache=None, **columns)
            rollout = replace(rollout, packing=pack(rollout.obs, rollout.valid))
            row = rows[place : place + 1]
            alone = population.take(row)
            assert_same(
                gradient(alone, [(None, targets(alone, MemberRollout(None, rollout, rollout, alone.env_steps)))])[1],
                take_tree(grads, row),
            )
            place += 1
    assert place == 6


@pytest.mark.parametrize("change", ["fewer samples", "other observations"])
def test_what_an_agent_changes_counts(change: str) -> None:
    """It may leave samples out, or let networks see something else."""
    population, pieces = acted()

    def changed(batch: Batch) -> Batch:
        if change == "fewer samples":
            return batch._replace(valid=batch.valid & (batch.action == 1))
        return batch._replace(obs=batch.obs * 2)

    actual = [(piece.rows, changed(targets(population, piece))) for piece in pieces]
    other = [(piece.rows, changed(targets(population, unpacked(piece)))) for piece in pieces]
    grads = gradient(population, actual)[1]
    assert_same(grads, gradient(population, other)[1])
    as_it_was = gradient(population, [(piece.rows, targets(population, piece)) for piece in pieces])[1]
    assert not torch.equal(grads["actor.0.weight"], as_it_was["actor.0.weight"])


def test_places_are_those_of_steps_and_of_what_follows_the_last() -> None:
    valid = torch.tensor([[[1, 1], [1, 1]], [[1, 0], [0, 1]], [[1, 0], [0, 0]]], dtype=torch.bool)  # (3, 2, 2)
    obs = torch.arange(4 * 2 * 2, dtype=torch.float32).view(4, 2, 2, 1)
    packing = pack(obs, valid)
    assert packing.lengths.tolist() == [6, 5]
    assert packing.forward_sizes.tolist() == [8, 8]
    assert packing.sizes.tolist() == [ROW_MULTIPLE] * 2
    assert packing.indices[0, :6].tolist() == [0, 1, 2, 4, 6, 3]
    assert packing.indices[1, :5].tolist() == [0, 1, 3, 2, 5]
    assert packing.valid.sum(1).tolist() == [4, 3]
    numbers = torch.randn(2, packing.indices.shape[1])
    numbers[1, 5:] = torch.nan  # never computed
    whole = packing.scatter(numbers, 8)
    assert whole[0, [0, 1, 2, 4, 6, 3]].tolist() == numbers[0, :6].tolist()
    assert whole[1].nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 5]


MULTI_DISCRETE = ("env.id=helpers.probe_envs:ProbeEcho-v0", "env.kwargs.action=multi", "steps=2000")


@pytest.mark.parametrize("overrides", [("policy.shared=true",), MULTI_DISCRETE])
def test_what_does_not_pack_is_whole(overrides: Any) -> None:
    population = build(configs(*overrides, "env.max_episode_steps=20"))
    assert all(piece.rollout.packing is None for piece in population.collect())
    population.collector.envs.close()


def test_a_diagnosis_of_some_members_is_that_of_all() -> None:
    """Of others there is nothing."""
    all_of_them, some = build(configs()), build(configs())
    for _ in range(4):
        whole, actual = update(all_of_them, range(6)), update(some, [4, 1])
        for tag in ("policy/approx_kl", "value/explained_variance"):
            assert torch.equal(actual[tag][[4, 1]], whole[tag][[4, 1]])
            assert actual[tag].isnan().tolist() == [True, False, True, True, False, True]
    assert_same(all_of_them.params, some.params)
