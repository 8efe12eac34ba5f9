"""Training with networks other than the plain MLP: same bits alone and after a resume, and what each is for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.parameters import few_by_default
from helpers.trees import assert_equal

from pgkit.config.load import load_config, parse_config
from pgkit.config.schema import TrainConfig
from pgkit.envs import make_envs
from pgkit.errors import PgkitError
from pgkit.training.resume import resume
from pgkit.training.train import train
from pgkit.tree import take_tree

PROBES = "helpers.harder_probes:Probe"

POLICIES: dict[str, dict[str, Any]] = {
    "layer norm": {"hidden": [7, 5], "layer_norm": True, "activation": "gelu"},
    "layer norm, shared": {"hidden": [7], "layer_norm": True, "shared": True, "gains": [1.0, 0.1]},
    "gru": {"network": "gru", "network_kwargs": {"hidden_size": 5}},
    "gru with layers": {"network": "gru", "network_kwargs": {"hidden_size": 5}, "hidden": [6]},
    "module": {"network": "helpers.own_networks:OwnNet", "network_kwargs": {"width": 7}, "hidden": [6]},
    "module, one each": {"network": "helpers.own_networks:OwnNet", "shared": False},
    "cnn": {"network": "minatar-cnn", "network_kwargs": {"features": 9}},
}

AGENTS: dict[str, dict[str, Any]] = {
    "ppo": {"rollout_steps": 9, "epochs": 2, "minibatches": 3},
    "actor-critic": {"rollout_steps": 5},
    "reinforce": {},
}


def config(policy: str, agent: str, **changes: Any) -> TrainConfig:
    env: dict[str, Any] = {"id": "CartPole-v1", "max_episode_steps": 15}
    if policy == "cnn":
        env = {"id": f"{PROBES}Side-v0", "kwargs": {"side": 8}}
    table = {
        "name": "network",
        "steps": 250,
        "envs_per_member": 3,
        "env": env,
        "agent": {"name": agent},
        "policy": POLICIES[policy],
        "optimizer": {"name": "adam", "lr": 0.01},
        "evaluation": {"points": 1, "episodes": 2, "final_episodes": 3},
        "checkpoint_points": 2,
    }
    return parse_config(table | AGENTS[agent] | changes)


@pytest.mark.parametrize(
    ("policy", "agent"),
    few_by_default(
        [*((policy, "ppo") for policy in POLICIES), ("gru", "reinforce"), ("gru", "actor-critic")],
        ("gru", "ppo"),
        ("module", "ppo"),
        ("gru", "reinforce"),
    ),
)
def test_members_have_the_same_bits_alone(policy: str, agent: str) -> None:
    together = train([config(policy, agent, seed=seed) for seed in (0, 1, 2)])
    for row, seed in enumerate((0, 1, 2)):
        alone = train(config(policy, agent, seed=seed))
        assert alone.table[0] == together.table[row]
        assert_equal(alone.params, take_tree(together.params, torch.tensor([row])))


@pytest.mark.parametrize(
    ("policy", "agent"),
    few_by_default(
        [("gru", "ppo"), ("gru", "reinforce"), ("layer norm", "ppo"), ("module", "ppo"), ("cnn", "ppo")],
        ("gru", "ppo"),
        ("module", "ppo"),
    ),
)
def test_a_resumed_run_has_the_same_bits(policy: str, agent: str, tmp_path: Path) -> None:
    """With more steps a run goes on from its checkpoint as if it had had them at the start."""
    whole = train(config(policy, agent, steps=500, seeds=2))
    train(config(policy, agent, seeds=2), tmp_path / "run")
    resumed = resume(tmp_path / "run", steps=500)
    assert resumed is not None
    assert_equal(whole.params, resumed.params)
    assert whole.table == resumed.table


def learn(probe: str, policy: dict[str, Any], steps: int, **changes: Any) -> list[float]:
    """Mean returns of the final policies of a few seeds, deterministic."""
    table = {
        "name": "probe",
        "steps": steps,
        "seeds": 3,
        "envs_per_member": 16,
        "rollout_steps": 16,
        "epochs": 4,
        "minibatches": 2,
        "env": {"id": f"{PROBES}{probe}-v0"},
        "agent": {"name": "ppo"},
        "policy": policy,
        "optimizer": {"name": "adam", "lr": 0.01},
        "evaluation": {"points": 0, "final_episodes": 20, "deterministic": True},
    }
    return [row["return_mean"] for row in train(parse_config(table | changes)).table]


@pytest.mark.slow
def test_the_gru_learns_what_needs_memory_and_the_mlp_does_not() -> None:
    assert learn("Recall", {"network": "gru", "network_kwargs": {"hidden_size": 8}}, 12_000) == [1.0, 1.0, 1.0]
    assert max(learn("Recall", {"hidden": [8]}, 6_000)) < 0.9


@pytest.mark.slow
def test_a_cnn_learns_from_images() -> None:
    policy = {"network": "nature-cnn", "network_kwargs": {"features": 16}}
    changes = {"envs_per_member": 8, "rollout_steps": 8, "optimizer": {"name": "adam", "lr": 1e-3}}
    assert learn("Side", policy, 1_500, **changes) == [1.0, 1.0, 1.0]


def test_an_image_for_an_mlp_is_refused_with_the_line_that_names_the_cnn() -> None:
    with pytest.raises(PgkitError, match=r"image of shape \(36, 36, 1\).*1,296 pixels: policy.network=nature-cnn"):
        learn("Side", {"hidden": [8]}, 100)


def test_frames_are_stacked_by_configuration() -> None:
    envs = make_envs("CartPole-v1", 2, wrappers=[{"name": "FrameStackObservation", "stack_size": 3}])
    assert envs.info.backend == "gymnasium"
    assert envs.reset([0, 1]).shape == (2, 12)
    stacked = load_config("cartpole-ppo", {"env.wrappers": ["NormalizeObservation"], "steps": 100})
    assert stacked.env.wrappers == ({"name": "NormalizeObservation"},)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"policy.network": "cnn"}, "unknown policy.network 'cnn'"),
    "module": ({"policy.network": "no_such:Net"}, "cannot import 'no_such'"),
    "class": ({"policy.network": "helpers.own_networks:OwnNett"}, "did you mean 'OwnNet'"),
    "kwargs": ({"policy.network": "gru", "policy.network_kwargs.width": 3}, "allowed: hidden_size"),
    "size": ({"policy.network": "gru", "policy.network_kwargs.hidden_size": 0}, "whole number from 1 on, got 0"),
    "arguments": ({"policy.network": "helpers.own_networks:OwnNet", "policy.network_kwargs.depth": 3}, "'depth'"),
    "no image": ({"policy.network": "nature-cnn"}, r"a CNN needs images .*, got \(4,\)"),
    "kwargs of an MLP": ({"policy.network_kwargs.features": 3}, "has no effect: it is for other networks"),
    "layer norm": ({"policy.network": "gru", "policy.layer_norm": True}, "layer_norm = true has no effect"),
    "two memories": ({"policy.network": "gru", "policy.shared": False}, "the memory is one"),
    "sequences": ({"policy.network": "gru", "minibatches": 16}, "minibatches must divide envs_per_member = 8"),
    "gains": ({"policy.gains": [1.0]}, "a number for each of 2 hidden layers and one for the last"),
    "wrapper": ({"env.wrappers": ["FrameStack"]}, "gymnasium.wrappers has no 'FrameStack' .did you mean"),
    "wrapper's arguments": ({"env.wrappers": [{"name": "FrameStackObservation"}]}, "stack_size"),
    "wrapper without a name": ({"env.wrappers": [{"stack_size": 3}]}, "names or tables with a name"),
    "wrapper of pgkit's own": ({"env.wrappers": ["ClipReward"], "env.backend": "pgkit"}, "for env.backend 'gymnasium'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(mistake: str, tmp_path: Path) -> None:
    overrides, message = MISTAKES[mistake]
    with pytest.raises(PgkitError, match=message) as error:
        train(load_config("cartpole-ppo", {"steps": 1000, **overrides}), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
