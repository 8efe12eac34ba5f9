"""Training on another device than the CPU, with PyTorch's "meta" device, which has shapes but no numbers.

Reading a number of a tensor into Python fails there, as do most operations that mix devices; a mode checks the others.
"""

from typing import Any

import pytest
import torch
from helpers.parameters import few_by_default
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pgkit import expand_seeds, load_config, optim
from pgkit.training import loop, population
from pgkit.tree import map_tree

pytestmark = pytest.mark.filterwarnings("ignore:optimizer.beta1 = 0.5 dropped")

META = torch.device("meta")
COPIES = ("aten::_to_copy", "aten::copy_")


class OneDevice(TorchDispatchMode):
    """Fails if an operation other than a copy gets a tensor on CPU that is not 0-dimensional."""

    seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        away = [tuple(tensor.shape) for tensor in tensors if tensor.dim() and tensor.device != META]
        assert not away or function.name() in COPIES, f"{function.name()} of CPU tensors of shapes {away}"
        self.seen += 1
        return function(*args, **(kwargs or {}))


def build(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> population.Population:
    monkeypatch.setattr(population, "resolve_device", lambda name: META)
    return population.build(
        expand_seeds(
            load_config("cartpole-actor-critic", ["seeds=3", "envs_per_member=2", "rollout_steps=3", *overrides])
        )
    )


def check(trained: population.Population) -> None:
    with OneDevice() as mode:
        for diagnose in ((), range(trained.size), ()):
            metrics = loop.update(trained, diagnose)
            assert metrics or not diagnose
            assert {metric.device for metric in metrics.values()} <= {META}
    assert mode.seen > 500
    devices: set[torch.device] = set()
    map_tree(lambda leaf: devices.add(leaf.device), [trained.params, trained.opt_state, trained.alive, trained.kl])
    assert devices == {META}


@pytest.mark.parametrize("recipe", few_by_default(optim.list_optimizers(), "adam", "rmsprop_tf", "soap", "trpo"))
def test_every_recipe_stays_on_its_device(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [] if recipe not in ("npg", "trpo") else ["optimizer.critic.name=adam"]
    check(build(monkeypatch, f"optimizer.name={recipe}", "optimizer.lr=1e-3", "optimizer.critic=keep", *others))


@pytest.mark.parametrize(
    "overrides",
    [
        ("policy.shared=true",),
        ("policy.activation=silu", "policy.orthogonal=false"),
        ("env.normalize_observations=true", "env.normalize_rewards=true", "env.reward_scale=0.1"),
        ("agent.normalize_advantage=true", "agent.entropy_coef=0.01"),
        ("optimizer.schedule.lr=cosine", "optimizer.weight_decay=1e-4"),
        ("optimizer.schedule.lr.kind=kl",),
        ("optimizer.reset_moments=rollout",),
        ("optimizer.cautious=true", "optimizer.trac=true"),
        ("optimizer.normalize_and_project=1", "policy.layer_norm=true"),
    ],
    ids=" ".join,
)
def test_every_setting_stays_on_its_device(overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    check(build(monkeypatch, *overrides))


def test_members_leave_and_recipes_mix_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "resolve_device", lambda name: META)
    names = ("adam", "sgd", "adam")
    configs = [
        load_config(
            "cartpole-actor-critic", [f"optimizer.name={n}", "optimizer.lr=keep", "optimizer.critic=keep", f"seed={k}"]
        )
        for k, n in enumerate(names)
    ]
    trained = population.build(configs)
    loop.update(trained)
    assert {leaf.device for leaf in trained.params.values()} == {META}
    check(build(monkeypatch).take(torch.tensor([0, 2], device=META)))


def test_a_tensor_left_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = build(monkeypatch)
    trained.params["critic.0.bias"] = torch.zeros(3, 1, 64)
    with pytest.raises((AssertionError, RuntimeError), match=r"cpu|CPU"):
        check(trained)


@pytest.mark.parametrize("more", [["target_kl=0.01"], ["optimizer.schedule.lr=kl", "minibatches=1"]])
def test_epochs_and_minibatches_stay_on_their_device(more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check(build(monkeypatch, "agent=ppo", "agent.clip_range_vf=0.2", "epochs=2", "minibatches=3", *more))
