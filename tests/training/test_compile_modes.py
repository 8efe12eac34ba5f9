"""``PGKIT_COMPILE`` changes what computes an update, not what is computed."""

import pytest
import torch
from helpers.compile_mode import set_compile_mode

from pgkit.compiler.graph import Capture
from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.training.train import train
from pgkit.types import Params


def trained_params(mode: str, agent: str, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters ``(2, ...)`` after a few updates on CartPole."""
    set_compile_mode(monkeypatch, mode)
    config = parse_config(
        {
            "name": "modes",
            "env": {"id": "CartPole-v1", "max_episode_steps": 15},
            "agent": {"name": agent},
            "optimizer": {"name": "adam", "lr": 0.01, "max_grad_norm": 0.5},
            "policy": {"hidden": [16]},
            "steps": 300,
            "seeds": 2,
            "envs_per_member": 4,
            "evaluation": {"episodes": 1},
        }
    )
    return train(expand_seeds(config)).params


@pytest.mark.parametrize("agent", ["actor-critic", "reinforce"])
def test_every_mode_trains_the_same_parameters(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs and kernels give the same bits; PyTorch rounds differently."""
    graphs = trained_params("graphs", agent, monkeypatch)

    def refuse(capture: Capture) -> None:
        raise AssertionError("nothing may be captured")

    monkeypatch.setattr(Capture, "__enter__", refuse)
    kernels = trained_params("kernels", agent, monkeypatch)
    off = trained_params("off", agent, monkeypatch)
    assert all(torch.equal(leaf, graphs[name]) for name, leaf in kernels.items())
    for name, leaf in off.items():
        torch.testing.assert_close(leaf, graphs[name], rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(leaf, graphs[name]) for name, leaf in off.items())
