"""Curvature of the expected return, against enumeration, closed forms and second derivatives."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.curvature_oracles import (
    Task,
    dice,
    enumerated,
    exact_values,
    flat_actor,
    log_probs,
    saddle,
    two_locks,
)
from torch import Tensor

from pgkit.diagnose import curvature
from pgkit.diagnose.curvature import (
    EpisodeSamples,
    directional_derivatives,
    episode_samples,
    hessian_product,
    join_episodes,
    return_gradient,
    return_hessian,
    step_weights,
)
from pgkit.diagnose.evidence import mean_quantity
from pgkit.losses import policy_gradient_loss, surrogate_gain
from pgkit.nn.distributions import bernoulli, categorical, gaussian, multi_categorical
from pgkit.nn.gru import GRU, sequences
from pgkit.nn.policy import Policy
from pgkit.types import Params, Rollout


def hessian(task: Task, samples: EpisodeSamples) -> Tensor:
    """The Hessian in the task's two parameters."""
    products = [hessian_product(task.policy, task.params, samples, axis) for axis in task.axes]
    return task.axes @ torch.stack(products, 1)


@pytest.mark.parametrize("with_value", [False, True])
@pytest.mark.parametrize(
    ("theta", "gamma", "expected"),
    [
        ((0.0, 0.0), 1.0, [[0.0, 0.0625], [0.0625, 0.0]]),
        ((0.5, -1.0), 1.0, [[0.00178763, 0.04620453], [0.04620453, 0.05655525]]),
        ((0.0, 0.0), 0.9, [[0.0, 0.05625], [0.05625, 0.0]]),
    ],
)
def test_two_locks(theta: tuple[float, float], gamma: float, expected: list[list[float]], with_value: bool) -> None:
    """For any baseline of the state the expectation is the same, and it is the closed form."""
    task = two_locks(theta)
    samples = enumerated(task, gamma, exact_values(task, gamma) if with_value else None)
    computed = hessian(task, samples)
    torch.testing.assert_close(computed, torch.tensor(expected).double(), atol=1e-6, rtol=0)  # of the differences
    p, q = (1 / (1 + np.exp(-x)) for x in theta)
    closed = [
        [p * (1 - p) * (1 - 2 * p) * (gamma * q - 0.3), gamma * p * (1 - p) * q * (1 - q)],
        [gamma * p * (1 - p) * q * (1 - q), gamma * p * q * (1 - q) * (1 - 2 * q)],
    ]
    torch.testing.assert_close(computed, torch.tensor(closed, dtype=torch.float64), atol=1e-6, rtol=0)


def test_eigenvalues_and_gradient_of_two_locks() -> None:
    task = two_locks((0.5, -1.0))
    samples = enumerated(task)
    assert float((task.rollout.reward.sum((0, 2)) * task.probability[:, 0]).sum()) == pytest.approx(
        0.28066730, abs=1e-8
    )
    gradient = task.axes @ return_gradient(task.policy, task.params, samples)
    assert gradient.tolist() == pytest.approx([-0.00729888, 0.12238293], abs=1e-8)
    values = torch.linalg.eigvalsh(hessian(task, samples))
    assert values.tolist() == pytest.approx([-0.02453826, 0.08288114], abs=1e-6)


def test_directional_derivatives_of_two_locks() -> None:
    """Means over episodes are v'g and v'Hv, for a vector of any length."""
    task = two_locks((0.5, -1.0))
    samples = enumerated(task, 1.0, exact_values(task))
    vector = torch.tensor([2.0, -3.0], dtype=torch.float64) @ task.axes
    along = directional_derivatives(task.policy, task.params, samples, vector)
    assert along.slope.shape == along.curvature.shape == (3,)
    assert float(along.slope.mean()) == pytest.approx(2 * -0.00729888 - 3 * 0.12238293, abs=1e-5)
    expected = 4 * 0.00178763 - 12 * 0.04620453 + 9 * 0.05655525
    assert float(along.curvature.mean()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("theta", "with_value", "variance"),
    [
        ((0.0, 0.0), False, 0.118125),
        ((0.0, 0.0), True, 0.046875),
        # By hand: sum_i P_i |g_i|^2 - |g|^2 of the three episodes.
        ((0.5, -1.0), False, 0.111465),
        ((0.5, -1.0), True, 0.052677),
    ],
)
def test_variance_of_an_episodes_slope(theta: tuple[float, float], with_value: bool, variance: float) -> None:
    """The slopes of single episodes are the components of their gradients, whose variance is known."""
    task = two_locks(theta)
    baseline = exact_values(task) if with_value else torch.zeros_like(task.rollout.reward)
    samples = episode_samples(task.policy, task.rollout, step_weights(task.rollout, baseline=baseline))
    slopes = [directional_derivatives(task.policy, task.params, samples, axis).slope for axis in task.axes]
    gradients = torch.stack(slopes, 1)
    mean = (task.probability * gradients).sum(0)
    assert float((task.probability * (gradients - mean) ** 2).sum()) == pytest.approx(variance, abs=2e-6)


def second_derivatives(task: Task, samples: EpisodeSamples, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The Hessian of a function of log-probabilities ``(S,)``, in the task's two parameters."""

    def of_vector(vector: Tensor) -> Tensor:
        return loss(log_probs(task.policy, task.params, samples, vector))

    whole: Tensor = torch.autograd.functional.hessian(of_vector, flat_actor(task.params))  # type: ignore[assignment]
    return task.axes @ whole @ task.axes.T


def test_the_losses_of_agents_have_another_hessian() -> None:
    """At a saddle the ratio surrogate is flat, the log-probability loss like a maximum, with an exact critic flat."""
    task = two_locks()
    samples = enumerated(task)
    weight = samples.weight.unsqueeze(0)
    valid = torch.ones_like(weight, dtype=torch.bool)
    per_episode = weight.numel() / samples.count  # losses are means over steps
    old = log_probs(task.policy, task.params, samples, flat_actor(task.params)).detach()

    def ratio(log_prob: Tensor) -> Tensor:
        return per_episode * surrogate_gain(log_prob.unsqueeze(0), old.unsqueeze(0), weight, valid).sum()

    def log_loss(log_prob: Tensor) -> Tensor:
        return -per_episode * policy_gradient_loss(log_prob.unsqueeze(0), weight, valid).sum()

    zero = torch.zeros(2, 2, dtype=torch.float64)
    torch.testing.assert_close(second_derivatives(task, samples, ratio), zero)
    maximum = second_derivatives(task, samples, log_loss)
    torch.testing.assert_close(maximum, torch.diag(torch.tensor([-0.1, -0.0625])).double())
    weight = enumerated(task, 1.0, exact_values(task)).weight.unsqueeze(0)
    torch.testing.assert_close(second_derivatives(task, samples, log_loss), zero)
    assert torch.linalg.eigvalsh(hessian(task, samples)).tolist() == pytest.approx([-0.0625, 0.0625], abs=1e-6)


def test_saddle() -> None:
    """J = sigmoid(x y) by its two episodes: no slope at 0, and eigenvalues -+1/4."""
    task = saddle(torch.tensor([0, 1]))
    samples = enumerated(task)  # both have probability 1/2
    assert (task.axes @ return_gradient(task.policy, task.params, samples)).abs().max() < 1e-12
    torch.testing.assert_close(hessian(task, samples), torch.tensor([[0, 0.25], [0.25, 0]]).double(), atol=1e-4, rtol=0)


def test_sampled_saddle() -> None:
    """400 episodes: a standard error of .0125 without baseline, none with b = 1/2."""
    actions = torch.from_numpy(np.random.default_rng(0).random(400) < 0.5).long()
    task = saddle(actions)
    diagonal = torch.tensor([1.0, 1.0], dtype=torch.float64) / 2**0.5 @ task.axes
    plain = directional_derivatives(task.policy, task.params, enumerated(task), diagonal).curvature
    assert float(plain.mean()) == pytest.approx(0.22875, abs=1e-4)
    assert float(plain.std()) / 20 == pytest.approx(0.0125, abs=1e-4)
    assert mean_quantity(plain).excludes(0.0)
    half = enumerated(task, 1.0, torch.full_like(task.rollout.reward, 0.5))
    exact = directional_derivatives(task.policy, task.params, half, diagonal).curvature
    torch.testing.assert_close(exact, torch.full_like(exact, 0.25), atol=1e-4, rtol=0)


POLICIES = {
    "categorical": Policy(3, categorical(3), hidden=(4,)),
    "shared": Policy(3, categorical(3), hidden=(4,), shared=True),
    "masked": Policy(3, categorical(3), hidden=(4,)),
    "bernoulli": Policy(3, bernoulli(2), hidden=(4,)),
    "multi-categorical": Policy(3, multi_categorical([2, 3]), hidden=(4,)),
    "gaussian": Policy(3, gaussian(2), hidden=(4,)),
    "squashed": Policy(3, gaussian(2, squash=True, state_dependent_std=True), hidden=(4,)),
    "recurrent": Policy(3, categorical(3), hidden=(), network=GRU(3, 4), critic_hidden=()),
}
LENGTHS = ((3, 1, 4), (4, 2, 2))  # steps of the episodes of N = 3 environments of P = 2 copies


def acted(policy: Policy, masked: bool = False) -> tuple[Params, Rollout]:
    """Parameters of one member, float64, and episodes of different lengths with random observations and rewards."""
    draws = torch.Generator().manual_seed(0)
    params = {
        name: leaf.double() + 0.5 * torch.randn(leaf.shape, generator=draws, dtype=torch.float64)
        for name, leaf in policy.init([0]).items()
    }
    lengths = torch.tensor(LENGTHS)
    time = torch.arange(4).view(-1, 1, 1)
    valid = time < lengths
    obs = torch.randn(5, 2, 3, 3, generator=draws, dtype=torch.float64)
    if masked:
        obs = torch.cat([obs, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(5, 2, 3, 3)], -1)
    if policy.memory:
        obs = sequences(obs, torch.zeros(2, 3, policy.memory, dtype=torch.float64), torch.zeros(5, 2, 3).bool())
    copies = {name: leaf.expand(2, *leaf.shape[1:]) for name, leaf in params.items()}
    outputs = policy.outputs(copies, obs[:-1].transpose(0, 1).flatten(1, 2))
    noise = torch.rand(*outputs.shape[:2], policy.head.noise, generator=draws, dtype=torch.float64)
    action = policy.head.sample(outputs, noise).unflatten(1, (4, 3)).transpose(0, 1)
    reward = torch.randn(4, 2, 3, generator=draws, dtype=torch.float64)
    ended = time == lengths - 1
    return params, Rollout(obs, action, reward, ended & (lengths > 2), ended & (lengths <= 2), valid)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "tensors"])
@pytest.mark.parametrize("name", POLICIES)
def test_products_equal_second_derivatives(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradient, products and directional derivatives are those of DiCE, one function, for all kinds of policies."""
    if not compiled:
        set_compile_mode(monkeypatch, "off")
    policy = POLICIES[name]
    params, rollout = acted(policy, masked=name == "masked")
    samples = episode_samples(policy, rollout, step_weights(rollout, gamma=0.9))
    assert samples.count == 6
    theta = flat_actor(params).requires_grad_()
    vector = torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (slope,) = torch.autograd.grad(dice(policy, params, samples, theta), theta, create_graph=True)
    (exact,) = torch.autograd.grad(slope @ vector, theta)
    assert exact.norm() > 0.1
    torch.testing.assert_close(return_gradient(policy, params, samples), slope.detach(), rtol=1e-9, atol=1e-12)
    product = return_hessian(policy, params, samples)(vector)
    assert (product - exact).norm() < 1e-4 * exact.norm()
    along = directional_derivatives(policy, params, samples, vector)
    assert float(along.slope.mean()) == pytest.approx(float(slope.detach() @ vector), rel=1e-4)
    assert float(along.curvature.mean()) == pytest.approx(float(exact @ vector), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("dtype", "step", "error"), [(torch.float64, 0.01, 5e-6), (torch.float32, 0.1, 5e-4), (torch.float32, 0.01, 5e-4)]
)
def test_errors_of_products_in_4610_dimensions(
    dtype: torch.dtype, step: float, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "BLOCK_SAMPLES", 150)  # 400 samples in three blocks
    policy = Policy(4, categorical(2), hidden=(64, 64))
    params = policy.init([0])
    draws = torch.Generator().manual_seed(0)
    obs = torch.randn(21, 1, 20, 4, generator=draws)
    action = torch.randint(2, (20, 1, 20), generator=draws)
    ended = (torch.arange(20) == 19).view(-1, 1, 1).expand(20, 1, 20)
    flags = torch.ones(20, 1, 20, dtype=torch.bool)
    rollout = Rollout(obs, action, torch.randn(20, 1, 20, generator=draws), ended, ~flags, flags)
    samples = episode_samples(policy, rollout, step_weights(rollout), dtype)
    theta = flat_actor(params).requires_grad_()
    assert len(theta) == 4610
    vector = torch.randn(4610, generator=draws, dtype=torch.float64)
    (slope,) = torch.autograd.grad(dice(policy, params, samples, theta), theta, create_graph=True)
    (exact,) = torch.autograd.grad(slope @ vector, theta)
    product = hessian_product(policy, params, samples, vector, step)
    assert product.dtype == torch.float64
    assert 0 < (product - exact).norm() < error * exact.norm()


def test_several_episodes_of_one_environment() -> None:
    """Two episodes one after the other, with a reset between them, count like two of two environments."""
    policy = POLICIES["categorical"]
    params, rollout = acted(policy)
    one, two = rollout.valid[:, 0, 0].sum(), rollout.valid[:, 0, 2].sum()
    apart = [
        Rollout(*(x[: n + (i == 0), :1, e : e + 1] for i, x in enumerate(columns(rollout))))
        for e, n in ((0, one), (2, two))
    ]
    joined = columns(join_episodes(apart))
    assert joined[0].shape[:3] == (5, 2, 1)
    after = [x[: len(x) - (i == 0)] for i, x in enumerate(columns(apart[0]))]
    reset = [torch.zeros_like(x[:1]) for x in after]
    following = columns(apart[1])
    row = Rollout(*(torch.cat(parts) for parts in zip(after, reset, following, strict=True)))
    first = samples_without_baseline(policy, Rollout(*joined))
    second = samples_without_baseline(policy, row)
    vector = torch.ones(len(flat_actor(params)), dtype=torch.float64)
    expected = directional_derivatives(policy, params, first, vector)
    computed = directional_derivatives(policy, params, second, vector)
    torch.testing.assert_close(computed, expected)
    assert expected.curvature.abs().min() > 1e-3


def columns(rollout: Rollout) -> list[Tensor]:
    return [rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid]


def samples_without_baseline(policy: Policy, rollout: Rollout) -> EpisodeSamples:
    return episode_samples(policy, rollout, step_weights(rollout, baseline=torch.zeros_like(rollout.reward)))


def test_unfinished_episodes_and_wrong_shapes_are_refused() -> None:
    policy = POLICIES["categorical"]
    params, rollout = acted(policy)
    weight = step_weights(rollout)
    samples = episode_samples(policy, rollout, weight)
    with pytest.raises(ValueError, match=r"shape \(31,\) that is not 0"):
        hessian_product(policy, params, samples, torch.zeros(31))
    with pytest.raises(ValueError, match="weights of shape"):
        episode_samples(policy, rollout, weight[:2])
    unfinished = Rollout(*columns(rollout)[:3], torch.zeros_like(rollout.valid), rollout.truncated, rollout.valid)
    with pytest.raises(ValueError, match="whole episodes"):
        episode_samples(policy, unfinished, weight)


def test_leave_one_out_is_over_all_copies() -> None:
    policy = POLICIES["categorical"]
    _, rollout = acted(policy)
    first = rollout.reward * rollout.valid
    to_go = first.flip(0).cumsum(0).flip(0)[0].flatten()
    expected = to_go[0] - to_go[1:].mean()
    assert float(step_weights(rollout)[0, 0, 0]) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.slow
def test_intervals_of_curvature_cover() -> None:
    """95 % of intervals from 200 sampled episodes of two locks hold v'Hv; without baseline, 1,000 replications."""
    task = two_locks((0.5, -1.0))
    vector = torch.tensor([0.6, 0.8], dtype=torch.float64) @ task.axes
    baseline = torch.full_like(task.rollout.reward, 0.3)
    samples = episode_samples(task.policy, task.rollout, step_weights(task.rollout, baseline=baseline))
    possible = directional_derivatives(task.policy, task.params, samples, vector).curvature.numpy()
    truth = 0.36 * 0.00178763 + 0.96 * 0.04620453 + 0.64 * 0.05655525
    draws = np.random.default_rng(0).choice(possible, (1000, 200), p=task.probability[:, 0].numpy())
    quantities = [mean_quantity(sample) for sample in draws]
    assert 0.93 <= np.mean([quantity.low <= truth <= quantity.high for quantity in quantities]) <= 0.97
