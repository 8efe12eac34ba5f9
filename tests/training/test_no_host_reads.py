"""An update reads no number of a tensor into Python: on a GPU each such read would wait for all work so far."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit import expand_seeds, load_config
from pgkit.training import loop
from pgkit.training.population import build

READS = ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__array__")


@pytest.mark.filterwarnings("ignore:optimizer.beta1 = 0.5 dropped")
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "momentum", "adamw", "radam", "lion"])
def test_an_update_reads_nothing(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one look on CPU, whether all members live, which ``apply_updates`` spares a GPU.

    That the compiled loops are for a CPU, and no other, is for tests/training/test_device.py to see.
    """
    overrides = [f"optimizer.name={optimizer}", "optimizer.lr=1e-3", "optimizer.critic=keep", "seeds=3"]
    config = load_config("cartpole-actor-critic", overrides)
    population = build(expand_seeds(config))
    read: list[str] = []

    def noting(name: str) -> Any:
        method = getattr(Tensor, name)

        def call(self: Tensor, *arguments: Any, **named: Any) -> Any:
            read.append(name)
            return method(self, *arguments, **named)

        return call

    for name in READS:
        monkeypatch.setattr(Tensor, name, noting(name))
    assert float(torch.ones(1)) == 1
    assert read == ["__float__"]
    read.clear()
    for _ in range(5):
        loop.update(population)
    assert read == ["__bool__"] * 5
