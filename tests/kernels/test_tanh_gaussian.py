"""Squashed Gaussians, and deviations that depend on the state, against torch.distributions and numerical integrals."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from pgkit.kernels.state_std import MAX_LOG_STD, MIN_LOG_STD
from pgkit.kernels.tanh_gaussian import MAX_COMPILED_COMPONENTS, NODES
from pgkit.nn.distributions import gaussian
from pgkit.nn.policy import Policy
from pgkit.types import Batch, Params

F64 = torch.float64
HEADS = {
    "squashed": gaussian(2, squash=True),
    "state-dependent": gaussian(2, state_dependent_std=True),
    "both": gaussian(2, squash=True, state_dependent_std=True),
}


def outputs_of(components: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(3, 11, 2 * components, generator=random, dtype=F64).to(dtype)


def normal(outputs: Tensor) -> Independent:
    mean, log_std = outputs.double().chunk(2, -1)
    return Independent(Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("grad", [False, True], ids=["compiled", "tensors"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_log_probabilities_are_those_of_torchs_tanh_transform(dtype: torch.dtype, grad: bool) -> None:
    outputs = outputs_of(3, dtype=dtype).requires_grad_(grad)
    u = outputs_of(3, seed=1, dtype=dtype)[..., :3] * 2
    transform = TanhTransform(cache_size=1)
    expected = TransformedDistribution(normal(outputs), [transform]).log_prob(transform(u.double()))
    actual = gaussian(3, squash=True).log_prob(outputs, u)
    assert expected.std() > 1
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(actual.double(), expected, **close)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_near_the_bounds_everything_is_finite(dtype: torch.dtype) -> None:
    """tanh(20) is 1 in float32 and float64: log(1 - tanh(u)^2) by its formula would be -inf."""
    u = torch.tensor([-20.0, -10.0, 0.0, 10.0, 20.0], dtype=dtype).view(1, 5, 1)
    outputs = torch.zeros(1, 5, 2, dtype=dtype, requires_grad=True)
    action = u.clone().requires_grad_()
    log_prob = gaussian(1, squash=True).log_prob(outputs, action)
    slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
    expected = (Normal(0.0, 1.0).log_prob(u) - slope).squeeze(-1)
    torch.testing.assert_close(log_prob, expected)
    grads = torch.autograd.grad(log_prob.sum(), [outputs, action])
    assert all(grad.isfinite().all() for grad in grads)
    torch.testing.assert_close(grads[1], 2 * torch.tanh(u) - u)


def test_the_density_of_squashed_actions_integrates_to_one() -> None:
    y = torch.linspace(-1, 1, 200_003, dtype=F64)[1:-1]
    for mean, log_std in ((0.0, -1.0), (0.7, 0.0), (-1.5, -0.5)):
        outputs = torch.tensor([mean, log_std], dtype=F64).expand(1, len(y), 2)
        density = gaussian(1, squash=True).log_prob(outputs, torch.atanh(y).view(1, -1, 1)).exp()
        assert torch.trapezoid(density[0], y).item() == pytest.approx(1.0, abs=1e-4)


def test_the_nodes_are_those_of_numpy() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    expected = np.stack([nodes, weights / weights.sum()], 1)[8:]
    np.testing.assert_allclose(np.array(NODES), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("std", "error"), [(0.01, 1e-9), (1.0, 2e-5), (1.5, 6e-4), (math.e, 2e-2), (4.0, 0.1)])
def test_the_entropy_is_that_of_a_numerical_integral(std: float, error: float) -> None:
    """As far off as the module says; in the last row, the entropy itself is below -3 nats."""
    z = torch.linspace(-12, 12, 200_001, dtype=F64)
    weight = Normal(0.0, 1.0).log_prob(z).exp() * (z[1] - z[0])
    for mean in (0.0, 0.5, 2.0, 5.0):
        u = mean + std * z
        slope = 2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))
        expected = 0.5 * math.log(2 * math.pi * math.e * std**2) + (weight * slope).sum().item()
        outputs = torch.tensor([[[mean, math.log(std)]]], dtype=F64)
        assert gaussian(1, squash=True).entropy(outputs).item() == pytest.approx(expected, abs=error)


def test_the_entropy_is_minus_the_mean_log_probability_of_samples() -> None:
    head = gaussian(2, squash=True)
    outputs = torch.tensor([0.3, -1.0, 0.2, -0.5], dtype=F64).expand(1, 100_000, 4)
    uniform = torch.rand(1, 100_000, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    surprise = -head.log_prob(outputs, head.sample(outputs, uniform))
    standard_error = surprise.std() / 100_000**0.5
    assert abs(surprise.mean() - head.entropy(outputs)[0, 0]) < 4 * standard_error


@pytest.mark.parametrize("grad", [False, True], ids=["compiled", "tensors"])
def test_divergences_are_those_before_tanh(grad: bool) -> None:
    outputs, other = (outputs_of(2, seed).clamp(max=MAX_LOG_STD) for seed in (0, 1))
    expected = kl_divergence(normal(outputs), normal(other))
    for head in HEADS.values():
        torch.testing.assert_close(head.kl(outputs.requires_grad_(grad), other), expected)


@pytest.mark.parametrize("name", HEADS)
def test_gradients_of_tensor_functions_are_those_of_finite_differences(name: str) -> None:
    head = HEADS[name]
    outputs, other = outputs_of(2)[:1, :3].requires_grad_(), outputs_of(2, seed=2)[:1, :3]
    action = outputs_of(1, seed=3)[:1, :3]
    for function in (lambda o: head.log_prob(o, action), head.entropy, lambda o: head.kl(o, other)):
        assert torch.autograd.gradcheck(function, (outputs,))


@pytest.mark.parametrize("squash", [False, True])
def test_deviations_of_the_network_are_limited(squash: bool) -> None:
    head = gaussian(1, squash=squash, state_dependent_std=True)
    beyond = torch.tensor([[[0.3, 50.0], [0.3, -50.0]]])
    limits = torch.tensor([[[0.3, MAX_LOG_STD], [0.3, MIN_LOG_STD]]])
    uniform = torch.tensor([[[0.9], [0.9]]])
    for function in (lambda o: head.sample(o, uniform), lambda o: head.log_prob(o, uniform), head.entropy):
        assert torch.equal(function(beyond), function(limits))
    assert (head.kl(beyond, limits) == 0).all()
    leaf = beyond.clone().requires_grad_()
    (grad,) = torch.autograd.grad(head.entropy(leaf).sum(), leaf)
    assert not grad[..., 1].any()


def test_the_mode_is_the_mean_before_tanh() -> None:
    outputs = outputs_of(2)
    for head in HEADS.values():
        assert torch.equal(head.mode(outputs), outputs[..., :2])


def policy_of(components: int, squash: bool, state_dependent_std: bool, shared: bool = False) -> Policy:
    head = gaussian(components, squash=squash, state_dependent_std=state_dependent_std)
    return Policy(3, head, (7, 5), (6,), activation="silu", shared=shared, log_std=-0.5)


def samples(policy: Policy, dtype: torch.dtype) -> tuple[Params, Batch]:
    random = torch.Generator().manual_seed(policy.head.noise)
    params = {
        name: (leaf + 0.3 * torch.randn(leaf.shape, generator=random)).to(dtype).requires_grad_()
        for name, leaf in policy.init([0, 1, 2]).items()
    }
    numbers = torch.randn(3, 13, 5 + policy.head.noise, generator=random, dtype=F64).to(dtype)
    valid = torch.rand(3, 13, generator=random) < 0.7
    obs = 2 * numbers[..., 2:5]
    action = policy.head.sample(policy.outputs(params, obs).detach(), torch.sigmoid(numbers[..., 5:]))
    return params, Batch(obs, action, numbers[..., 0], numbers[..., 1], valid)


def losses_and_gradients(policy: Policy, params: Params, batch: Batch) -> list[Tensor]:
    losses = list(policy.losses(params, batch, clip_range=0.2).values())
    weights = torch.tensor([[1.0], [0.5], [-0.3], [0.0], [0.0]], dtype=batch.obs.dtype)
    total = (weights * torch.stack(losses)).sum()
    return [*losses, *torch.autograd.grad(total, list(params.values()), materialize_grads=True)]


SMALL = [(1, True, False), (2, True, True), (2, False, True)]
CASES = [(*case, dtype) for case in SMALL for dtype in (torch.float32, F64)]
CASES.append((MAX_COMPILED_COMPONENTS + 1, True, True, F64))


@pytest.mark.parametrize(("components", "squash", "state_dependent_std", "dtype"), CASES)
def test_losses_and_gradients_are_those_of_the_single_functions(
    components: int, squash: bool, state_dependent_std: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(components, squash, state_dependent_std, shared=components == 1)
    params, batch = samples(policy, dtype)
    batch = batch._replace(log_prob=policy.log_prob(params, batch) + 0.1 * batch.target)
    compiled = losses_and_gradients(policy, params, batch)
    set_compile_mode(monkeypatch, "off")
    close: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    for number, other in zip(compiled, losses_and_gradients(policy, params, batch), strict=True):
        torch.testing.assert_close(number, other, **close)
        assert number.any()


def test_a_member_has_the_same_bits_alone() -> None:
    policy = policy_of(2, True, True)
    params, batch = samples(policy, torch.float32)
    batch = batch._replace(log_prob=policy.log_prob(params, batch))
    together = losses_and_gradients(policy, params, batch)
    for k in range(3):
        single = {name: leaf[k : k + 1].detach().requires_grad_() for name, leaf in params.items()}
        alone = losses_and_gradients(policy, single, batch.take(torch.tensor([k])))
        assert all(torch.equal(one[0], all_[k]) for one, all_ in zip(alone, together, strict=True))


def test_a_state_dependent_deviation_is_a_second_half_of_the_networks_outputs() -> None:
    policy = policy_of(2, False, True)
    params = policy.init([0, 1])
    assert "actor.log_std" not in params
    outputs = policy.outputs(params, torch.randn(2, 50, 3))
    assert outputs.shape == (2, 50, 4)
    torch.testing.assert_close(outputs[..., 2:], torch.full((2, 50, 2), -0.5), rtol=0, atol=0.1)
    assert outputs[0, :, 2].std() > 0
