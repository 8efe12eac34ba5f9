"""Recursions over time: compiled and on tensors, for any layout in memory."""

from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit.kernels.scan import scan

SHAPES = [(1, 1, 1), (5, 3, 8), (7, 2, 11), (40, 1, 16), (3, 0, 4)]


def decayed(total: Any, count: Any, number: Any, flag: Any) -> list[Any]:
    """A decaying sum that restarts at flags, and the number of flags so far."""
    total = torch.where(flag, number, total * 0.5 + number)
    return [total, count + flag.to(torch.int64), total - number, flag]


def run(shape: tuple[int, int, int], reverse: bool) -> list[Tensor]:
    """Final carried tensors and outputs, of one input with members first in memory and one with times first."""
    random = torch.Generator().manual_seed(0)
    steps, members, count = shape
    number = torch.randn(members, steps, count, generator=random).transpose(0, 1)
    flag = torch.rand(shape, generator=random) < 0.2
    carried = [torch.ones(members, count), torch.zeros(members, count, dtype=torch.int64)]
    return [*carried, *scan(decayed, carried, [number, flag], [torch.float32, torch.bool], reverse)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_compiled_scan_is_that_on_tensors(
    shape: tuple[int, int, int], reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = run(shape, reverse)
    set_compile_mode(monkeypatch, "off")
    for result, expected in zip(compiled, run(shape, reverse), strict=True):
        assert torch.equal(result, expected)
        assert result.dtype == expected.dtype


def test_gradients_flow_through_a_scan() -> None:
    number = torch.randn(4, 2, 3, requires_grad=True)
    flag = torch.zeros(4, 2, 3, dtype=torch.bool)
    carried = [torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)]
    result, _ = scan(decayed, carried, [number, flag], [torch.float32, torch.bool])
    (grad,) = torch.autograd.grad(result[-1].sum(), [number])
    expected = torch.tensor([0.125, 0.25, 0.5, 0.0]).view(4, 1, 1).expand_as(grad)
    torch.testing.assert_close(grad, expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    number, flag = torch.zeros(4, 2, 3), torch.zeros(4, 2, 3, dtype=torch.bool)
    carried = [torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)]
    for inputs, state in (([number, flag[1:]], carried), ([number, flag], [carried[0], carried[1][:1]])):
        with pytest.raises(ValueError, match=r"expected \(T, P, N\) and \(P, N\)"):
            scan(decayed, state, inputs, [torch.float32, torch.bool])
