"""Losses: hand-made numbers, gradients, masks, and one member's bits beside any neighbours."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pgkit.losses import explained_variance, masked_mean, policy_gradient_loss, value_loss

NAN = float("nan")
VALID = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])


def test_masked_mean():
    x = torch.tensor([[1.0, 3.0, NAN], [1.0, 2.0, 6.0], [NAN, math.inf, 5.0]])
    assert masked_mean(x, VALID).tolist() == [2, 3, 0]


def test_masked_mean_sends_no_gradient_to_what_is_not_valid():
    x = torch.tensor([[1.0, 3.0, NAN], [1.0, 2.0, 6.0], [NAN, math.inf, 5.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(masked_mean(x, VALID).sum(), x)
    third = torch.tensor(1.0).div(3).item()
    assert gradient.tolist() == [[0.5, 0.5, 0], [third] * 3, [0, 0, 0]]


def test_policy_gradient_loss():
    log_prob = torch.tensor([[-1.0, -2.0, NAN], [-1.0, -3.0, -2.0], [-1.0, -1.0, -1.0]], requires_grad=True)
    advantage = torch.tensor([[4.0, -1.0, NAN], [3.0, -3.0, 6.0], [1.0, NAN, math.inf]])
    loss = policy_gradient_loss(log_prob, advantage, VALID)
    assert loss.tolist() == [1, 2, 0]  # -(-4 + 2) / 2; -(-3 + 9 - 12) / 3
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    assert gradient.tolist() == [[-2, 0.5, 0], [-1, 1, -2], [0, 0, 0]]


def test_a_step_down_the_policy_loss_makes_what_was_good_more_likely():
    logits = torch.zeros(1, 2, requires_grad=True)
    log_prob = torch.log_softmax(logits, 1)[:, :1]
    loss = policy_gradient_loss(log_prob, torch.tensor([[2.0]]), torch.ones(1, 1, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.tolist() == [[-1, 1]]


def test_value_loss():
    value = torch.tensor([[1.0, 3.0, 9.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]], requires_grad=True)
    target = torch.tensor([[2.0, 5.0, NAN], [3.0, 0.0, -3.0], [NAN, NAN, NAN]])
    loss = value_loss(value, target, VALID)
    assert loss.tolist() == [2.5, 6, 0]
    (gradient,) = torch.autograd.grad(loss[:1].sum(), value)
    assert gradient[0].tolist() == [-1, -2, 0]


@pytest.mark.parametrize("loss", [policy_gradient_loss, value_loss])
def test_advantages_and_targets_are_held_fixed(loss: Callable[[Tensor, Tensor, Tensor], Tensor]):
    x, given = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    value = loss(x, 2 * given, torch.ones(2, 4, dtype=torch.bool)).sum()
    actual, other = torch.autograd.grad(value, (x, given), allow_unused=True)
    assert actual.abs().min() > 0
    assert other is None


def test_explained_variance():
    target = torch.tensor([[1.0, 3.0, 5.0, NAN]]).expand(4, -1)
    value = torch.tensor([[1.0, 3.0, 5.0, 0.0], [7.0, 7.0, 7.0, 0.0], [5.0, 3.0, 1.0, 0.0], [11.0, 13.0, 15.0, 0.0]])
    valid = torch.tensor([[True, True, True, False]]).expand(4, -1)
    assert explained_variance(value, target, valid).tolist() == [1, 0, -3, 1]  # the last: an offset is no variance


def test_where_targets_are_all_equal_nothing_can_be_explained():
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    assert explained_variance(torch.randn(3, 2), torch.full((3, 2), 2.0), valid).isnan().all()


FUNCTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "masked_mean": lambda x, y, valid: masked_mean(x, valid),
    "policy_gradient_loss": policy_gradient_loss,
    "value_loss": value_loss,
    "explained_variance": explained_variance,
}


@pytest.mark.parametrize("size", [(2, 1), (5, 7), (9, 64), (33, 1000)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_member_gets_the_bits_that_it_gets_alone(name: str, size: tuple[int, int]):
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(2, *size[::-1], generator=generator).mT.unbind(0)  # columns, not rows, lie together,
    valid = (torch.rand(size[::-1], generator=generator) < 0.8).mT  # as in a batch of one environment per member
    together = FUNCTIONS[name](x, y, valid)
    for k in range(size[0]):
        alone = FUNCTIONS[name](x[k : k + 1].clone(), y[k : k + 1].clone(), valid[k : k + 1].clone())
        assert torch.equal(together[k : k + 1].nan_to_num(), alone.nan_to_num())
    assert together.shape == size[:1]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("change", [lambda x: x[0], lambda x: x[:, :1], lambda x: x[:1], lambda x: x[..., None]])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_shape_is_refused(name: str, index: int, change: Callable[[Tensor], Tensor]):
    tensors = [torch.zeros(3, 4), torch.zeros(3, 4), torch.ones(3, 4, dtype=torch.bool)]
    tensors[index] = change(tensors[index])
    if name == "masked_mean" and index == 1:
        FUNCTIONS[name](*tensors)  # takes no second tensor
        return
    with pytest.raises(ValueError, match=r"^expected tensors of one shape \(P, B\), got .*valid \(.*\)$") as caught:
        FUNCTIONS[name](*tensors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_ranks_that_agree_but_are_not_two_and_other_masks_are_refused(name: str):
    for shape in [(3,), (3, 4, 2)]:
        with pytest.raises(ValueError, match=r"expected tensors of one shape \(P, B\)"):
            FUNCTIONS[name](torch.zeros(shape), torch.zeros(shape), torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"valid must be bool, got torch\.float32"):
        FUNCTIONS[name](torch.zeros(3, 4), torch.zeros(3, 4), torch.ones(3, 4))
