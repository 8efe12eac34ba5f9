"""Kernels of Gaussian policies against torch.distributions, autograd, and PyTorch's single operations."""

from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from pgkit.compiler.elementwise import compile_elementwise
from pgkit.kernels.gaussian import MAX_COMPILED_COMPONENTS, append_log_std, normal_quantile
from pgkit.nn.distributions import gaussian
from pgkit.nn.policy import Policy
from pgkit.types import Batch, Params

DTYPES = (torch.float32, torch.float64)
OBS = 3


def compiled_quantile(probability: Tensor) -> Tensor:
    kernel = compile_elementwise(normal_quantile, [(probability.dtype, 1)], [(probability.dtype, 1)])
    result = torch.empty_like(probability)
    kernel(len(probability), probability.data_ptr(), result.data_ptr())
    return result


def test_the_quantile_of_every_uniform_number_is_precise() -> None:
    uniform = (torch.arange(2**23, dtype=torch.float32) + 0.5) * 2.0**-23
    exact = torch.special.ndtri(uniform.double())
    error = ((compiled_quantile(uniform) - exact) / exact).abs()
    assert error.max() < 5e-7
    assert ((torch.special.ndtri(uniform) - exact) / exact).abs().max() < 5e-7, "PyTorch's, which runs on GPUs"


def test_the_quantile_in_float64_is_precise_far_into_the_tails() -> None:
    far = torch.logspace(-300, -1, 3001, dtype=torch.float64)
    near = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    probability = torch.cat([far, near[near != 0.5]])
    for quantile in (compiled_quantile, normal_quantile):
        actual = quantile(probability)
        torch.testing.assert_close(actual, torch.special.ndtri(probability), rtol=1e-13, atol=1e-15)
    symmetric = compiled_quantile(torch.tensor([0.5, 0.25, 0.75, 0.0625, 0.9375]))
    assert symmetric[0] == 0
    assert torch.equal(symmetric[1::2], -symmetric[2::2])


def drawn_outputs(components: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(3, 11, 2 * components, generator=random, dtype=torch.float64).to(dtype)


def reference(outputs: Tensor) -> Independent:
    mean, log_std = outputs.double().chunk(2, -1)
    return Independent(Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("components", [1, 2, 5])
def test_divergences_are_those_of_torch(components: int, dtype: torch.dtype) -> None:
    head = gaussian(components)
    outputs, other = (drawn_outputs(components, dtype, seed) for seed in (0, 1))
    expected = kl_divergence(reference(outputs), reference(other)).to(dtype)
    torch.testing.assert_close(head.kl(outputs, other), expected)
    torch.testing.assert_close(head.kl(outputs.requires_grad_(), other), expected)
    assert (head.kl(other, other) == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_std", [-20.0, 0.3, 20.0])
@pytest.mark.parametrize("components", [1, 3, MAX_COMPILED_COMPONENTS, MAX_COMPILED_COMPONENTS + 1])
def test_samples_are_the_quantiles_of_their_distributions(
    components: int, log_std: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the largest number of components that is compiled by PyTorch, as in the mode ``off``."""
    outputs = drawn_outputs(components, dtype)
    outputs[..., components:] += log_std
    uniform = torch.rand(3, 11, components, generator=torch.Generator().manual_seed(2)).clamp(2.0**-24)
    action = gaussian(components).sample(outputs, uniform)
    expected = reference(outputs).base_dist.icdf(uniform.double())
    close = {"rtol": 5e-6, "atol": 2e-7} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(action.double(), expected, **close)
    for row in range(11):
        alone = gaussian(components).sample(outputs[1:2, row : row + 1], uniform[1:2, row : row + 1])
        assert components > MAX_COMPILED_COMPONENTS or torch.equal(alone[0, 0], action[1, row])
    set_compile_mode(monkeypatch, "off")
    torch.testing.assert_close(gaussian(components).sample(outputs, uniform.to(dtype)).double(), expected, **close)


@pytest.mark.parametrize("components", [1, 3])
def test_outputs_are_means_and_deviations(components: int) -> None:
    mean = torch.randn(4, 7, components)
    log_std = torch.randn(4, 1, components)
    expected = torch.cat([mean, log_std.expand_as(mean)], -1)
    assert torch.equal(append_log_std(mean, log_std), expected)
    with torch.no_grad():
        assert torch.equal(append_log_std(mean, log_std), expected)
        assert torch.equal(append_log_std(mean[:, 2:5], log_std), expected[:, 2:5])


def policy_of(components: int, shared: bool = False, activation: str = "tanh") -> Policy:
    return Policy(OBS, gaussian(components), (7, 5), (6,), activation=activation, shared=shared)


def samples(policy: Policy, dtype: torch.dtype = torch.float32, rows: int = 13) -> tuple[Params, Batch]:
    """Parameters that want gradients, of three members; of the last member no sample counts."""
    components = policy.head.noise
    random = torch.Generator().manual_seed(components)
    params = {
        name: (leaf + 0.3 * torch.randn(leaf.shape, generator=random)).to(dtype).requires_grad_()
        for name, leaf in policy.init([0, 1, 2]).items()
    }
    numbers = torch.randn(3, rows, OBS + 2 + components, generator=random, dtype=torch.float64).to(dtype)
    valid = torch.rand(3, rows, generator=random) < 0.7
    valid[2] = False
    obs = 2 * numbers[..., 2 : 2 + OBS]
    return params, Batch(obs, numbers[..., 2 + OBS :], numbers[..., 0], numbers[..., 1], valid)


def by_single_functions(monkeypatch: pytest.MonkeyPatch, policy: Policy, *args: Any, **named: Any) -> dict[str, Tensor]:
    with monkeypatch.context() as patch:
        set_compile_mode(patch, "off")
        return policy.losses(*args, **named)


def gradients(losses: dict[str, Tensor], params: Params) -> dict[str, Tensor]:
    """Of a sum in which each member and each loss has a weight."""
    dtype = next(iter(params.values())).dtype
    weights = torch.tensor([[1.0], [0.5], [-0.3]], dtype=dtype)[: len(losses)]
    total = (weights * torch.stack(list(losses.values()))).sum()
    grads = torch.autograd.grad(total, list(params.values()), materialize_grads=True)
    return dict(zip(params, grads, strict=True))


@pytest.mark.parametrize("critic", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("components", [1, 2, 5, MAX_COMPILED_COMPONENTS])
def test_losses_and_gradients_are_those_of_the_single_functions(
    components: int, dtype: torch.dtype, shared: bool, critic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(components, shared)
    params, batch = samples(policy, dtype)
    compiled = policy.losses(params, batch, critic=critic)
    other = by_single_functions(monkeypatch, policy, params, batch, critic=critic)
    close = {"rtol": 2e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    assert compiled.keys() == other.keys()
    for tag, loss in compiled.items():
        torch.testing.assert_close(loss, other[tag], **close)
    grads, others = gradients(compiled, params), gradients(other, params)
    assert grads["actor.log_std"][:2].all()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name], **close)
        assert not grad[2].any()


def test_losses_are_those_of_torchs_distributions() -> None:
    policy = policy_of(2)
    params, batch = samples(policy, torch.float64)
    distribution = reference(policy.outputs(params, batch.obs))
    count = batch.valid.sum(1).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return torch.where(batch.valid, x, 0.0).sum(1) / count

    expected = {
        "loss/policy": -mean(distribution.log_prob(batch.action) * batch.advantage),
        "loss/value": mean((policy.value(params, batch.obs) - batch.target).square()),
        "policy/entropy": mean(distribution.entropy()),
    }
    losses = policy.losses(params, batch)
    for tag, loss in losses.items():
        torch.testing.assert_close(loss, expected[tag])
    grads, others = gradients(losses, params), gradients(expected, params)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name])


@pytest.mark.parametrize(("shared", "critic"), [(False, True), (True, True), (True, False)])
def test_gradients_are_those_of_finite_differences(shared: bool, critic: bool) -> None:
    policy = policy_of(3, shared, "silu")
    params, batch = samples(policy, torch.float64)

    def losses(*leaves: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(params, leaves, strict=True))
        return tuple(policy.losses(named, batch, critic=critic).values())

    assert torch.autograd.gradcheck(losses, tuple(params.values()), fast_mode=True)


def test_what_is_not_valid_may_be_anything() -> None:
    policy = policy_of(2)
    params, batch = samples(policy)
    spoilt = {field: torch.where(batch.valid, getattr(batch, field), torch.nan) for field in ("advantage", "target")}
    spoilt["action"] = torch.where(batch.valid.unsqueeze(2), batch.action, torch.inf)
    losses, expected = policy.losses(params, batch._replace(**spoilt)), policy.losses(params, batch)
    assert all(torch.equal(loss, expected[tag]) for tag, loss in losses.items())
    grads, others = gradients(losses, params), gradients(expected, params)
    assert all(torch.equal(grad, others[name]) for name, grad in grads.items())


@pytest.mark.parametrize("rows", [1, 13, 64])
def test_a_member_has_the_same_bits_alone(rows: int) -> None:
    policy = policy_of(2)
    params, batch = samples(policy, rows=rows)

    def losses_and_gradients(params: Params, batch: Batch) -> list[Tensor]:
        losses = policy.losses(params, batch)
        return [*losses.values(), *torch.autograd.grad(sum(losses.values()).sum(), list(params.values()))]

    together = losses_and_gradients(params, batch)
    for k in range(3):
        single = {name: leaf[k : k + 1].detach().requires_grad_() for name, leaf in params.items()}
        alone = losses_and_gradients(single, Batch(*(x[k : k + 1] for x in batch[:5])))
        assert all(torch.equal(one[0], all_[k]) for one, all_ in zip(alone, together, strict=True))


@pytest.mark.parametrize("log_std", [-300.0, -20.0, 0.0, 20.0, 300.0])
@pytest.mark.parametrize("far", [0.0, 1e10, 1e25, torch.inf, torch.nan])
def test_extreme_deviations_and_far_actions_are_as_finite_as_by_single_functions(
    log_std: float, far: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses are finite in the same places. Gradients may be finite where a product on autograd's way overflows."""
    policy = policy_of(2)
    params, batch = samples(policy)
    params["actor.log_std"].data[0] = log_std
    batch.valid[0, 3] = True
    batch.action[0, 3] += far
    losses = policy.losses(params, batch)
    expected = by_single_functions(monkeypatch, policy, params, batch)
    grads, others = gradients(losses, params), gradients(expected, params)
    assert all(loss[1].isfinite() for loss in losses.values())
    for tag, loss in losses.items():
        assert torch.equal(loss.isfinite(), expected[tag].isfinite())
    for number, other in zip([*losses.values(), *grads.values()], [*expected.values(), *others.values()], strict=True):
        finite = other.isfinite()
        torch.testing.assert_close(number[finite], other[finite], rtol=1e-4, atol=1e-4)
    if abs(log_std) <= 20 and far == 0:
        assert all(number.isfinite().all() for number in (*losses.values(), *grads.values()))


def test_a_second_derivative_is_refused() -> None:
    policy = policy_of(2)
    params, batch = samples(policy)
    loss = policy.losses(params, batch)["loss/policy"].sum()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(loss, list(params.values()), create_graph=True, materialize_grads=True)


@pytest.mark.parametrize("field", ["action", "advantage", "valid"])
def test_shapes_and_dtypes_that_do_not_fit_are_refused(field: str) -> None:
    policy = policy_of(2)
    params, batch = samples(policy)
    wrong = {"action": batch.action[..., :1], "advantage": batch.advantage.double(), "valid": batch.valid.float()}
    with pytest.raises(ValueError, match=f"expected {field} of "):
        policy.losses(params, batch._replace(**{field: wrong[field]}))
