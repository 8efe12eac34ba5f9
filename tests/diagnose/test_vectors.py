"""Flat vectors of parameters."""

import pytest
import torch

from pgkit.diagnose.vectors import actor_names, flatten_params, unflatten
from pgkit.nn.distributions import categorical, gaussian
from pgkit.nn.gru import GRU
from pgkit.nn.policy import Policy


def test_vectors_come_back_as_the_same_leaves() -> None:
    params = Policy(3, gaussian(2), hidden=(4,)).init([0, 1])
    names = actor_names(params)
    vector = flatten_params(params, names)
    assert vector.dtype == torch.float64
    assert vector.shape == (2, 3 * 4 + 4 + 4 * 2 + 2 + 2)
    back = unflatten(vector, {name: params[name] for name in names})
    assert list(back) == list(names)
    assert all(torch.equal(back[name], params[name]) and back[name].dtype == torch.float32 for name in names)


def test_one_members_leaves_serve_for_several_vectors() -> None:
    params = Policy(3, categorical(2), hidden=()).init([0])
    names = actor_names(params)
    back = unflatten(torch.arange(24.0).view(3, 8), {name: params[name] for name in names})
    assert back["actor.0.weight"].shape == (3, 3, 2)
    assert back["actor.0.bias"][2].tolist() == [[22.0, 23.0]]


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (Policy(3, gaussian(2), hidden=()), {"actor.0.weight", "actor.0.bias", "actor.log_std"}),
        (
            Policy(3, categorical(2), hidden=(4,), shared=True),
            {"trunk.0.weight", "trunk.0.bias", "actor.0.weight", "actor.0.bias"},
        ),
        (
            Policy(3, categorical(2), hidden=(), critic_hidden=(), network=GRU(3, 4), critic_network=GRU(3, 4)),
            {f"actor.network.{part}.{leaf}" for part in ("input", "memory") for leaf in ("weight", "bias")}
            | {"actor.0.weight", "actor.0.bias"},
        ),
    ],
    ids=["gaussian", "trunk", "network"],
)
def test_actor_names_are_what_actions_depend_on(policy: Policy, names: set[str]) -> None:
    assert set(actor_names(policy.init([0]))) == names


def test_wrong_sizes_are_refused() -> None:
    like = {"a": torch.zeros(1, 2)}
    with pytest.raises(ValueError, match="D = 2, got \\(1, 3\\)"):
        unflatten(torch.zeros(1, 3), like)
    with pytest.raises(ValueError, match="at least one leaf"):
        flatten_params(like, [])
