"""A branch that is taken where any element needs it gives what ``torch.where`` gives."""

import doctest

import pytest
import torch

from pgkit.compiler import control_flow
from pgkit.compiler.control_flow import lazy_where
from pgkit.compiler.elementwise import compile_elementwise
from pgkit.compiler.lazy import lazy_kernel

FLOAT = (torch.float64, 1)


def nested(x, y, flag):
    """Several values of several types, a branch in a branch, and code before and behind."""
    twice = x * 2.0

    def outer():
        square = twice * twice
        (inner,) = lazy_where(x > 1.0, lambda: [torch.sqrt(square) + 1.0], [square])
        return [inner, y + 1.0, ~flag]

    values = lazy_where(flag, outer, [x, y, flag])
    return [values[0] + values[1], values[1] - twice, values[2]]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 67])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_same_as_on_tensors(count, share):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, dtype=torch.float64, generator=generator)
    y = torch.randn(count, dtype=torch.float64, generator=generator)
    flag = torch.rand(count, generator=generator) < share
    results = torch.empty_like(x), torch.empty_like(x), torch.empty_like(flag)
    kernel = compile_elementwise(nested, [FLOAT, FLOAT, (torch.bool, 1)], [FLOAT, FLOAT, (torch.bool, 1)])
    kernel(count, *[tensor.data_ptr() for tensor in (x, y, flag, *results)])
    for result, expected in zip(results, nested(x, y, flag), strict=True):
        assert torch.equal(result, expected)


def test_the_example():
    results = doctest.testmod(control_flow)
    assert results.attempted > 0
    assert results.failed == 0


def test_the_number_of_values_is_checked():
    with pytest.raises(ValueError, match="zip"):
        lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")(
            lambda x: lazy_where(x > 0.0, lambda: [x, x], [x]), (FLOAT,), (FLOAT,)
        )
    with pytest.raises(ValueError, match="zip"):
        lazy_where(torch.tensor([True]), list, [torch.zeros(1)])
