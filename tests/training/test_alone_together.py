"""A member gets the same bits whoever trains beside it: parameters, optimizer state, returns."""

import pytest
import torch
from helpers.parameters import few_by_default
from torch import Tensor

from pgkit import optim
from pgkit.config.load import load_config, parse_config, to_table
from pgkit.config.schema import TrainConfig
from pgkit.training.train import train
from pgkit.tree import take_tree

OPTIMIZERS = [
    {"name": "sgd", "lr": 0.05},
    {"name": "momentum", "lr": 0.01, "momentum": 0.8},
    {"name": "rmsprop", "lr": 1e-3, "max_grad_norm": 0.5},
    {"name": "adam", "lr": 3e-3, "schedule": {"lr": "linear"}, "max_grad_norm": 0.5},
    {"name": "adam", "lr": 1e-3, "critic": {"lr": 1e-2}},
    {"name": "adam", "lr": 3e-2, "beta1": 0.5, "eps": 1e-5, "schedule": {"lr": "linear"}, "max_grad_norm": 0.5},
]

SIZES = {
    "cartpole-actor-critic": {"steps": 800, "envs_per_member": 4, "rollout_steps": 8},
    "cartpole-ppo": {"steps": 800, "envs_per_member": 4, "rollout_steps": 16, "minibatches": 4, "target_kl": 0.01},
    "cartpole-reinforce": {"steps": 600, "envs_per_member": 3},
    "pendulum-ppo": {
        "steps": 400,
        "envs_per_member": 4,
        "rollout_steps": 16,
        "minibatches": 4,
        "epochs": 2,
        "env": {"id": "Pendulum-v1", "max_episode_steps": 40},
        "policy": {"squash_output": True, "state_dependent_std": True},
    },
    "lunarlander-actor-critic": {"steps": 480, "envs_per_member": 3, "rollout_steps": 16},
    "lunarlander-reinforce": {"steps": 400, "envs_per_member": 2},
}
CHANGES = {"evaluation": {"points": 2, "episodes": 2, "final_episodes": 2}, "log_interval": 200}


def members_of(name: str) -> list[TrainConfig]:
    """Twelve members: different seeds, rates and optimizers, and different numbers of the agent."""
    base = to_table(load_config(name)) | SIZES[name] | CHANGES
    base["env"] = base["env"] | ({"backend": "gymnasium"} if name.startswith("lunar") else {"backend": "pgkit"})
    tables = [
        base
        | {"seed": 7 * k, "optimizer": OPTIMIZERS[k % len(OPTIMIZERS)]}
        | {"agent": base["agent"] | {"gamma": 0.9 + 0.008 * k, "entropy_coef": 0.001 * k}}
        for k in range(12)
    ]
    return [parse_config(table) for table in tables]


def outcome(configs: list[TrainConfig]) -> list[dict[str, object]]:
    """What is left of each member: parameters, optimizer state, counts, evaluations."""
    result = train(configs)
    members = {}
    optimizer = optim.from_config([config.optimizer for config in configs])
    for part in result.parts:
        opt_state = optimizer.load(part["opt_state"], part["params"])
        for row, member in enumerate(part["members"].tolist()):
            rows = torch.tensor([row])
            members[member] = {
                "params": take_tree(part["params"], rows),
                "opt_state": plain(optimizer.dump(optimizer.take(opt_state, rows))),
                "statistics": [float(field[row]) for field in part["statistics"].values()],
                "row": result.table[member],
            }
    return [members[member] for member in range(len(configs))]


def plain(state: object) -> list[Tensor]:
    """The tensors of an optimizer state, however it nests members of other kinds; those of no member left out."""
    if isinstance(state, Tensor):
        return [state] if state.numel() and state.is_floating_point() else []
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in values for tensor in plain(value)]


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("name", few_by_default(SIZES, "cartpole-actor-critic", "cartpole-reinforce"))
def test_members_are_bit_identical_alone_in_pieces_and_in_another_order(name: str) -> None:
    configs = members_of(name)
    together = outcome(configs)
    assert not any(same(together[0]["params"], other["params"]) for other in together[1:])
    groups = [[0], [5], [11], [3, 2], [9, 1, 4, 10], list(reversed(range(12)))]
    for group in groups:
        for member, alone in zip(group, outcome([configs[member] for member in group]), strict=True):
            assert same(alone, together[member]), (name, group, member)


@pytest.mark.parametrize("name", ["cartpole-actor-critic", "cartpole-reinforce"])
def test_the_same_run_twice_gives_the_same_bits(name: str) -> None:
    configs = members_of(name)[:3]
    assert same(outcome(configs), outcome(configs))
