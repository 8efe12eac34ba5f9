"""Optimizers in the training loop: their extra arguments, groups from a configuration, what a run logs about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pgkit import optim
from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig
from pgkit.optim import apply_updates, take_tree
from pgkit.runs.checkpoint import latest
from pgkit.training import extra_args
from pgkit.training.loop import gradient, targets, update
from pgkit.training.population import build
from pgkit.training.train import train
from pgkit.tree import put_tree

NPG = {"name": "npg", "critic": {"name": "adam", "lr": 0.01}}
TRPO = {"name": "trpo", "critic": {"name": "adam", "lr": 0.01}}
KL = {"name": "adam", "lr": 0.01, "schedule": {"lr": {"kind": "kl", "target": 1e-3}}}
RESET = {"name": "adam", "lr": 0.01, "reset_step": "rollout"}
AGENTS = ("actor-critic", "reinforce")


def config(agent: str, optimizer: Mapping[str, Any], **changes: Any) -> TrainConfig:
    """About five updates on CartPole, whose episodes differ much in length."""
    table = {
        "name": "short",
        "steps": 500,
        "envs_per_member": 3,
        "env": {"id": "CartPole-v1", "backend": "pgkit"},
        "agent": {"name": agent},
        "policy": {"hidden": [16]},
        "optimizer": optimizer,
        "evaluation": {"points": 0, "final_episodes": 2},
    }
    return parse_config(table | ({"rollout_steps": 30} if agent == "actor-critic" else {}) | changes)


@pytest.mark.parametrize("agent", AGENTS)
def test_alone_is_together_with_every_extra_argument(agent: str) -> None:
    tables = [NPG, KL, RESET, {**NPG, "max_kl": 0.1}, KL, {"name": "adam", "schedule": {"lr": "linear"}}]
    tables += [TRPO, {**KL, "kl_limit": 1e-3}, {**TRPO, "target_kl": 0.1}]
    configs = [config(agent, table, seed=k) for k, table in enumerate(tables)]
    together = train(configs)
    initial = build(configs).params
    for k, member_config in enumerate(configs):
        alone = train([member_config])
        assert alone.table[0] == together.table[k]
        for name, leaf in alone.params.items():
            assert torch.equal(leaf[0], together.params[name][k]), (name, member_config.optimizer)
            assert not torch.equal(leaf[0], initial[name][k])


def test_episodes_come_in_several_pieces() -> None:
    """Otherwise the test above would not cover members that act in several pieces."""
    population = build([config("reinforce", NPG, seed=k, steps=10_000) for k in range(6)])
    assert max(len(population.collect()) for _ in range(8)) > 1


@pytest.mark.parametrize("optimizer", [NPG, KL, RESET])
def test_only_required_arguments_are_computed(optimizer: Mapping[str, Any]) -> None:
    population = build([config("actor-critic", optimizer)])
    rollouts = population.collect()
    batches = [(rollout.rows, targets(population, rollout)) for rollout in rollouts]
    sent = extra_args.gather(population, rollouts, batches, None)
    assert sent.keys() == population.optimizer.requires
    assert len(sent) == 1


def test_the_kl_schedule_follows_the_last_update() -> None:
    """Its lr rises by one factor per update, from the second on, while the policy moves too little."""
    population = build([config("actor-critic", {**KL, "lr": 1e-5, "schedule": {"lr": {"kind": "kl", "target": 1.0}}})])
    assert population.kl.isnan().all()
    rates = []
    for _ in range(3):
        metrics = update(population, diagnose=range(population.size))
        rates.append(metrics["optimizer/lr"].item())
        torch.testing.assert_close(population.kl, metrics["policy/approx_kl"])
    assert rates == pytest.approx([1e-5, 1.5e-5, 2.25e-5])


def test_a_member_that_is_taken_keeps_its_kl() -> None:
    population = build([config("actor-critic", KL, seed=k) for k in range(3)])
    update(population)
    assert torch.equal(population.take(torch.tensor([2, 0])).kl, population.kl[[2, 0]])


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("members", [[0, 1, 2, 3], [3, 1], [2]])
def test_the_fisher_matrix_of_some_members(agent: str, members: list[int]) -> None:
    """It acts on them as the whole matrix does, and on no others, whatever the pieces."""
    population = build([config(agent, NPG, seed=k) for k in range(4)])
    batches = [(piece.rows, targets(population, piece)) for piece in population.collect()]
    rows = torch.tensor(members)
    whole = extra_args.Fisher(population.policy, population.params, batches)
    random = torch.Generator().manual_seed(0)
    vector = {
        name: torch.randn(leaf.shape, generator=random)
        for name, leaf in population.params.items()
        if name.startswith("actor.")
    }
    sub = take_tree(vector, rows)
    image = whole.take(rows)(sub)
    full = whole(put_tree({name: torch.zeros_like(leaf) for name, leaf in vector.items()}, rows, sub))
    for name, leaf in full.items():
        assert torch.equal(leaf[rows], image[name])
        others = [k for k in range(4) if k not in members]
        assert not leaf[others].any()
        assert image[name].any()


@pytest.mark.parametrize("shared", [False, True])
def test_natural_gradient_moves_the_policy_by_max_kl(shared: bool) -> None:
    """To within 20 %, where steps are so small that the KL is quadratic; damping shortens those of a shared trunk.

    Ten of ten seeds, 0 to 9, did so.
    """
    asked = torch.tensor([1e-6, 3e-6, 1e-5])
    tables = [{**NPG, "max_kl": kl} for kl in asked.tolist()]
    policy = {"hidden": [16], "shared": shared}
    population = build([config("actor-critic", table, policy=policy, seed=3, rollout_steps=400) for table in tables])
    last = "actor.0.weight" if shared else "actor.1.weight"  # initially so small that all actions are equally likely
    population.params[last] = population.params[last] * 20
    before = population.params
    rollouts = population.collect()
    batches = [(rollout.rows, targets(population, rollout)) for rollout in rollouts]
    _, grads, _ = gradient(population, batches)
    sent = extra_args.gather(population, rollouts, batches, None)
    updates, _ = population.optimizer.update(grads, population.opt_state, before, **sent)
    assert all(leaf.any() for leaf in updates.values())
    kl = extra_args.kl_of_update(population.policy, batches, before, apply_updates(before, updates))
    assert (kl < 1.2 * asked).all()
    assert (kl > 0.8 * asked).all() != shared


def test_groups_by_name_pattern_from_a_configuration() -> None:
    """Biases of both networks hardly move at a rate of 1e-30; weights do."""
    table = {"name": "adam", "lr": 0.01, "groups": {"*.bias": {"lr": 1e-30}}, "critic": {"lr": 0.1}}
    chosen = config("actor-critic", table, seed=5)
    initial, result = build([chosen]).params, train([chosen])
    for name, leaf in result.params.items():
        distance = (leaf - initial[name]).abs().max().item()
        assert distance < 1e-28 if name.endswith(".bias") else distance > 1e-3, name
    labels = list(optim.describe(table))
    assert labels == ["critic *.bias", "critic", "main *.bias", "main"]


def test_actor_and_critic_may_have_different_optimizers() -> None:
    table = {"name": "sgd", "lr": 0.1, "critic": {"name": "torch.optim:Adam", "lr": 0.01}}
    population = build([config("actor-critic", table)])
    metrics = update(population, diagnose=range(population.size))
    assert metrics["optimizer/main/lr"] == 0.1
    assert metrics["optimizer/critic/lr"] == 0.01
    assert metrics["optimizer/actor/update_cosine"].item() == pytest.approx(1.0, abs=1e-5)
    assert metrics["optimizer/critic/update_cosine"].item() < 0.99


def test_updates_are_measured_for_each_network() -> None:
    """Also for a shared trunk; the update's norm is the norm of the parameters' change."""
    chosen = config("actor-critic", {"name": "adam", "lr": 0.01, "max_grad_norm": 0.5}, policy={"shared": True})
    population = build([chosen])
    before = population.params
    metrics = update(population, diagnose=range(population.size))
    moved = torch.cat([(population.params[name] - leaf).flatten() for name, leaf in before.items()])
    torch.testing.assert_close(metrics["optimizer/update_norm"][0], moved.norm(), rtol=1e-4, atol=0)
    names = ("grad_norm", "update_norm", "update_ratio", "update_cosine")
    wanted = [f"optimizer/{network}/{name}" for network in ("actor", "critic", "trunk") for name in names]
    wanted += [f"optimizer/{name}" for name in (*names, "m_norm", "v_norm", "clip_fraction", "lr", "beta1")]
    assert [tag for tag in wanted if tag not in metrics] == []
    assert all(metrics[tag].shape == (1,) for tag in wanted)


def test_metrics_are_nan_for_members_whose_optimizer_has_none() -> None:
    """Only the first member clips, so only it has a clipped norm."""
    tables = ({"name": "adam", "lr": 0.01, "max_grad_norm": 0.5}, {"name": "sgd", "lr": 0.01})
    metrics = update(build([config("actor-critic", table) for table in tables]), diagnose=range(2))
    assert metrics["optimizer/grad_norm"].gt(0).all()
    assert metrics["optimizer/grad_norm_clipped"].isnan().tolist() == [False, True]


def test_effective_settings_are_written_and_shown(tmp_path: Path) -> None:
    """As TOML beside the configuration, and in TensorBoard's Text tab, read back from the event file."""
    import tomllib

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    table = {"name": "adam", "lr": 0.02, "schedule": {"lr": "linear"}, "critic": {"lr": 0.03}}
    table["groups"] = {"*.bias": {"name": "torch.optim:Adafactor"}}
    train([config("actor-critic", table)], tmp_path / "run")
    written = tomllib.loads((tmp_path / "run" / "optimizer.toml").read_text())
    assert written["main"]["lr"] == 0.02
    assert written["critic"]["lr"] == 0.03
    assert written["main"]["beta2"] == 0.999
    assert written["main"]["schedule"]["lr"] == {"kind": "linear", "end": 0.0, "warmup": 0.0}
    assert written["main *.bias"]["eps"] == ["none", 1e-3]  # a default of PyTorch's that TOML cannot say
    accumulator = EventAccumulator(str(tmp_path / "run"))
    accumulator.Reload()
    (event,) = accumulator.Tensors("optimizer")
    shown = event.tensor_proto.string_val[0].decode()
    assert tomllib.loads(shown.removeprefix("```toml\n").removesuffix("\n```")) == written


OWN_OPTIMIZER = '''
import torch


class Normed(torch.optim.Optimizer):
    """The gradient of each tensor over its norm: not element-wise."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                count = self.state[p].setdefault("count", torch.zeros(()))
                count += 1
                p -= group["lr"] / count.sqrt() * p.grad / (p.grad.norm() + 1e-8)
'''


def test_a_users_optimizer_class_trains_a_population(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imported from the working directory, each member alone as together, its state in the checkpoint."""
    (tmp_path / "own_optimizer.py").write_text(OWN_OPTIMIZER)
    monkeypatch.chdir(tmp_path)
    tables = [{"name": "own_optimizer:Normed", "lr": rate} for rate in (0.01, 0.02)] + [{"name": "adam", "lr": 0.01}]
    configs = [config("actor-critic", table, seed=k) for k, table in enumerate(tables)]
    together = train(configs, tmp_path / "run")
    for k, member_config in enumerate(configs):
        alone = train([member_config])
        assert all(torch.equal(leaf[0], together.params[name][k]) for name, leaf in alone.params.items())
    saved = torch.load(latest(tmp_path / "run" / "checkpoints"), weights_only=True)
    instances = [state for part in saved["workers"][0]["parts"] for state in counts(part["opt_state"])]
    assert len(instances) >= 2
    assert all(count > 1 for count in instances)


def counts(tree: Any) -> list[float]:
    """List the numbers called "count", wherever they are in the tree."""
    if isinstance(tree, dict):
        first = [float(tree["count"])] if "count" in tree else []
        return first + [count for value in tree.values() for count in counts(value)]
    return [count for value in tree for count in counts(value)] if isinstance(tree, list) else []
