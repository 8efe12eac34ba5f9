"""Losses of categorical policies in closed form are those of the single functions."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.categorical import MOST_COMPILED
from pgkit.policies import categorical
from pgkit.types import Batch

DTYPES = (torch.float32, torch.float64)


def samples(choices: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Batch]:
    """Outputs and values that want gradients, of three members with 13 samples."""
    random = torch.Generator().manual_seed(choices)
    numbers = torch.randn(3, 13, choices + 3, generator=random, dtype=torch.float64).to(dtype)
    outputs, value = (2 * numbers[..., 3:]).requires_grad_(), numbers[..., 0].clone().requires_grad_()
    action = torch.randint(choices, (3, 13), generator=random)
    valid = torch.rand(3, 13, generator=random) < 0.7
    valid[2] = False
    return outputs, value, Batch(numbers, action, numbers[..., 1], numbers[..., 2], valid, {})


def by_single_functions(choices: int, monkeypatch: pytest.MonkeyPatch, *args: Any) -> dict[str, Tensor]:
    with monkeypatch.context() as patch:
        patch.setattr("pgkit.policies.is_compiled", lambda outputs: False)
        return categorical(choices).losses(*args)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("choices", [1, 2, 5, MOST_COMPILED])
def test_losses_and_gradients_are_those_of_the_single_functions(
    choices: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, value, batch = samples(choices, dtype)
    own = categorical(choices).losses(outputs, value, batch)
    other = by_single_functions(choices, monkeypatch, outputs, value, batch)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    assert own.keys() == other.keys()
    for tag, loss in own.items():
        torch.testing.assert_close(loss, other[tag], **close)
    weights = torch.tensor([[1.0], [0.5], [-0.3]], dtype=dtype)
    grads, others = (
        torch.autograd.grad((weights * torch.stack(list(losses.values()))).sum(), [outputs, value])
        for losses in (own, other)
    )
    for grad, expected in zip(grads, others, strict=True):
        torch.testing.assert_close(grad, expected, **close)


def test_losses_can_be_differentiated_twice() -> None:
    outputs, value, batch = samples(3, torch.float64)

    def losses(outputs: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        return tuple(categorical(3).losses(outputs, value, batch).values())

    assert torch.autograd.gradcheck(losses, (outputs, value))
    assert torch.autograd.gradgradcheck(losses, (outputs, value))


def test_what_is_not_valid_may_be_anything() -> None:
    outputs, value, batch = samples(4, torch.float32)
    expected = categorical(4).losses(outputs, value, batch)
    spoilt = torch.where(batch.valid[..., None], outputs, torch.nan).detach().requires_grad_()
    worth = torch.where(batch.valid, value, torch.inf).detach().requires_grad_()
    advantage = torch.where(batch.valid, batch.advantage, torch.nan)
    own = categorical(4).losses(spoilt, worth, batch._replace(advantage=advantage))
    for tag, loss in own.items():
        assert torch.equal(loss, expected[tag])
        assert loss[2] == 0
    for grad in torch.autograd.grad(sum(own.values()).sum(), [spoilt, worth]):
        assert not grad[~batch.valid].any()
        assert grad[batch.valid].isfinite().all()


def test_a_member_has_the_same_bits_alone() -> None:
    outputs, value, batch = samples(2, torch.float32)
    together = categorical(2).losses(outputs, value, batch)
    for k in range(3):
        rows = slice(k, k + 1)
        alone = categorical(2).losses(outputs[rows], value[rows], Batch(*(x[rows] for x in batch[:-1]), {}))
        assert all(torch.equal(alone[tag][0], loss[k]) for tag, loss in together.items())


@pytest.mark.parametrize("field", ["action", "advantage", "valid"])
def test_shapes_and_kinds_that_do_not_fit_are_refused(field: str) -> None:
    outputs, value, batch = samples(2, torch.float32)
    wrong = {"action": batch.action.int(), "advantage": batch.advantage[:, :5], "valid": batch.valid.float()}
    with pytest.raises(ValueError, match="expected outputs, value, action"):
        categorical(2).losses(outputs, value, batch._replace(**{field: wrong[field]}))
