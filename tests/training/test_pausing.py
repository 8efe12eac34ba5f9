"""Members that pause, and of whom some train on: the bits of runs without a pause."""

import pytest
import torch

import pgkit
from pgkit.config.schema import TrainConfig
from pgkit.runs.checkpoint import CorruptCheckpoint
from pgkit.training.pausing import keep_members, train_on, train_until

OPTIMIZERS = ("sgd", "adam", "momentum")


def members(agent: str) -> list[TrainConfig]:
    """Six members with three optimizers, which come in turn."""
    overrides = {
        "steps": 1500,
        "envs_per_member": 2,
        "policy.hidden": [8],
        "evaluation": {"points": 10, "episodes": 2, "final_episodes": 3},
    }
    config = pgkit.load_config(f"cartpole-{agent}", overrides)
    return [
        config.model_copy(update={"seed": seed, "optimizer": {"name": name, "lr": lr, "schedule": {"lr": "linear"}}})
        for seed, lr in ((0, 0.01), (1, 0.1))
        for name in OPTIMIZERS
    ]


@pytest.mark.parametrize("agent", ["actor-critic", pytest.param("reinforce", marks=pytest.mark.slow)])
def test_who_pauses_twice_ends_with_the_bits_of_a_run_without_a_pause(agent: str) -> None:
    configs = members(agent)
    whole = pgkit.train(configs)
    first = train_until(configs, 0.3)
    assert first.saved is not None
    assert all(450 <= steps < 1500 for steps in first.env_steps)
    kept = [1, 2, 4]  # adam twice, momentum once: sgd's group is gone
    configs = [configs[member] for member in kept]
    second = train_until(configs, 0.6, keep_members(members(agent), first.saved, kept))
    assert second.saved is not None
    assert min(second.env_steps) >= 900
    result = train_on([configs[0], configs[2]], keep_members(configs, second.saved, [0, 2]))
    rows = [1, 4]
    for name, leaf in result.params.items():
        assert torch.equal(leaf, whole.params[name][rows])
    assert torch.equal(result.final.returns, whole.final.returns[rows])
    curves = [
        [(e.point, e.env_steps, e.episodes.returns.tolist()) for e in of.evaluations if e.member == member]
        for of, member in ((result, 1), (whole, 4))
    ]
    assert curves[0] == curves[1]
    assert len(curves[0]) > 3


def test_evaluations_until_the_pause_are_there() -> None:
    whole = {e[:2]: e.episodes.returns.tolist() for e in pgkit.train(members("actor-critic")).evaluations}
    paused = train_until(members("actor-critic"), 0.5)
    points = {(e.member, e.point) for e in paused.evaluations}
    assert points >= {(member, point) for member in range(6) for point in range(6)}
    assert all(whole[e[:2]] == e.episodes.returns.tolist() for e in paused.evaluations)


def test_damage_is_noticed() -> None:
    configs = members("actor-critic")
    saved = train_until(configs, 0.1).saved
    assert saved is not None
    with pytest.raises(CorruptCheckpoint, match="paused"):
        train_on(configs, saved[:1000] + b"x" + saved[1001:])
