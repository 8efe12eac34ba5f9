"""Compiled matrix products: equal to torch's up to rounding, with bits that depend on nothing but the numbers."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pgkit.kernels import matmul
from pgkit.kernels.codegen import matmul as matmul_codegen
from pgkit.kernels.matmul import multiply, multiply_and_sum

DTYPES = (torch.float32, torch.float64)


def matrices(shape: tuple[int, ...], transposed: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random matrices of a shape, with contiguous rows, or contiguous columns if transposed."""
    column_major = torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype).mT
    return column_major if transposed else column_major.contiguous()


@pytest.fixture
def fresh_kernels() -> Iterator[None]:
    """Compile kernels for this test alone."""
    matmul._kernel.cache_clear()
    yield
    matmul._kernel.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 2, 4, 5, 8, 16, 17, 30, 64, 83, 130])
def test_products_and_sums_equal_those_of_torch(columns: int, dtype: torch.dtype) -> None:
    layouts = itertools.product((1, 2, 4, 5, 8, 13, 40), (1, 7, 8, 16, 33, 64), (False, True), (False, True))
    for rows, inner, a_transposed, b_transposed in layouts:
        a = matrices((3, rows, inner), a_transposed, dtype)
        b = matrices((3, inner, columns), b_transposed, dtype)
        bias = torch.randn(3, 1, columns, dtype=dtype)
        exact = a.double() @ b.double()
        close = {"rtol": 0.0, "atol": 8 * inner * torch.finfo(dtype).eps}
        product, sums = multiply_and_sum(a, b)
        torch.testing.assert_close(product.double(), exact, **close)
        torch.testing.assert_close(sums.double(), b.double().sum(1, keepdim=True), **close)
        torch.testing.assert_close(multiply(a, b, bias).double(), exact + bias.double(), **close)


@pytest.mark.parametrize("columns", [1, 3, 5, 64, 83])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_member_has_the_same_bits_alone(columns: int, transposed: bool) -> None:
    a = matrices((7, 13, 40), transposed)
    b = matrices((7, 40, columns), transposed)
    bias = torch.randn(7, 1, columns)
    with_bias = multiply(a, b, bias)
    product, sums = multiply_and_sum(a, b)
    for k in range(7):
        a_k, b_k, bias_k = (tensor[k : k + 1].clone() for tensor in (a, b, bias))
        assert torch.equal(multiply(a_k, b_k, bias_k)[0], with_bias[k])
        product_alone, sums_alone = multiply_and_sum(a_k, b_k)
        assert torch.equal(product_alone[0], product[k])
        assert torch.equal(sums_alone[0], sums[k])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_width_of_registers(
    dtype: torch.dtype, fresh_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on processors with SSE or Neon, AVX2, AVX-512."""
    cases = [
        (matrices((3, rows, 37), transposed, dtype), matrices((3, 37, columns), transposed, dtype))
        for rows, columns, transposed in itertools.product((4, 11, 40), (1, 3, 5, 16, 30, 64, 83), (False, True))
    ]
    results = []
    for width in (16, 32, 64):
        monkeypatch.setattr(matmul_codegen, "register_bytes", lambda width=width: width)
        matmul._kernel.cache_clear()
        results.append([(multiply(a, b), *multiply_and_sum(a, b)) for a, b in cases])
    for one, other in itertools.combinations(results, 2):
        assert all(torch.equal(x, y) for pair in zip(one, other, strict=True) for x, y in zip(*pair, strict=True))


def test_terms_are_added_in_order_each_rounded_once() -> None:
    """Of 1 + t + t + ..., t below half a unit in the last place of 1, nothing is left; t + t + ... + 1 is more."""
    t, columns = 2.0**-25, 8
    terms = torch.full((1, 1, 33), t)
    first, last = terms.clone(), terms.clone()
    first[0, 0, 0] = last[0, 0, -1] = 1.0
    ones = torch.ones(1, 33, columns)
    assert torch.equal(multiply(first, ones), torch.ones(1, 1, columns))
    assert torch.equal(multiply(last, ones), torch.full((1, 1, columns), 1.0 + 32 * t))
    e = torch.finfo(torch.float32).eps  # (1 + e)(1 - e) - 1 = -e^2, which a rounded product would lose
    a, b = torch.tensor([[[1.0, 1.0 + e]]]), torch.tensor([-1.0, 1.0 - e]).view(1, 2, 1).expand(1, 2, columns)
    assert torch.equal(multiply(a, b), torch.full((1, 1, columns), -(e**2)))


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0), (2, 3, 0, 1)])
def test_nothing_to_multiply(shape: tuple[int, int, int, int]) -> None:
    members, rows, inner, columns = shape
    a, b = torch.randn(members, rows, inner), torch.randn(members, inner, columns)
    bias = torch.randn(members, 1, columns)
    assert torch.equal(multiply(a, b, bias), bias.expand(members, rows, columns))
    assert torch.equal(multiply_and_sum(a, b)[0], torch.zeros(members, rows, columns))


def test_any_strides() -> None:
    whole = torch.randn(4, 9, 6, 14)
    a, b = whole[:, ::2, 1, ::2], whole[1, 2, :5, ::2].mT.expand(4, 7, 5)
    torch.testing.assert_close(multiply(a, b), a @ b)
    column = torch.randn(4, 7, 1).expand(4, 7, 6)
    torch.testing.assert_close(multiply(a, column), a @ column)


def test_numbers_that_are_not_finite_stay_in_their_rows() -> None:
    a, b = torch.randn(2, 5, 8), torch.randn(2, 8, 20)
    a[0, 1, 3], a[1, 2, 0] = torch.nan, torch.inf
    product = multiply(a, b)
    assert product[0, 1].isnan().all()
    assert product[1, 2].isinf().all()
    assert product.isfinite().sum() == product.numel() - 40


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_are_for_torch(dtype: torch.dtype) -> None:
    a, b, bias = torch.randn(2, 3, 4).to(dtype), torch.randn(2, 4, 5).to(dtype), torch.randn(2, 1, 5).to(dtype)
    torch.testing.assert_close(multiply(a, b, bias), torch.baddbmm(bias, a, b))
    torch.testing.assert_close(multiply_and_sum(a, b)[0], a @ b)


def test_shapes_and_dtypes_that_do_not_fit_are_refused() -> None:
    a = torch.randn(2, 3, 4)
    for b in (torch.randn(2, 3, 5), torch.randn(1, 4, 5), torch.randn(2, 4, 5).double()):
        with pytest.raises(ValueError, match="cannot multiply"):
            multiply(a, b)
    for bias in (torch.randn(2, 5), torch.randn(2, 3, 5), torch.randn(2, 1, 5).double()):
        with pytest.raises(ValueError, match="expected a bias"):
            multiply(a, torch.randn(2, 4, 5), bias)
