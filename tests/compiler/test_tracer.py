"""Functions of one element: what they compute, how exactly, and the same bits in every row."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional

from pgkit.compiler.elementwise import VECTOR_WIDTH, Column, compile_elementwise, elementwise_loop
from pgkit.compiler.ir import define_function
from pgkit.compiler.jit import compile_function
from pgkit.compiler.signature import Address, Int64
from pgkit.seeding import stream_keys, uniform

DTYPES = (torch.float32, torch.float64)


def compute(function: Callable[..., Any], *inputs: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The results of a compiled function of tensors ``(k,)``."""
    inputs = tuple(tensor.contiguous() for tensor in inputs)
    result = torch.empty(len(inputs[0]), dtype=dtype or inputs[0].dtype)
    kernel = compile_elementwise(function, [(x.dtype, 1) for x in inputs], [(result.dtype, 1)])
    kernel(len(result), *(tensor.data_ptr() for tensor in (*inputs, result)))
    return result


def arguments(dtype: torch.dtype, reach: float) -> Tensor:
    """Small and large numbers of both signs, up to ``reach``."""
    random = torch.Generator().manual_seed(0)
    sizes = 10 ** (torch.rand(200_000, generator=random, dtype=torch.float64) * 12 - 9)
    spread = torch.randn(200_000, generator=random, dtype=torch.float64) * reach / 4
    return torch.cat([sizes[sizes < reach], -sizes[sizes < reach], spread.clamp(-reach, reach)]).to(dtype)


FUNCTIONS = {
    "exp": (torch.exp, 80.0),
    "log": (lambda x: torch.log(torch.abs(x)), 1000.0),
    "expm1": (torch.expm1, 80.0),
    "tanh": (torch.tanh, 30.0),
    "sigmoid": (torch.sigmoid, 80.0),
    "sin": (torch.sin, 1000.0),
    "cos": (torch.cos, 1000.0),
    "elu": (functional.elu, 30.0),
    "silu": (functional.silu, 80.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions_to_a_few_units_in_the_last_place(name: str, dtype: torch.dtype) -> None:
    """Float32 is compared with torch's float64; float64 with torch's, which is off by about half a unit itself."""
    function, reach = FUNCTIONS[name]
    x = arguments(dtype, reach)
    computed = compute(function, x)
    exact = function(x.double())
    unit = torch.finfo(dtype).eps * 2 ** torch.floor(torch.log2(exact.abs().clamp(min=1e-300)))
    error = ((computed.double() - exact).abs() / unit)[exact != 0]
    assert error.max() <= (3.0 if dtype == torch.float32 else 4.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementary_functions_of_special_numbers(dtype: torch.dtype) -> None:
    infinity, nan = torch.inf, torch.nan
    x = torch.tensor([0.0, -0.0, infinity, -infinity, nan, 1e4, -1e4], dtype=dtype)
    expected = {
        torch.exp: [1.0, 1.0, infinity, 0.0, nan, infinity, 0.0],
        torch.log: [-infinity, -infinity, infinity, nan, nan, math.log(1e4), nan],
        torch.tanh: [0.0, -0.0, 1.0, -1.0, nan, 1.0, -1.0],
        torch.sigmoid: [0.5, 0.5, 1.0, 0.0, nan, 1.0, 0.0],
        torch.relu: [0.0, 0.0, infinity, 0.0, nan, 1e4, 0.0],
        functional.elu: [0.0, 0.0, infinity, -1.0, nan, 1e4, -1.0],
    }
    for function, numbers in expected.items():
        computed = compute(function, x)
        assert torch.equal(computed.nan_to_num(77.0), torch.tensor(numbers, dtype=dtype).nan_to_num(77.0)), function
    assert compute(torch.tanh, x)[1].signbit()
    assert compute(torch.sin, x)[:2].tolist() == [0.0, 0.0]
    assert compute(torch.cos, x)[:2].tolist() == [1.0, 1.0]
    assert compute(torch.sin, x)[2:5].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bits_are_the_same_in_every_row(name: str, dtype: torch.dtype) -> None:
    """In whole vectors of rows, and in the rows that are left over."""
    function, reach = FUNCTIONS[name]
    x = arguments(dtype, reach)[::997][: 5 * VECTOR_WIDTH + 3]
    together = compute(function, x)
    assert torch.equal(together, torch.cat([compute(function, x[k : k + 1]) for k in range(len(x))]))


@pytest.mark.parametrize("divisor", [2 * math.pi, 1.0, 0.1, 7.0])
def test_remainders_are_exact(divisor: float) -> None:
    """Also next to multiples of the divisor, where the quotient is rounded to an integer."""
    multiples = torch.arange(-3000, 3000) * divisor
    near = [multiples, torch.nextafter(multiples, multiples + 1), torch.nextafter(multiples, multiples - 1)]
    x = torch.cat([arguments(torch.float64, 1000.0), *near])
    expected = torch.remainder(x, divisor)
    assert torch.equal(compute(lambda x: torch.remainder(x, divisor), x), expected)
    assert torch.equal(compute(lambda x: x % divisor, x), expected)


def test_what_is_not_compiled_says_what_is() -> None:
    x = torch.ones(3, dtype=torch.float64)
    messages = {
        "functions of math cannot take it": lambda x: math.sin(x),
        "cannot branch on the value": lambda x: x if x > 0.0 else -x,
        "erfinv is not among the compiled functions": torch.erfinv,
        "between float64 and float32; convert": lambda x: x + x.to(torch.float32),
        "between int64 and 0.5; convert": lambda x: (x.to(torch.int64) * 0.5).to(torch.float64),
        "only x \\*\\* 2": lambda x: x**3,
        "for a positive number as the divisor": lambda x: x % -1.0,
    }
    for message, function in messages.items():
        with pytest.raises(TypeError, match=message):
            compute(function, x)


def test_integers_and_booleans() -> None:
    x = torch.tensor([-5, -1, 0, 3, 2**62, -(2**63), 7, 8, 9, 10])
    flags = x > 4
    for function in (
        lambda x, flag: (x ^ (x >> 3)) & 1023 | 5,
        lambda x, flag: torch.where(flag & ~(x == 9), x * 3 - 1, -x),
        lambda x, flag: flag.to(torch.int64) + (x << 2),
    ):
        assert torch.equal(compute(function, x, flags), function(x, flags))
    assert torch.equal(compute(lambda x, flag: (x < 3) | flag, x, flags, dtype=torch.bool), (x < 3) | flags)
    real = compute(lambda x, flag: x.to(torch.float32), x, flags, dtype=torch.float32)
    assert torch.equal(real, x.to(torch.float32))


def test_random_numbers_are_those_of_the_stream() -> None:
    keys, counters = stream_keys(range(11), "action"), torch.arange(11) * 2**40 + 3
    computed = compute(uniform, keys, counters, dtype=torch.float32)
    assert torch.equal(computed, uniform(keys, counters))


class RowDifferences(NamedTuple):
    rows: Int64
    first: Address
    second: Address
    difference: Address
    number: Address


def test_columns_with_strides_and_the_number_of_the_row() -> None:
    builder, arguments = define_function(ir.Module(), "row_differences", RowDifferences, alias=True)
    rows, *bases = arguments
    first, second, *outputs = (
        Column(base, ir.FloatType(), stride) for base, stride in zip(bases, (3, 3, 2, 2), strict=True)
    )
    elementwise_loop(builder, rows, [first, second], outputs, lambda row, a, b: [a - b, row.to(torch.float32)])
    builder.ret_void()
    kernel = compile_function(builder.function)
    x = torch.randn(2 * VECTOR_WIDTH + 3, 3)
    result = torch.zeros(2 * VECTOR_WIDTH + 3, 2)
    columns = (x[:, 0], x[:, 2], result[:, 0], result[:, 1])
    kernel(*RowDifferences(len(x), *(column.data_ptr() for column in columns)))
    assert torch.equal(result[:, 0], x[:, 0] - x[:, 2])
    assert torch.equal(result[:, 1], torch.arange(len(x)).float())
