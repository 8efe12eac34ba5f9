"""``update`` overwrites nothing that it is given unless ``donate=True``, which changes no result."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers.trials import AnyTrial
from torch import Tensor

from pgkit.optim import (
    Optimizer,
    add_updates,
    apply_updates,
    by_name,
    chain,
    from_config,
    from_torch,
    list_optimizers,
    make,
    matches,
)
from pgkit.optim.base import ExtraArgs
from pgkit.optim.transforms import clip_by_layer_norm, scale_by_rate
from pgkit.tree import map_tree
from pgkit.types import Params

Table = Mapping[str, Any]
MEMBERS = 3
SHAPES = {
    "trunk.1.weight": (3, 3),
    "actor.0.weight": (3, 5),
    "actor.0.norm.weight": (1, 5),
    "actor.0.bias": (1, 5),
    "critic.0.weight": (3, 1),
}
NPG: Table = {"name": "npg", "critic": {"name": "adam"}}
TRPO: Table = {"name": "trpo", "critic": {"name": "adam"}}


def population(*tables: Table) -> Optimizer:
    """The optimizer of three members with these tables in turn."""
    return from_config([tables[k % len(tables)] for k in range(MEMBERS)])


OPTIMIZERS: dict[str, Optimizer] = {
    **{name: population({"name": name}) for name in list_optimizers() if name not in ("npg", "trpo")},
    "npg": population(NPG),
    "trpo": population(TRPO),
    "limited": population({"name": "adam", "kl_limit": 0.01, "max_grad_norm": 1.0}),
    "limited groups among members": population(
        {"name": "adam", "kl_limit": 0.01, "groups": {"*.bias": {"lr": 0.1}}, "critic": {"name": "sgd"}}, TRPO
    ),
    "clipped, reset, lookahead": population(
        {"name": "adam", "max_grad_norm": 0.5, "reset_moments": 2, "lookahead_steps": 2, "schedule": {"lr": "linear"}}
    ),
    "cautious": population({"name": "adamw", "cautious": True}),
    "cautious and no chain": chain(clip_by_layer_norm(0.5), make("torch.optim:SGD", lr=0.1, cautious=True)),
    "scaled and projected": population({"name": "adam", "trac": True, "trac_s_prev": 0.1, "normalize_and_project": 2}),
    "by member": population({"name": "sgd"}, {"name": "nadam"}, NPG),
    "by name": by_name({"bias": (matches("*.bias"), make("lion")), "rest": (matches("*"), make("adamw"))}),
    "from torch": from_torch("torch.optim:Adam", lr=torch.tensor([0.1, 0.2, 0.3])),
    "torch among members": population({"name": "torch.optim:RMSprop"}, {"name": "momentum"}),
    "chain of tensors": chain(clip_by_layer_norm(0.5), scale_by_rate(0.1)),
    "chain of optimizers": chain(clip_by_layer_norm(0.5), from_torch("torch.optim:SGD", lr=0.1, momentum=0.9)),
}


class Diagonal:
    """A Fisher matrix that is the same for all members."""

    def __call__(self, vector: Params) -> Params:
        return {name: 2 * leaf for name, leaf in vector.items()}

    def take(self, members: Tensor) -> "Diagonal":
        return self


def random_params(seed: int) -> Params:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(MEMBERS, *shape, generator=random) for name, shape in SHAPES.items()}


def extra_args(optimizer: Optimizer, step: int) -> ExtraArgs:
    values = {
        "progress": torch.full((MEMBERS,), step / 10, dtype=torch.float64),
        "fisher_vector_product": Diagonal(),
        "trial": AnyTrial(),
        "rollout_start": torch.tensor([step % 2 == 0, step % 3 == 0, True]),
    }
    return {name: values[name] for name in optimizer.requires}


def tensors(tree: Any) -> list[Tensor]:
    leaves: list[Tensor] = []
    map_tree(lambda leaf: leaves.append(leaf) or leaf, tree)
    return leaves


def assert_same(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    assert len(first) == len(second)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("method", ["update", "apply"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_is_overwritten_without_donate(name: str, method: str) -> None:
    """Gradients, state and parameters keep their bits, so the same call gives the same result again."""
    optimizer = OPTIMIZERS[name]
    params = random_params(0)
    _, state = optimizer.update(random_params(1), optimizer.init(params), params, **extra_args(optimizer, 0))
    grads = random_params(2)
    before = copy.deepcopy([grads, optimizer.dump(state), params])
    results = [getattr(optimizer, method)(grads, state, params, **extra_args(optimizer, 1)) for _ in range(2)]
    assert_same(tensors([grads, optimizer.dump(state), params]), tensors(before))
    first, second = (tensors([*result[:-1], optimizer.dump(result[-1])]) for result in results)
    assert_same(first, second)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_donated_buffers_change_no_result(name: str) -> None:
    """Over several steps, with and without ``donate``, and added in one call: same parameters, same state."""
    optimizer = OPTIMIZERS[name]
    paths = {}
    for way in ("keep", "donate", "apply"):
        params = random_params(0)
        state = optimizer.init(params)
        for step in range(6):
            grads = random_params(1 + step)
            args = extra_args(optimizer, step)
            if way == "apply":
                params, largest, state = optimizer.apply(grads, state, params, donate=True, **args)
            else:
                updates, state = optimizer.update(grads, state, params, donate=way == "donate", **args)
                params, largest = add_updates(params, updates, donate=way == "donate")
        paths[way] = tensors([params, largest, optimizer.dump(state)])
    assert_same(paths["keep"], paths["donate"])
    assert_same(paths["keep"], paths["apply"])


def test_a_donated_gradient_lends_its_memory() -> None:
    """Or the default would copy for nothing."""
    optimizer = make("adam")
    params = random_params(0)
    grads = random_params(1)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, donate=True)
    assert [leaf.data_ptr() for leaf in updates.values()] == [leaf.data_ptr() for leaf in grads.values()]


def test_apply_updates_overwrites_updates_only_if_donated() -> None:
    params = random_params(0)
    updates = random_params(1)
    before = copy.deepcopy([params, updates])
    alive = torch.tensor([True, False, True])
    added = apply_updates(params, updates, alive)
    assert_same(tensors([params, updates]), tensors(before))
    donated = apply_updates(params, updates, alive, donate=True)
    assert_same(tensors(donated), tensors(added))
    assert [leaf.data_ptr() for leaf in donated.values()] == [leaf.data_ptr() for leaf in updates.values()]
    assert all(torch.equal(added[name][1], params[name][1]) for name in params)
