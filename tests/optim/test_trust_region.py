"""TRPO, and steps that are limited to a divergence, against references in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.callbacks import Notes
from helpers.dense_fisher import HEADS, dense_fisher, flat, kl_from, numbers_like, observations, parameters, policy_of
from helpers.parameters import few_by_default
from helpers.trees import assert_equal
from torch import Tensor

import pgkit
from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.nn.policy import Policy
from pgkit.optim import apply_updates, describe, diagnostics, fisher_vector_product, from_config, make
from pgkit.training.extra_args import Trial
from pgkit.types import Batch, Params

TRPO = {"name": "trpo", "critic": {"name": "adam", "lr": 0.01}}
LIMITED = {"name": "adam", "lr": 0.1, "kl_limit": 0.002, "critic": {"lr": 0.01}}


def batch_of(policy: Policy, params: Params, obs: Tensor) -> Batch:
    """Actions that the policy has drawn, and advantages that depend on them."""
    outputs = policy.outputs(params, obs)
    random = torch.Generator().manual_seed(3)
    noise = torch.rand(*obs.shape[:2], policy.head.noise, dtype=torch.float64, generator=random)
    action = policy.head.sample(outputs, noise)
    advantage = obs[..., 0] * (action if policy.head.name == "categorical" else action[..., 0])
    valid = torch.ones(obs.shape[:2], dtype=torch.bool)
    valid[:, -3:] = False
    return Batch(obs, action, advantage, torch.zeros_like(advantage), valid)


def policy_gradient(policy: Policy, params: Params, batch: Batch) -> Params:
    """The gradient of minus the surrogate, at ratios of 1."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    log_prob = policy.head.log_prob(policy.outputs(leaves, batch.obs), batch.action)
    loss = -(log_prob * batch.advantage * batch.valid).sum(1) / batch.valid.sum(1)
    return dict(zip(leaves, torch.autograd.grad(loss.sum(), list(leaves.values())), strict=True))


def unflatten(vector: Tensor, like: Params, k: int) -> Params:
    """A vector as leaves ``(1, ...)`` of member k."""
    sizes = [leaf[k].numel() for leaf in like.values()]
    pairs = zip(like.items(), vector.split(sizes), strict=True)
    return {name: part.view(1, *leaf.shape[1:]) for (name, leaf), part in pairs}


def reference_trpo(policy: Policy, params: Params, batch: Batch, k: int, hyper: dict[str, float]) -> tuple[Tensor, int]:
    """The step of one member, as in Schulman et al. 2015, appendix C, and the trial that was accepted (-1: none)."""
    obs, action, advantage = (column[k : k + 1, :-3] for column in (batch.obs, batch.action, batch.advantage))
    at = {name: leaf[k : k + 1] for name, leaf in params.items()}
    grad = flat(policy_gradient(policy, params, batch), k)
    matrix = dense_fisher(policy, at, obs, 0) + hyper["cg_damping"] * torch.eye(len(grad), dtype=torch.float64)
    x, residual = torch.zeros_like(grad), grad
    direction = residual
    for _ in range(int(hyper["cg_max_steps"])):
        image = matrix @ direction
        length = residual @ residual / (direction @ image)
        x = x + length * direction
        following = residual - length * image
        direction = following + (following @ following) / (residual @ residual) * direction
        residual = following
    longest = -(2 * hyper["target_kl"] / (x @ matrix @ x)).sqrt() * x
    before = policy.outputs(at, obs)
    for trial in range(int(hyper["line_search_max_iter"])):
        step = hyper["line_search_shrinking_factor"] ** trial * longest
        moved = {name: at[name] + leaf for name, leaf in unflatten(step, params, k).items()}
        after = policy.outputs(moved, obs)
        ratio = (policy.head.log_prob(after, action) - policy.head.log_prob(before, action)).exp()
        rises = ((ratio - 1) * advantage).mean() > 0
        if rises and policy.head.kl(before, after).mean() <= hyper["target_kl"]:
            return step, trial
    return torch.zeros_like(grad), -1


@pytest.mark.parametrize("head", HEADS)
def test_trpo_equals_its_reference_step_by_step(head: str) -> None:
    """Four members with their own settings: accepted at once, after some trials, and never."""
    policy, obs = policy_of(head), observations(4)
    params = parameters(policy, 4)
    each = {
        "target_kl": [1e-3, 0.2, 5.0, 0.5],
        "cg_max_steps": [5, 10, 6, 10],
        "cg_damping": [0.1, 1e-3, 1e-3, 1e-2],
        "line_search_shrinking_factor": [0.8, 0.7, 0.9, 0.5],
        "line_search_max_iter": [10, 10, 1, 10],
    }
    optimizer = make("trpo", **each)
    state = optimizer.init(params)
    accepted = set()
    for _ in range(5):
        batch = batch_of(policy, params, obs)
        at = params
        extra: dict[str, Any] = {
            "fisher_vector_product": fisher_vector_product(
                lambda moved, at=at: kl_from(policy, at, obs[:, :-3], moved), at
            ),
            "trial": Trial(policy, at, [(None, batch)]),
        }
        updates, state = optimizer.update(policy_gradient(policy, at, batch), state, at, **extra)
        for k in range(4):
            hyper = {name: numbers[k] for name, numbers in each.items()}
            step, trial = reference_trpo(policy, at, batch, k, hyper)
            accepted.add(trial)
            assert (flat(updates, k) - step).norm() <= 1e-7 * step.norm() + 1e-12
            scale = diagnostics(state)["step_scale"][k].item()
            assert scale == pytest.approx(0 if trial < 0 else hyper["line_search_shrinking_factor"] ** trial)
        params = apply_updates(params, updates)
    assert {-1, 0} < accepted  # and others


def quadratic() -> tuple[dict[str, Any], Params]:
    """A divergence that is v F v / 2, with F = I / 2 + c c^T / 4, c_k = cos k; parameters W (3, 4), b (1, 4)."""
    c = torch.arange(16, dtype=torch.float64).cos()
    fisher = torch.eye(16, dtype=torch.float64) / 2 + torch.outer(c, c) / 4
    i, j = torch.arange(3.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    params = {"W": (1 + i + 2.3 * j).sin()[None], "b": (2 + 0.6 * j).cos()[None, None]}

    def vector(tree: Params) -> Tensor:
        return torch.cat([tree["W"].flatten(), tree["b"].flatten()])

    def product(tree: Params) -> Params:
        image = fisher @ vector(tree)
        return {"W": image[:12].view(1, 3, 4), "b": image[12:].view(1, 1, 4)}

    def trial_from(at: Params) -> Callable[[Params], tuple[Tensor, Tensor]]:
        def trial(moved: Params) -> tuple[Tensor, Tensor]:
            difference = vector(moved) - vector(at)
            return torch.zeros(1), (difference @ fisher @ difference / 2)[None]

        return trial

    return {"product": product, "trial_from": trial_from}, params


VECTORS = {
    "adam": (
        {"lr": 0.1, "kl_limit": 0.01},
        [0.422095607905, 0.453915076726, 0.552795354021, 0.649308173778, 0.787897370262],
        [
            0.813621275078,
            0.110610400873,
            -0.456035830148,
            0.9367079291,
            1.06323041075,
            -0.723377578461,
            0.283456686574,
            0.277560674698,
            0.349795046896,
            -0.824664862102,
            0.704053292444,
            -0.575919456476,
        ],
        [-0.698524183781, -1.08567719108, -0.959965809625, -0.508669308231],
    ),
    "sgd": (
        {"lr": 0.07, "kl_limit": 0.01},
        [0.810559585332, 0.900675760459, 1.0, 1.0, 0.95517470592],
        [
            0.951266876209,
            0.0575934858427,
            -0.578002460861,
            0.907806594982,
            1.06951165734,
            -0.85214754426,
            0.185576822999,
            0.417465841503,
            0.20578551949,
            -0.968017680362,
            0.782773989621,
            -0.420838161977,
        ],
        [-0.669892171228, -0.977434592622, -0.853907691392, -0.539435029723],
    ),
}
"""Scales of five steps, the last W and the last b: by torch.optim in float64, then u min(1, sqrt(2 limit / u F u))."""


@pytest.mark.parametrize("name", VECTORS)
def test_a_limited_step_equals_its_test_vectors(name: str) -> None:
    hyper, scales, last_w, last_b = VECTORS[name]
    functions, params = quadratic()
    optimizer = make(name, **hyper)
    state = optimizer.init(params)
    i, j = torch.arange(3.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    for t, scale in enumerate(scales, 1):
        grads = {
            "W": ((0.7 * t + 0.9 * i + 1.3 * j).cos() + 0.1 * (i - j))[None],
            "b": (0.5 * t + 1.1 * j).sin()[None, None],
        }
        extra = {"fisher_vector_product": functions["product"], "trial": functions["trial_from"](params)}
        updates, state = optimizer.update(grads, state, params, **extra)
        params = apply_updates(params, updates)
        assert diagnostics(state)["step_scale"].item() == pytest.approx(scale, abs=1e-10)
        assert diagnostics(state)["step_kl"].item() <= hyper["kl_limit"] * (1 + 1e-6)
    torch.testing.assert_close(params["W"].flatten(), torch.tensor(last_w, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(params["b"].flatten(), torch.tensor(last_b, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_a_limited_step_is_along_the_whole_one(head: str) -> None:
    """Far beyond the quadratic region, too; a step that is short enough stays as it is, to the bit."""
    policy, obs = policy_of(head), observations(3)
    params = parameters(policy, 3)
    grads = numbers_like(params)
    batch = batch_of(policy, params, obs)
    extra: dict[str, Any] = {
        "fisher_vector_product": fisher_vector_product(lambda moved: kl_from(policy, params, obs, moved), params),
        "trial": Trial(policy, params, [(None, batch)]),
    }
    rates = [1e-6, 1.0, 30.0]
    limited = make("sgd", lr=rates, kl_limit=0.02)
    updates, state = limited.update(grads, limited.init(params), params, **extra)
    whole = make("sgd", lr=rates)
    full, _ = whole.update(grads, whole.init(params), params)
    scale = diagnostics(state)["step_scale"]
    assert scale[0] == 1
    assert scale[1] < 1
    for name, leaf in full.items():
        assert torch.equal(updates[name][0], leaf[0])
        torch.testing.assert_close(updates[name], leaf * scale.view(-1, 1, 1))
    measured = policy.head.kl(
        policy.outputs(params, obs[:, :-3]), policy.outputs(apply_updates(params, updates), obs[:, :-3])
    ).mean(1)
    torch.testing.assert_close(measured, diagnostics(state)["step_kl"])
    assert (measured <= 0.02 * (1 + 1e-6)).all()
    assert measured[1] > 0.002


def probe(
    optimizer: dict[str, Any], probe_name: str = "Match", agent: str = "actor-critic", **changes: Any
) -> TrainConfig:
    table = {
        "name": "probe",
        "steps": 6_000,
        "envs_per_member": 8,
        "env": {"id": f"helpers.probes:Probe{probe_name}-v0"},
        "agent": {"name": agent, "gamma": 0.9},
        "policy": {"hidden": [16]},
        "optimizer": optimizer,
        "evaluation": {"points": 0, "final_episodes": 50},
        **({"envs_per_member": 32} if agent == "reinforce" else {"rollout_steps": 16}),
    }
    return parse_config(table | changes)


@pytest.mark.parametrize("agent", few_by_default(["actor-critic", "reinforce"], "reinforce"))
@pytest.mark.parametrize(
    ("optimizer", "limit"), [(TRPO, 0.01), ({**LIMITED, "groups": {"*.bias": {"lr": 1.0}}}, 0.002)]
)
def test_probes_are_learnt_within_the_limit(agent: str, optimizer: dict[str, Any], limit: float) -> None:
    """The better action depends on the observation; no step goes farther than it may, and some go nearly as far."""
    notes = Notes()
    configs = [probe(optimizer, agent=agent, seed=seed) for seed in range(3)]
    result = pgkit.train(configs, callbacks=[notes])
    kl = torch.tensor([number for view in notes.of("on_update") for number in view.metrics["policy/approx_kl"]])
    assert kl.max() <= limit * (1 + 1e-5)
    assert kl.max() > 0.5 * limit
    assert [row["return_mean"] > 0.6 for row in result.table] == [True] * 3


def members() -> list[TrainConfig]:
    """Two that share an optimizer and differ in its numbers, and others."""
    tables = [TRPO, {**TRPO, "target_kl": 0.03}, LIMITED, {"name": "rmsprop", "kl_limit": 1e-3}, {"name": "sgd"}]
    env = {"id": "CartPole-v1", "max_episode_steps": 40}
    settings: dict[str, Any] = {"env": env, "steps": 800, "envs_per_member": 3}
    return [probe(table, seed=seed, **settings) for seed, table in enumerate(tables)]


def test_alone_is_together_and_resumed_is_whole(tmp_path: Any) -> None:
    whole = pgkit.train(members())
    for k, config in enumerate(members()):
        alone = pgkit.train(config)
        assert alone.table[0] == whole.table[k]
        assert_equal(alone.params, {name: leaf[k : k + 1] for name, leaf in whole.params.items()})
    half = [config.model_copy(update={"steps": 400}) for config in members()]
    pgkit.train(half, tmp_path / "run")
    again = pgkit.resume(tmp_path / "run", steps=800)
    assert again is not None
    assert again.table == whole.table
    assert_equal(again.params, whole.params)


def test_a_member_that_fails_is_not_hidden_by_the_search() -> None:
    config = probe({**LIMITED, "lr": 1e38}, steps=600)
    with_failure = pgkit.train([config, probe(LIMITED, seed=1, steps=600)])
    assert [row["failed"] for row in with_failure.table][1] is False
    grads = {"actor.0.weight": torch.tensor([[torch.nan, 1.0]])}
    params = {"actor.0.weight": torch.zeros(1, 2)}
    optimizer = make("sgd", kl_limit=0.1)
    extra: dict[str, Any] = {
        "fisher_vector_product": lambda vector: vector,
        "trial": lambda moved: (torch.zeros(1), moved["actor.0.weight"].sum(1)),
    }
    updates, _ = optimizer.update(grads, optimizer.init(params), params, **extra)
    assert updates["actor.0.weight"].isnan().any()


def test_the_limit_is_of_the_whole_policy() -> None:
    """So it is around all groups of parameters, and the critic's has none."""
    assert describe(LIMITED)["main"]["kl_limit"] == 0.002
    assert "kl_limit" not in describe(LIMITED)["critic"]
    with pytest.raises(
        PgkitError, match=r"optimizer \(critic\): kl_limit is of the whole policy: set optimizer.kl_limit"
    ):
        describe({"name": "adam", "critic": {"kl_limit": 0.1}})
    params = {"actor.0.weight": torch.zeros(1, 2), "critic.0.weight": torch.zeros(1, 2)}
    optimizer = from_config([{**LIMITED, "name": "sgd", "critic": {"lr": 5.0}}])
    extra: dict[str, Any] = {
        "fisher_vector_product": lambda vector: vector,
        "trial": lambda moved: (torch.zeros(1), moved["actor.0.weight"].square().sum(1) / 2),
    }
    ones = {name: torch.ones(1, 2) for name in params}
    updates, state = optimizer.update(ones, optimizer.init(params), params, **extra)
    assert updates["critic.0.weight"].tolist() == [[-5.0, -5.0]]
    assert updates["actor.0.weight"].square().sum() / 2 == pytest.approx(0.002)
    assert diagnostics(state)["step_kl"].item() == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"name": "trpo"}, "trpo is for the policy, not for 'critic.0.weight': set optimizer.critic.name"),
        ({"name": "trpo", "target_kl": 0.0}, "target_kl is 0; it must be above 0"),
        ({"name": "trpo", "line_search_shrinking_factor": 1.0}, "must be above 0 and below 1"),
        ({"name": "adam", "kl_limit": -1.0}, "kl_limit is -1; it must be above 0"),
    ],
)
def test_mistakes_are_one_line(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(PgkitError, match=problem):
        from_config([table]).init({"actor.0.weight": torch.zeros(1, 2), "critic.0.weight": torch.zeros(1, 2)})


def test_a_missing_function_is_named() -> None:
    params = {"actor.0.weight": torch.zeros(1, 2)}
    for optimizer in (make("trpo"), make("sgd", kl_limit=0.1)):
        with pytest.raises(PgkitError, match="requires 'trial', a function of Params"):
            optimizer.update(params, optimizer.init(params), params, fisher_vector_product=lambda vector: vector)
