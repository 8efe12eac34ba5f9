"""Optimizers of other packages with habits of their own: they work as written, or are refused in one line."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.config.load import parse_config
from pgkit.errors import PgkitError
from pgkit.optim import Optimizer, chain, from_config, make, register, take_tree
from pgkit.optim import registry as optim_registry
from pgkit.optim.base import Hyperparameter
from pgkit.optim.transforms import clip_by_global_norm, scale_by_rate
from pgkit.runs import checkpoint
from pgkit.training.train import train
from pgkit.types import Params

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


PARAMS = {
    "actor.0.weight": torch.linspace(-1, 1, 24).view(2, 3, 4),
    "actor.0.bias": torch.zeros(2, 1, 4),
}


def gradients(params: Params) -> Params:
    """Of a function that is not symmetric, so that errors would add up."""
    return {name: torch.sin(3 * leaf + 1) + 0.1 for name, leaf in params.items()}


def steps(optimizer: Optimizer, params: Params, state: Any, count: int) -> tuple[Params, Any]:
    for _ in range(count):
        params, _, state = optimizer.apply(gradients(params), state, params)
    return params, state


def assert_same(first: Params, second: Params) -> None:
    for name, leaf in first.items():
        assert leaf.isfinite().all()
        assert torch.equal(leaf, second[name]), name


RESUMED = ["OddOptions", "OddState", "Noisy", "Clips", "Resizes"]


@pytest.mark.parametrize("name", RESUMED)
def test_steps_after_a_checkpoint_are_those_without(name: str, tmp_path: Path) -> None:
    """Through a file that holds plain data, into an optimizer that was just made, and through ``take``."""
    table = {"name": ODD + name}
    optimizer = from_config([table, table])
    params, state = steps(optimizer, PARAMS, optimizer.init(PARAMS), 3)
    checkpoint.save(tmp_path / "state.pt", optimizer.dump(state))
    taken = optimizer.take(state, torch.tensor([1]))
    expected, _ = steps(optimizer, params, state, 3)
    assert not torch.equal(expected["actor.0.weight"], params["actor.0.weight"])
    fresh = from_config([table, table])
    assert_same(steps(fresh, params, fresh.load(checkpoint.load(tmp_path / "state.pt"), params), 3)[0], expected)
    second = torch.tensor([1])
    assert_same(steps(optimizer, take_tree(params, second), taken, 3)[0], take_tree(expected, second))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unsavable", "cannot be resumed: state['helper'] holds something that no checkpoint can hold (Opaque)"),
        ("RemembersElsewhere", "cannot be resumed: its steps depend on more than its options, its state and its"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_training(name: str, message: str) -> None:
    with pytest.raises(PgkitError, match=re.escape(message)) as error:
        from_config([{"name": ODD + name}]).init(PARAMS)
    assert "\n" not in str(error.value)


def test_a_population_with_options_that_no_config_holds_writes_checkpoints(tmp_path: Path) -> None:
    """From the command line's tables to the checkpoint, and back."""
    table = {"name": "x", "steps": 300, "env": {"id": "CartPole-v1"}, "policy": {"hidden": [4]}, "checkpoint_points": 3}
    table |= {"agent": {"name": "actor-critic"}, "optimizer": {"name": f"{ODD}OddOptions"}, "evaluation": {"points": 0}}
    config = parse_config(table)
    train([config.model_copy(update={"seed": seed}) for seed in (0, 1)], tmp_path / "x")
    saved = checkpoint.load_latest(tmp_path / "x" / "checkpoints")
    (part,) = saved["workers"][0]["parts"][:1]
    assert part["opt_state"]["options"] == [{"lr": 0.1}] * len(part["members"])
