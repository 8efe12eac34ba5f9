"""Losses of categorical policies and critics as one compiled node are those of the single functions, gradients too."""

from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit.kernels.categorical import MAX_COMPILED_CHOICES
from pgkit.nn.distributions import categorical
from pgkit.nn.mlp import forward_pass
from pgkit.nn.policy import Policy
from pgkit.types import Batch, ForwardCache, Params

DTYPES = (torch.float32, torch.float64)
OBS = 3


def policy_of(choices: int, shared: bool = False, activation: str = "tanh") -> Policy:
    return Policy(OBS, categorical(choices), (7, 5), (6,), activation=activation, shared=shared)


def samples(policy: Policy, dtype: torch.dtype = torch.float32) -> tuple[Params, Batch]:
    """Parameters that want gradients, of three members with 13 samples; of the last member none counts."""
    random = torch.Generator().manual_seed(policy.head.width)
    params = {
        name: (leaf + 0.3 * torch.randn(leaf.shape, generator=random)).to(dtype).requires_grad_()
        for name, leaf in policy.init([0, 1, 2]).items()
    }
    numbers = torch.randn(3, 13, OBS + 2, generator=random, dtype=torch.float64).to(dtype)
    action = torch.randint(policy.head.width, (3, 13), generator=random)
    valid = torch.rand(3, 13, generator=random) < 0.7
    valid[2] = False
    return params, Batch(2 * numbers[..., 2:], action, numbers[..., 0], numbers[..., 1], valid)


def by_single_functions(monkeypatch: pytest.MonkeyPatch, policy: Policy, *args: Any, **named: Any) -> dict[str, Tensor]:
    with monkeypatch.context() as patch:
        set_compile_mode(patch, "off")
        return policy.losses(*args, **named)


@pytest.mark.parametrize("critic", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("choices", [1, 2, 5, MAX_COMPILED_CHOICES])
def test_losses_and_gradients_are_those_of_the_single_functions(
    choices: int, dtype: torch.dtype, shared: bool, critic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(choices, shared)
    params, batch = samples(policy, dtype)
    compiled = policy.losses(params, batch, critic=critic)
    other = by_single_functions(monkeypatch, policy, params, batch, critic=critic)
    close = {"rtol": 2e-5, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    assert compiled.keys() == other.keys()
    assert ("loss/value" in compiled) == critic
    for tag, loss in compiled.items():
        torch.testing.assert_close(loss, other[tag], **close)
    weights = torch.tensor([[1.0], [0.5], [-0.3]], dtype=dtype)[: len(compiled)]
    grads, others = (
        torch.autograd.grad(
            (weights * torch.stack(list(losses.values()))).sum(), list(params.values()), materialize_grads=True
        )
        for losses in (compiled, other)
    )
    assert any(grad.any() for grad in grads) or (choices == 1 and not critic)  # there is nothing to choose
    for grad, expected in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, expected, **close)


@pytest.mark.parametrize("activation", ["tanh", "silu"])
@pytest.mark.parametrize(("shared", "critic"), [(False, True), (True, True), (True, False)])
def test_gradients_are_those_of_finite_differences(shared: bool, critic: bool, activation: str) -> None:
    policy = policy_of(3, shared, activation)
    params, batch = samples(policy, torch.float64)

    def losses(*leaves: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(params, leaves, strict=True))
        return tuple(policy.losses(named, batch, critic=critic).values())

    assert torch.autograd.gradcheck(losses, tuple(params.values()), fast_mode=True)


def test_a_second_derivative_is_refused() -> None:
    """Rather than taken for zero: those who need one differentiate ``policy.outputs``."""
    policy = policy_of(3)
    params, batch = samples(policy)
    loss = policy.losses(params, batch)["loss/policy"].sum()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(loss, list(params.values()), create_graph=True, materialize_grads=True)


def test_what_is_not_valid_may_be_anything() -> None:
    policy = policy_of(4)
    params, batch = samples(policy)
    expected = policy.losses(params, batch)
    spoilt = {field: torch.where(batch.valid, getattr(batch, field), torch.nan) for field in ("advantage", "target")}
    compiled = policy.losses(params, batch._replace(**spoilt))
    for tag, loss in compiled.items():
        assert torch.equal(loss, expected[tag])
        assert loss[2] == 0
    grads, others = (
        torch.autograd.grad(sum(losses.values()).sum(), list(params.values())) for losses in (compiled, expected)
    )
    for grad, other in zip(grads, others, strict=True):
        assert torch.equal(grad, other)
        assert not grad[2].any()


def test_a_member_has_the_same_bits_alone() -> None:
    policy = policy_of(2)
    params, batch = samples(policy)

    def losses_and_gradients(params: Params, batch: Batch) -> list[Tensor]:
        losses = policy.losses(params, batch)
        return [*losses.values(), *torch.autograd.grad(sum(losses.values()).sum(), list(params.values()))]

    together = losses_and_gradients(params, batch)
    for k in range(3):
        compiled = {name: leaf[k : k + 1].detach().requires_grad_() for name, leaf in params.items()}
        alone = losses_and_gradients(compiled, Batch(*(x[k : k + 1] for x in batch[:5])))
        assert all(torch.equal(one[0], all_[k]) for one, all_ in zip(alone, together, strict=True))


def test_cached_passes_are_used_and_change_nothing() -> None:
    """Passes of more rows than the batch has, as a rollout leaves them."""
    policy = policy_of(2)
    params, batch = samples(policy)
    longer = torch.cat([batch.obs, torch.ones(3, 2, OBS)], 1)
    passes = {network: forward_pass(params, network, longer, "tanh") for network in ("actor", "critic")}
    cached = batch._replace(cache=ForwardCache(batch.obs, passes))
    results = []
    for one in (cached, batch):
        losses = policy.losses(params, one)
        results.append([*losses.values(), *torch.autograd.grad(sum(losses.values()).sum(), list(params.values()))])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))
    passes["critic"].results[-1].add_(1.0)  # so the cached pass is what the loss has looked at
    assert not torch.equal(policy.losses(params, cached)["loss/value"], results[0][1])
    others = cached._replace(obs=batch.obs.clone())  # not the observations of the cache
    assert torch.equal(policy.losses(params, others)["loss/value"], results[0][1])


@pytest.mark.parametrize("field", ["action", "advantage", "valid"])
def test_shapes_and_kinds_that_do_not_fit_are_refused(field: str) -> None:
    policy = policy_of(2)
    params, batch = samples(policy)
    wrong = {"action": batch.action.int(), "advantage": batch.advantage[:, :5], "valid": batch.valid.float()}
    with pytest.raises(ValueError, match=f"expected {field} of "):
        policy.losses(params, batch._replace(**{field: wrong[field]}))
