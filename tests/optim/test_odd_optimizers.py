"""Optimizers of other packages with habits of their own: they work as written, or are refused in one line."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim import Optimizer, chain, from_config, make, register
from pgkit.optim import registry as optim_registry
from pgkit.optim.base import Hyperparameter
from pgkit.optim.transforms import clip_by_global_norm, scale_by_rate

ODD = "helpers.odd_optimizers:"


def first_update(optimizer: Optimizer, members: int = 1) -> Tensor:
    """The norms of the first updates under gradients of norm 10, ``(P,)``."""
    params = {"w": torch.zeros(members, 2)}
    updates, _ = optimizer.update({"w": torch.tensor([[6.0, 8.0]] * members)}, optimizer.init(params), params)
    return updates["w"].norm(dim=1)


CLIPPING: dict[str, tuple[dict[str, Any], float]] = {
    "its own default": ({}, 2.0),
    "pgkit's around it": ({"max_grad_norm": 0.5}, 0.5),
    "pgkit's, which does not bind": ({"max_grad_norm": 4.0}, 2.0),
    "its own by the name of the class": ({"Clips": {"max_grad_norm": 3.0}}, 3.0),
    "both": ({"Clips": {"max_grad_norm": 3.0}, "max_grad_norm": 1.0}, 1.0),
}


@pytest.mark.parametrize(("options", "norm"), CLIPPING.values(), ids=CLIPPING)
def test_a_class_keeps_its_own_options(options: dict[str, Any], norm: float) -> None:
    made = make(f"{ODD}Clips", lr=1.0, **options)
    configured = from_config([{"name": f"{ODD}Clips", "lr": 1.0, **options}])
    for optimizer in (made, configured):
        torch.testing.assert_close(first_update(optimizer), torch.tensor([norm]))


def test_members_differ_in_an_option_of_the_class() -> None:
    tables = [{"name": f"{ODD}Clips", "lr": 1.0, "Clips": {"max_grad_norm": limit}} for limit in (0.5, 0.25)]
    torch.testing.assert_close(first_update(from_config(tables), 2), torch.tensor([0.5, 0.25]))


def test_options_named_like_keys_of_a_table_are_the_class_own() -> None:
    """``name`` and ``schedule`` say which optimizer and schedule; a class may have such options, too."""
    table = {"name": f"{ODD}Named", "lr": 1.0}
    assert first_update(from_config([table])) == 10
    assert first_update(from_config([table | {"Named": {"schedule": "steep"}}])) == 20
    scheduled = from_config([table | {"schedule": {"lr": "linear"}}])
    assert scheduled.requires == {"progress"}


def test_a_registered_recipe_keeps_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def gentle(lr: Hyperparameter = 1.0, max_grad_norm: Hyperparameter = 2.0) -> Optimizer:
        return chain(clip_by_global_norm(max_grad_norm), scale_by_rate(lr))

    monkeypatch.setattr(optim_registry, "_REGISTRY", dict(optim_registry._REGISTRY))
    register("gentle", gentle)
    for options, norm in (({}, 2.0), ({"gentle": {"max_grad_norm": 5.0}}, 5.0)):
        torch.testing.assert_close(first_update(make("gentle", **options)), torch.tensor([norm]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"Clips": {"max_grad_nrm": 1.0}}, "unknown key 'max_grad_nrm' (did you mean 'max_grad_norm'?)"),
        ({"Clips": {"lr": 1.0}}, "Clips of optimizer 'helpers.odd_optimizers:Clips': unknown key 'lr'"),
        ({"Clips": 1.0}, "must be a table of max_grad_norm, centralize, got 1.0"),
        ({"Named": {"name": "x"}}, "unknown key 'Named'"),
    ],
)
def test_a_wrong_table_of_a_class_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PgkitError, match=re.escape(message)) as error:
        from_config([{"name": f"{ODD}Clips", **options}])
    assert "\n" not in str(error.value)
