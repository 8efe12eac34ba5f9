"""PPO, step for step against its arithmetic in CleanRL's ``ppo.py``, written down here in NumPy with float64."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from pgkit.agents import actor_critic, ppo

from pgkit.config.load import parse_config
from pgkit.config.members import expand_seeds
from pgkit.training.loop import gradient, targets
from pgkit.training.population import Population, build
from pgkit.types import Batch, Params, Rollout

GAMMA, LAM, CLIP, ENTROPY, VALUE = 0.97, 0.9, 0.2, 0.01, 0.5


def population(env: str = "CartPole-v1", **agent: Any) -> Population:
    """One member, 4 environments, 16 steps."""
    table = {
        "name": "ppo",
        "env": {"id": env},
        "agent": {"name": "ppo", "gamma": GAMMA, "lam": LAM, "entropy_coef": ENTROPY, "value_coef": VALUE} | agent,
        "policy": {"hidden": [12, 12], "log_std": -0.3} if env == "Pendulum-v1" else {"hidden": [12, 12]},
        "optimizer": "adam",
        "steps": 2_000,
        "seeds": 1,
        "envs_per_member": 4,
        "rollout_steps": 16,
        "minibatches": 2,
    }
    return build(expand_seeds(parse_config(table)))


def collected(at: Population) -> tuple[Rollout, Batch]:
    """A rollout in which episodes have ended, none by a time limit; and what PPO's ``targets`` makes of it."""
    for _ in range(3):
        rollouts = at.collect()
    rollout = rollouts[0].rollout
    assert not rollout.truncated.any()
    return rollout, targets(at, rollouts[0])


# --- CleanRL's arithmetic, for one member; arrays are (T, N) and (B,) ---


class Net:
    """Two hidden layers of tanh, with gradients by hand."""

    def __init__(self, params: Params, name: str) -> None:
        self.name = name
        self.layers = [
            [params[f"{name}.{k}.{leaf}"][0].double().numpy() for leaf in ("weight", "bias")] for k in range(3)
        ]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.inputs = []
        for k, (weight, bias) in enumerate(self.layers):
            self.inputs.append(x)
            x = x @ weight + bias
            x = np.tanh(x) if k < 2 else x
        return x

    def backward(self, grad: np.ndarray) -> dict[str, np.ndarray]:
        grads = {}
        for k in (2, 1, 0):
            grads[f"{self.name}.{k}.weight"] = self.inputs[k].T @ grad
            grads[f"{self.name}.{k}.bias"] = grad.sum(0, keepdims=True)
            grad = (grad @ self.layers[k][0].T) * (1 - self.inputs[k] ** 2)
        return grads


def cleanrl_gae(reward: np.ndarray, done: np.ndarray, value: np.ndarray, last_value: np.ndarray) -> np.ndarray:
    """``done[t]``: the episode ended with step t."""
    advantage = np.zeros_like(reward)
    following = np.zeros_like(last_value)
    for t in reversed(range(len(reward))):
        next_value = last_value if t == len(reward) - 1 else value[t + 1]
        delta = reward[t] + GAMMA * next_value * (1 - done[t]) - value[t]
        following = delta + GAMMA * LAM * (1 - done[t]) * following
        advantage[t] = following
    return advantage


def cleanrl_losses(
    params: Params, batch: dict[str, np.ndarray], clip_vf: float | None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Losses and gradients of a minibatch."""
    actor, critic = Net(params, "actor"), Net(params, "critic")
    outputs, value = actor.forward(batch["obs"]), critic.forward(batch["obs"])[:, 0]
    count = len(value)
    if "actor.log_std" in params:
        log_std = params["actor.log_std"][0].double().numpy()
        z = (batch["action"] - outputs) / np.exp(log_std)
        log_prob = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(1)
        entropy = np.full(count, (log_std + 0.5 * (1 + np.log(2 * np.pi))).sum())
        d_log_prob, d_entropy = z / np.exp(log_std), np.zeros_like(outputs)
    else:
        logits = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
        probs = np.exp(logits)
        log_prob = logits[np.arange(count), batch["action"]]
        entropy = -(probs * logits).sum(1)
        d_log_prob = np.eye(outputs.shape[1])[batch["action"]] - probs
        d_entropy = -probs * (logits + entropy[:, None])
    log_ratio = log_prob - batch["log_prob"]
    ratio = np.exp(log_ratio)
    advantage = (batch["advantage"] - batch["advantage"].mean()) / (batch["advantage"].std(ddof=1) + 1e-8)
    unclipped, clipped = -advantage * ratio, -advantage * np.clip(ratio, 1 - CLIP, 1 + CLIP)
    pg_loss = np.maximum(unclipped, clipped).mean()
    d_ratio = np.where(unclipped >= clipped, -advantage * ratio, 0.0) / count
    error = value - batch["target"]
    d_value = error
    v_loss = 0.5 * (error**2).mean()
    if clip_vf is not None:
        change = value - batch["value"]
        clipped_error = batch["value"] + np.clip(change, -clip_vf, clip_vf) - batch["target"]
        v_loss = 0.5 * np.maximum(error**2, clipped_error**2).mean()
        inside = np.abs(change) <= clip_vf
        d_value = np.where(error**2 > clipped_error**2, error, np.where(inside, clipped_error, 0.0))
    # CleanRL: pg_loss - ent_coef * entropy_loss + v_loss * vf_coef, whose vf_coef is twice pgkit's value_coef.
    losses = {
        "loss": pg_loss - ENTROPY * entropy.mean() + v_loss * 2 * VALUE,
        "loss/policy": pg_loss,
        "loss/value": 2 * v_loss,
        "policy/entropy": entropy.mean(),
        "update/approx_kl": ((ratio - 1) - log_ratio).mean(),
        "update/clip_fraction": (np.abs(ratio - 1) > CLIP).mean(),
    }
    grads = actor.backward(d_ratio[:, None] * d_log_prob - ENTROPY * d_entropy / count)
    grads |= critic.backward((2 * VALUE * d_value / count)[:, None])
    if "actor.log_std" in params:
        grads["actor.log_std"] = (d_ratio[:, None] * (z**2 - 1)).sum(0, keepdims=True) - ENTROPY
    return losses, grads


def in_float64(batch: Batch) -> Batch:
    columns = {
        name: column.double() if column.is_floating_point() else column for name, column in batch.columns.items()
    }
    return Batch.of_columns(columns)


def moved(params: Params, scale: float) -> Params:
    """The policy some updates later: ratios are not 1 any more."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (leaf + scale * torch.randn(leaf.shape, generator=generator)).double() for name, leaf in params.items()
    }


@pytest.mark.parametrize("mode", ["kernels", "off"])
@pytest.mark.parametrize("clip_vf", [None, 0.1])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_losses_and_gradients_are_cleanrls(
    env: str, clip_vf: float | None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compile_mode(monkeypatch, mode)
    at = population(env, **({} if clip_vf is None else {"clip_range_vf": clip_vf}))
    _, batch = collected(at)
    batch = in_float64(batch)
    at.params = moved(at.params, 0.2)
    loss, grads, metrics = gradient(at, [(None, batch)])
    # CleanRL's environments reset themselves within a step, so it has no samples that do not count.
    arrays = {name: column[0][batch.valid[0]].numpy() for name, column in batch.columns.items()}
    losses, expected = cleanrl_losses(at.params, arrays, clip_vf)
    assert 0.05 < losses["update/clip_fraction"] < 0.95
    for name, number in losses.items():
        assert abs(float(loss if name == "loss" else metrics[name]) - number) < 1e-6 * max(1, abs(number)), name
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert grad.abs().max() > 1e-4
        np.testing.assert_allclose(grad[0].numpy(), expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_advantages_are_cleanrls() -> None:
    at = population()
    rollout, batch = collected(at)
    assert rollout.terminated.any()
    critic = Net(at.params, "critic")
    value = critic.forward(rollout.obs[:, 0].double().numpy())[..., 0]
    reward, done = (column[:, 0].double().numpy() for column in (rollout.reward, rollout.terminated))
    advantage = cleanrl_gae(reward, done, value[:-1], value[-1])
    valid = batch.valid[0].numpy()
    for column, expected in zip(
        (batch.advantage, batch.target, batch.value), (advantage, advantage + value[:-1], value[:-1]), strict=True
    ):
        assert column is not None
        np.testing.assert_allclose(column[0].numpy()[valid], expected.ravel()[valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_before_the_policy_has_moved_the_gradient_is_actor_critics(env: str) -> None:
    """The ratio is 1, to the last bit where compiled; one rounding more is in the product with it."""
    at = population(env, normalize_advantage=False)
    _, batch = collected(at)
    loss, grads, metrics = gradient(at, [(None, batch)])
    assert float(metrics["update/approx_kl"]) == 0.0
    assert float(metrics["update/clip_fraction"]) == 0.0
    settings = {"gamma": GAMMA, "lam": LAM, "entropy_coef": ENTROPY, "value_coef": VALUE}
    at.agent, at.agent_config = actor_critic, actor_critic.Config(**settings)
    _, expected, _ = gradient(at, [(None, batch._replace(log_prob=None, value=None))])
    for name, grad in grads.items():
        assert grad.abs().max() > 1e-4
        assert torch.allclose(grad, expected[name], rtol=1e-6, atol=1e-8), name
    assert loss.isfinite().all()


def test_clipping_without_what_it_needs_is_an_error() -> None:
    at = population()
    _, batch = collected(at)
    with pytest.raises(ValueError, match="needs a batch with log_prob"):
        ppo.loss(at.policy, at.params, batch._replace(log_prob=None), at.agent_config)
