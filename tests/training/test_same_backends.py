"""A training run is the same in pgkit's environments and in Gymnasium's, as far as their sines and cosines are."""

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.parameters import few_by_default

import pgkit
from pgkit.training.result import TrainResult

EXACT = [
    ("MountainCar-v0", "actor-critic"),
    ("MountainCar-v0", "reinforce"),
    ("MountainCarContinuous-v0", "actor-critic"),
]
"""Environments whose episodes have had the same bits in all runs so far: what differs in the last bit of a cosine is
rounded away."""


FEW_EVALUATIONS = ("evaluation.points=2", "evaluation.episodes=2", "evaluation.final_episodes=5")


def trained(env_id: str, agent: str, backend: str) -> TrainResult:
    words = [f"env.id={env_id}", f"env.backend={backend}", "steps=6_000", "seeds=2", *FEW_EVALUATIONS]
    config = pgkit.load_config(f"cartpole-{agent}", words)
    return pgkit.train(config)


@pytest.mark.parametrize(("env_id", "agent"), EXACT)
def test_every_bit(env_id: str, agent: str) -> None:
    mine, true = (trained(env_id, agent, backend) for backend in ("pgkit", "gymnasium"))
    assert mine.table == true.table
    for name, leaf in mine.params.items():
        assert torch.equal(leaf, true.params[name]), name


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("agent", few_by_default(["actor-critic", "reinforce"], "reinforce"))
def test_up_to_rounding(env_id: str, agent: str) -> None:
    """Until the last bit of a sine decides an action, which these steps are too few for."""
    mine, true = (trained(env_id, agent, backend) for backend in ("pgkit", "gymnasium"))
    for name, leaf in mine.params.items():
        torch.testing.assert_close(leaf, true.params[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "MountainCar-v0"])
@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
def test_captured_updates_are_the_same(env_id: str, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = trained(env_id, agent, "pgkit")
    set_compile_mode(monkeypatch, "kernels")
    single = trained(env_id, agent, "pgkit")
    for name, leaf in captured.params.items():
        assert torch.equal(leaf, single.params[name])
