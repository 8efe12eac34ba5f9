"""The Fisher matrix of a policy."""

import pytest
import torch
from helpers.curvature_oracles import enumerated, flat_actor, two_locks
from helpers.dense_fisher import HEADS, dense_fisher, parameters, policy_of
from helpers.dense_fisher import observations as random_observations

from pgkit.diagnose.curvature import EpisodeSamples, episode_samples
from pgkit.diagnose.fisher import fisher_max, fisher_product, fisher_trace, predicted_kl, random_signs
from pgkit.diagnose.vectors import unflatten
from pgkit.types import Rollout

STEPS_PER_EPISODE = 1.5


def locks_by_chance() -> tuple[torch.Tensor, EpisodeSamples]:
    """Two locks at theta 0, with the likelier episode twice: all four are equally likely."""
    task = two_locks()
    copies = torch.repeat_interleave(torch.arange(3), (4 * task.probability[:, 0]).round().long())
    rollout = task.rollout
    columns = (rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    repeated = Rollout(*(column[:, copies] for column in columns))
    return task.axes, episode_samples(task.policy, repeated, torch.zeros_like(repeated.reward))


def test_fisher_and_kl_of_two_locks() -> None:
    """Per episode, 1.5 steps, F is diag(.25, .125); d = (.1, .2): KL .00374532, d'Fd / 2 .00375."""
    task = two_locks()
    axes, samples = locks_by_chance()
    assert samples.count == 4
    product = fisher_product(task.policy, task.params, samples)
    fisher = STEPS_PER_EPISODE * axes @ torch.stack([product(axis) for axis in axes], 1)
    torch.testing.assert_close(fisher, torch.diag(torch.tensor([0.25, 0.125])).double())
    update = torch.tensor([0.1, 0.2], dtype=torch.float64) @ axes
    assert STEPS_PER_EPISODE * predicted_kl(product, update) == pytest.approx(0.00375, abs=1e-12)
    actor = {name: leaf for name, leaf in task.params.items() if name.startswith("actor.")}
    moved = unflatten((flat_actor(task.params) + update).unsqueeze(0), actor)
    obs = samples.batch.obs
    kl = task.policy.head.kl(task.policy.outputs(actor, obs), task.policy.outputs(moved, obs)).mean()
    assert STEPS_PER_EPISODE * float(kl) == pytest.approx(0.00374532, abs=1e-8)


@pytest.mark.parametrize("head", HEADS)
def test_largest_eigenvalue_and_trace(head: str) -> None:
    """Against the matrix written out; the trace of a whole set of signs is exact up to their own noise."""
    policy = policy_of(head)
    params = parameters(policy, 1)
    states = random_observations(1)
    obs = torch.cat([states, states[:, :1]], 1).unsqueeze(2).transpose(0, 1)  # (T + 1, P, N, D)
    flags = torch.ones(40, 1, 1, dtype=torch.bool)
    action = torch.zeros(40, 1, 1, dtype=torch.int64) if head == "categorical" else torch.zeros(40, 1, 1, 2).double()
    rollout = Rollout(obs, action, torch.zeros(40, 1, 1).double(), flags, ~flags, flags)
    product = fisher_product(policy, params, episode_samples(policy, rollout, rollout.reward))
    dense = dense_fisher(policy, params, states, 0)
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(len(dense), generator=draws)
    assert fisher_max(product, start) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6)
    quantity = fisher_trace(product, random_signs(256, len(dense), draws))
    trace = float(dense.trace())
    assert quantity.n == 256
    assert quantity.low < trace < quantity.high
    assert quantity.high - quantity.low < 0.3 * trace


def test_a_policy_that_cannot_move_has_no_trace() -> None:
    task = two_locks((40.0, 40.0))
    samples = enumerated(two_locks())
    product = fisher_product(task.policy, task.params, samples)
    assert fisher_trace(product, random_signs(4, 6, torch.Generator().manual_seed(0))).value < 1e-9


def test_some_of_many_states_are_evenly_spaced() -> None:
    """Every second step of the likeliest episodes: those in the first state, where F of a step is 1/4."""
    axes, samples = locks_by_chance()
    task = two_locks()
    assert samples.batch.obs[0, ::2, 0].tolist() == [1.0, 1.0, 1.0]
    product = fisher_product(task.policy, task.params, samples, states=3)
    assert float(axes[0] @ product(axes[0])) == pytest.approx(0.25)
    assert float(axes[1] @ product(axes[1])) == 0.0
