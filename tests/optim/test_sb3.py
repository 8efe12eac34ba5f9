"""Stable-Baselines3 with pgkit's optimizers in place of PyTorch's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgkit.optim import as_torch

stable_baselines3 = pytest.importorskip("stable_baselines3")

UPDATES = 20
RMSPROP = ({"name": "rmsprop", "eps": 1e-5}, torch.optim.RMSprop, {"eps": 1e-5})
ADAM = ({"name": "adam", "eps": 1e-5}, torch.optim.Adam, {"eps": 1e-5})


def a2c(optimizer_class: Any, optimizer_kwargs: dict[str, Any]) -> Any:
    """A2C on CartPole, its learning rate annealed to almost 0."""
    return stable_baselines3.A2C(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=lambda remaining: 0.005 * remaining,
        policy_kwargs={"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs},
        seed=0,
        device="cpu",
    )


def weights(model: Any) -> Tensor:
    return nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


@pytest.mark.parametrize(("settings", "reference_class", "reference_settings"), [RMSPROP, ADAM])
def test_a2c_of_sb3_learns_the_same_weights(settings: Any, reference_class: Any, reference_settings: Any) -> None:
    """The optimizers round differently, by a few units in the last place; actions are the same."""
    runs = []
    for optimizer_class, kwargs in ((as_torch, settings), (reference_class, reference_settings)):
        model = a2c(optimizer_class, kwargs)  # seeds the global generators
        start = weights(model)
        model.learn(UPDATES * model.n_steps)
        runs.append(model)
    model, reference = runs
    moved = (weights(reference) - start).abs().max()
    assert moved > 0.02
    assert (weights(model) - weights(reference)).abs().max() <= 2e-6
    assert model.policy.optimizer.param_groups[0]["lr"] == reference.policy.optimizer.param_groups[0]["lr"] < 0.005


def test_sb3_saves_and_loads_the_optimizer(tmp_path: Path) -> None:
    model = a2c(as_torch, {"name": "adam", "beta2": 0.99})
    model.learn(3 * model.n_steps)
    model.save(tmp_path / "model")
    loaded = stable_baselines3.A2C.load(tmp_path / "model", device="cpu")
    assert loaded.policy.optimizer.param_groups[0]["beta2"] == 0.99
    for policy in (model.policy, loaded.policy):
        for param in policy.parameters():
            param.grad = torch.full_like(param, 0.1)
        policy.optimizer.step()
    assert torch.equal(weights(model), weights(loaded))
