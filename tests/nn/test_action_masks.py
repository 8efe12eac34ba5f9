"""Masked policies: excluded choices are never drawn, and have no part in log-probabilities, entropies, divergences."""

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit.nn.action_masks import append_mask, exclude, split_mask
from pgkit.nn.distributions import Head, categorical, multi_categorical
from pgkit.nn.policy import Policy
from pgkit.types import Batch

F64 = torch.float64
CHOICES = {"categorical": (5,), "multi-categorical": (3, 2, 4)}


def head_of(name: str) -> Head:
    return categorical(5) if name == "categorical" else multi_categorical(CHOICES[name])


def drawn(name: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Two sets of outputs and a mask, which allows at least one choice of each component."""
    random = torch.Generator().manual_seed(seed)
    size = sum(CHOICES[name])
    outputs = 2 * torch.randn(2, 3, 40, size, generator=random, dtype=F64)
    mask = (torch.rand(3, 40, size, generator=random) < 0.5).to(F64)
    first = 0
    for count in CHOICES[name]:
        mask[..., first] = torch.where(mask[..., first : first + count].sum(-1) == 0, 1.0, mask[..., first])
        first += count
    assert (mask == 0).any()
    return outputs[0], outputs[1], mask


def probabilities(name: str, outputs: Tensor, mask: Tensor) -> list[np.ndarray]:
    """By NumPy, of each component; 0 for excluded choices."""
    sizes = list(CHOICES[name])
    parts = zip(outputs.split(sizes, -1), mask.split(sizes, -1), strict=True)
    weights = [np.exp(logits.numpy()) * allowed.numpy() for logits, allowed in parts]
    return [weight / weight.sum(-1, keepdims=True) for weight in weights]


def mean_log(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """sum p log q over what p allows."""
    return np.where(p > 0, p * np.log(np.where(p > 0, q, 1.0)), 0.0).sum(-1)


@pytest.mark.parametrize("grad", [False, True], ids=["compiled", "tensors"])
@pytest.mark.parametrize("name", CHOICES)
def test_entropies_and_divergences_are_those_of_numpy_over_what_is_allowed(name: str, grad: bool) -> None:
    head = head_of(name)
    x, y, mask = drawn(name)
    x.requires_grad_(grad)
    p, q = (probabilities(name, outputs.detach(), mask) for outputs in (x, y))
    masked, other = (exclude(outputs, mask, head.choices) for outputs in (x, y))
    entropy = -sum(mean_log(part, part) for part in p)
    kl = sum(mean_log(part, part) - mean_log(part, against) for part, against in zip(p, q, strict=True))
    np.testing.assert_allclose(head.entropy(masked).detach().numpy(), entropy, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(head.kl(masked, other).detach().numpy(), kl, rtol=1e-9, atol=1e-12)
    action = head.mode(masked)
    columns = action.unsqueeze(-1) if name == "categorical" else action
    chosen = [np.take_along_axis(part, columns[..., k, None].numpy(), -1)[..., 0] for k, part in enumerate(p)]
    np.testing.assert_allclose(head.log_prob(masked, action).detach().numpy(), sum(map(np.log, chosen)), rtol=1e-10)
    if grad:
        total = head.entropy(masked).sum() + head.kl(masked, other).sum() + head.log_prob(masked, action).sum()
        (gradient,) = torch.autograd.grad(total, x)
        assert gradient.isfinite().all()
        assert not gradient[mask == 0].any()
        assert gradient[mask == 1].any()


@pytest.mark.parametrize("mode", ["graphs", "off"])
@pytest.mark.parametrize("name", CHOICES)
def test_excluded_choices_are_never_drawn(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 draws and more, among them the uniform numbers nearest to 0 and to 1."""
    set_compile_mode(monkeypatch, mode)
    head = head_of(name)
    for seed in range(85):
        outputs, _, mask = drawn(name, seed)
        masked = exclude(outputs.float(), mask, head.choices)
        uniform = torch.rand(3, 40, head.noise, generator=torch.Generator().manual_seed(seed))
        uniform[0, :5] = 2.0**-24
        uniform[1, :20] = 1 - 2.0**-24
        for action in (head.sample(masked, uniform), head.mode(masked)):
            columns = action.unsqueeze(-1) if name == "categorical" else action
            parts = mask.split(list(head.choices), -1)
            assert all((part.gather(-1, columns[..., k, None]) == 1).all() for k, part in enumerate(parts))


def test_a_sum_below_one_does_not_end_at_an_excluded_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 these ten probabilities of 0.1 add up to less than the largest uniform number."""
    set_compile_mode(monkeypatch, "off")
    outputs = torch.full((1, 1, 12), -torch.inf)
    outputs[..., 1:11] = torch.linspace(0.0, 1.0, 10)
    action = categorical(12).sample(outputs, torch.tensor([[[1.0]]]))
    assert action.item() == 10, "the most likely one"


def test_where_nothing_is_allowed_everything_is() -> None:
    outputs = torch.randn(1, 2, 5)
    mask = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0]]])
    masked = exclude(outputs, mask, (2, 3))
    assert torch.equal(masked[0, 0, :2], outputs[0, 0, :2])
    assert masked[0, 0, 2:].isinf().tolist() == [False, True, True]
    assert masked[0, 1].isinf().tolist() == [True, False, True, True, False]
    with pytest.raises(ValueError, match="expected an action mask of 4 numbers, got 5"):
        exclude(outputs, mask, (4,))


@pytest.mark.parametrize("shared", [False, True])
def test_networks_see_the_features_only(shared: bool) -> None:
    policy = Policy(3, categorical(4), hidden=(8,), critic_hidden=(8,), shared=shared)
    params = policy.init([0, 1])
    features = torch.randn(2, 6, 3)
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(2, 6, 4)
    obs = append_mask(features, mask.bool())
    assert torch.equal(split_mask(obs, 3)[0], features)
    assert torch.equal(policy.value(params, obs), policy.value(params, features))
    outputs, masked = policy.outputs(params, features), policy.outputs(params, obs)
    assert torch.equal(masked[mask == 1], outputs[mask == 1])
    assert (masked[mask == 0] == -torch.inf).all()


@pytest.mark.parametrize("clip", [None, 0.2])
def test_losses_count_what_is_allowed(clip: float | None) -> None:
    """A policy that is masked down to its first two choices has the losses of one that has no others."""
    wide, narrow = (Policy(3, categorical(count), hidden=(8,), critic_hidden=(8,)) for count in (4, 2))
    params = {name: leaf.requires_grad_() for name, leaf in wide.init([0, 1]).items()}
    cut = {name: leaf[..., :2] if name.startswith("actor.1") else leaf for name, leaf in params.items()}
    random = torch.Generator().manual_seed(0)
    features, advantage = torch.randn(2, 6, 3, generator=random), torch.randn(2, 6, generator=random)
    action = torch.randint(2, (2, 6), generator=random)
    valid = torch.ones(2, 6, dtype=torch.bool)
    old = torch.full((2, 6), -0.7) if clip else None
    obs = append_mask(features, torch.tensor([1, 1, 0, 0]).expand(2, 6, 4))
    losses = wide.losses(params, Batch(obs, action, advantage, advantage, valid, log_prob=old), clip_range=clip)
    expected = narrow.losses(cut, Batch(features, action, advantage, advantage, valid, log_prob=old), clip_range=clip)
    for tag, loss in losses.items():
        torch.testing.assert_close(loss, expected[tag])
    totals = (sum(list(each.values())[:3]).sum() for each in (losses, expected))  # the others are measurements
    grads, others = (torch.autograd.grad(total, list(params.values())) for total in totals)
    for grad, other in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, other)
        assert grad.any()
