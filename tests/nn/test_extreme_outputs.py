"""Logits that exclude a choice: entropy, divergence and gradients are finite, and those of ``torch.distributions``."""

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional

from pgkit.nn.distributions import bernoulli, categorical, multi_categorical
from pgkit.nn.policy import Policy
from pgkit.types import Batch

INF = float("inf")
EXTREME = [[3e38, -3e38, 0.0], [0.0, -INF, 1.0], [-INF, -INF, 2.0], [-3e38, 3e38, 1.0], [0.3, -0.2, 1.0]]
LESS = [[2e38, -2e38, 1.0], [1.0, -INF, 0.0], [-INF, -INF, 0.0], [0.0, -1.0, 1.0], [0.1, 0.2, -INF]]
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(params=["graphs", "off"])
def compile_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    set_compile_mode(monkeypatch, request.param)


@pytest.mark.usefixtures("compile_mode")
@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_and_divergence_are_those_of_torch(dtype: torch.dtype) -> None:
    outputs, other = (torch.tensor(rows, dtype=dtype) for rows in (EXTREME, LESS))
    first, second = (Categorical(logits=x, validate_args=False) for x in (outputs, other))
    head = categorical(3)
    torch.testing.assert_close(head.entropy(outputs), first.entropy())
    assert head.entropy(outputs).isfinite().all()
    expected = kl_divergence(first, second)
    assert expected[:4].isfinite().all()
    assert expected[4] == INF
    torch.testing.assert_close(head.kl(outputs, other), expected)
    both = multi_categorical([3, 3])
    torch.testing.assert_close(both.entropy(outputs.repeat(1, 2)), 2 * first.entropy())


def test_gradients_of_entropy_and_divergence_are_those_of_torch() -> None:
    def gradient(entropy: bool, pgkits: bool) -> Tensor:
        outputs = torch.tensor(EXTREME[:4]).requires_grad_()
        other = torch.tensor(LESS[:4])
        head, first = categorical(3), Categorical(logits=outputs, validate_args=False)
        if entropy:
            value = head.entropy(outputs) if pgkits else first.entropy()
        else:
            second = Categorical(logits=other, validate_args=False)
            value = head.kl(outputs, other) if pgkits else kl_divergence(first, second)
        return torch.autograd.grad(value.sum(), outputs)[0]

    assert gradient(True, True).isfinite().all()
    assert gradient(False, True).isfinite().all()
    torch.testing.assert_close(gradient(True, True), gradient(True, False))


@pytest.mark.usefixtures("compile_mode")
def test_the_losses_of_a_policy_that_excludes_a_choice_have_finite_gradients() -> None:
    """A bias of -inf, and one that overflows against the highest, as masks of actions have."""
    policy = Policy(2, categorical(3), (4,), (4,))
    params = policy.init([0, 1])
    params["actor.1.bias"][0, 0, 1] = -INF
    params["actor.1.bias"][1, 0] = torch.tensor([3e38, -3e38, 0.0])
    params = {name: leaf.requires_grad_() for name, leaf in params.items()}
    numbers = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    action = torch.tensor([[0, 2, 0, 2, 2], [0, 0, 0, 0, 0]])
    valid = torch.ones(2, 5, dtype=torch.bool)
    losses = policy.losses(params, Batch(numbers[..., 2:], action, numbers[..., 0], numbers[..., 1], valid))
    assert all(loss.isfinite().all() for loss in losses.values())
    total = losses["loss/policy"] + losses["loss/value"] - 0.1 * losses["policy/entropy"]
    grads = torch.autograd.grad(total.sum(), list(params.values()))
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[list(params).index("actor.1.bias")][0].any()


def test_ordinary_outputs_keep_their_bits() -> None:
    """Those with which the plain formulas have no trouble, among them probabilities that underflow."""
    x, y = 40 * torch.randn(2, 3, 400, 5, generator=torch.Generator().manual_seed(0))
    logs, others = torch.log_softmax(x.mT, -2), torch.log_softmax(y.mT, -2)
    assert (logs.exp() == 0).any()
    assert torch.equal(categorical(5).entropy(x), -(logs.exp() * logs).sum(-2))
    x.requires_grad_()
    assert torch.equal(categorical(5).kl(x, y), (logs.exp() * (logs - others)).sum(-2))
    x = x.detach() / 10
    assert torch.equal(bernoulli(5).entropy(x), (functional.softplus(x) - x * torch.sigmoid(x)).sum(-1))


def test_bernoulli_is_precise_in_float64() -> None:
    """PyTorch's softplus is its argument from 20 on, which is wrong in the ninth decimal."""
    outputs = torch.tensor([[19.9], [20.1], [25.0], [36.9], [37.1], [700.0]], dtype=torch.float64)
    for action in (0, 1):
        expected = Bernoulli(logits=outputs).log_prob(torch.full_like(outputs, action))
        actual = bernoulli(1).log_prob(outputs, torch.full_like(outputs, action, dtype=torch.int64))
        torch.testing.assert_close(actual, expected[:, 0], rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(
        bernoulli(1).entropy(outputs), Bernoulli(logits=outputs).entropy()[:, 0], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_bernoulli_of_certain_components(dtype: torch.dtype) -> None:
    outputs = torch.tensor([[INF], [-INF], [3e38], [-3e38]], dtype=dtype)
    assert (bernoulli(1).entropy(outputs) == 0).all()
    assert (bernoulli(1).kl(outputs, outputs) == 0).all()
    divergence = bernoulli(1).kl(outputs[[1, 3]], torch.zeros(2, 1, dtype=dtype))
    torch.testing.assert_close(divergence, torch.full((2,), 2.0, dtype=dtype).log())
