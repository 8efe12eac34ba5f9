"""Signatures that a caller and a code generator share, and integers with operators."""

from typing import NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.ir import INT, NULL, POINTER, Variable, call, define_function, for_range, is_not_null, load, store
from pgkit.compiler.ir import parameter_types as types_of
from pgkit.compiler.jit import compile_function
from pgkit.compiler.signature import Address, Int64, address_of, address_table, flatten

REAL = ir.FloatType()


class Matrix(NamedTuple):
    numbers: Address
    stride: Int64


class AddMatrices(NamedTuple):
    rows: Int64
    columns: Int64
    terms: tuple[Matrix, ...]
    maybe: Address
    result: Matrix


def test_nested_and_repeated_fields_in_order() -> None:
    matrix = [POINTER, INT]
    assert types_of(AddMatrices, {"terms": 2}) == [INT, INT, *matrix, *matrix, POINTER, *matrix]
    assert flatten(AddMatrices(1, 2, (Matrix(3, 4), Matrix(5, 6)), 7, Matrix(8, 9))) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_sum_of_strided_matrices() -> None:
    builder, arguments = define_function(ir.Module(), "add_matrices", AddMatrices, {"terms": 2}, alias=True)
    total = Variable(builder, REAL)
    with for_range(builder, arguments.rows) as row, for_range(builder, arguments.columns) as column:
        total.set(REAL(0.0))
        with builder.if_then(is_not_null(builder, arguments.maybe)):
            total.set(load(builder, REAL, arguments.maybe, column))
        for term in arguments.terms:
            number = load(builder, REAL, term.numbers, row * term.stride + column)
            total.set(builder.fadd(total.get(), number))
        store(builder, total.get(), arguments.result.numbers, row * arguments.result.stride + column)
    builder.ret_void()
    kernel = compile_function(builder.function)
    first = torch.randn(5, 7)
    second = torch.randn(3, 4)
    bias = torch.randn(4)
    for maybe in (None, bias):
        result = torch.zeros(3, 4)
        terms = (Matrix(first.data_ptr(), 7), Matrix(second.data_ptr(), 4))
        kernel(*flatten(AddMatrices(3, 4, terms, address_of(maybe), Matrix(result.data_ptr(), 4))))
        expected = (torch.zeros(4) if maybe is None else maybe) + first[:3, :4] + second
        assert torch.equal(result, expected)


class Integers(NamedTuple):
    first: Int64
    second: Int64
    results: Address


def test_operators_of_integers() -> None:
    module = ir.Module()
    inner, integers = define_function(module, "inner", Integers, private=True)
    a, b, results = integers
    values = [a + b, a - b, a * b, a // b, a % b, 2 + a, 100 - a, 3 * a, (a * b + 1).where(a > b, 0)]
    for index, value in enumerate([*values, a.where(a.compare("==", b), 1)]):
        store(inner, value, results, index)
    inner.ret_void()
    builder, arguments = define_function(module, "outer", Integers, alias=True)
    call(builder, inner.function, arguments)
    builder.ret_void()
    output = torch.zeros(10, dtype=torch.int64)
    compile_function(builder.function)(*Integers(17, 5, output.data_ptr()))
    assert output.tolist() == [22, 12, 85, 3, 2, 19, 83, 51, 86, 1]


class Pointers(NamedTuple):
    count: Int64
    table: Address
    results: Address


def test_a_table_of_addresses() -> None:
    builder, arguments = define_function(ir.Module(), "first_numbers", Pointers, alias=True)
    with for_range(builder, arguments.count) as index:
        number = load(builder, REAL, load(builder, POINTER, arguments.table, index), 0)
        store(builder, number, arguments.results, index)
    builder.ret_void()
    tensors = [torch.randn(3) for _ in range(4)]
    output = torch.zeros(4)
    compile_function(builder.function)(*Pointers(4, address_table(tensors), output.data_ptr()))
    assert torch.equal(output, torch.stack([tensor[0] for tensor in tensors]))
    assert address_of(None) == 0
    assert NULL.type == POINTER
