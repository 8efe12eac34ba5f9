"""Records in memory: named fields of fixed places, which Python and the code generator share.

A layout says where the fields of a record lie. A ``Struct`` reads and writes them in a compiled function:

    POINT = Layout({"position": (torch.float32, 2), "index": (torch.int32, 1)})
    LINE = Layout({"points": (POINT, 2), "closed": (torch.bool, 1)})

    line = Struct(builder, address, LINE)
    x = line.item("points", 1).get("position", 0)
    line.set("closed", x > 0.0)

Records of float32 alone can lie in lanes: each number of L records beside one another, so that vectors of L numbers
are read at once. The code is the same, written with single numbers or with vectors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

import torch
from llvmlite import ir

from pgkit.compiler.ir import BYTE, INT, POINTER, Index, ir_value
from pgkit.compiler.statements import entry_alloca
from pgkit.compiler.tracer import IR_TYPES, TracedScalar

INT32 = ir.IntType(32)

_MEMORY_TYPES = {**IR_TYPES, torch.bool: BYTE, torch.int32: INT32}
"""LLVM types of numbers in memory. Where they are computed with, a byte is a boolean and int32 is int64."""


class Field(NamedTuple):
    """Some elements, one behind the other.

    Attributes:
        element: dtype of a number, or layout of a record.
        size: number of elements.
        offset: of the first one in the record, in bytes.
    """

    element: Union[torch.dtype, "Layout"]
    size: int
    offset: int


class Layout:
    """Where the fields of a record lie.

    Args:
        fields: element (a dtype or a layout) and number of elements of each field, in order.

    Attributes:
        fields: by name.
        align: in bytes.
        size: in bytes.
    """

    def __init__(self, fields: Mapping[str, tuple[Union[torch.dtype, "Layout"], int]]) -> None:
        self.fields: dict[str, Field] = {}
        self.align = 1
        offset = 0
        for name, (element, count) in fields.items():
            align = _align(element)
            offset = _round_up(offset, align)
            self.fields[name] = Field(element, count, offset)
            offset += _size(element) * count
            self.align = max(self.align, align)
        self.size = _round_up(offset, self.align)

    def view(self, records: torch.Tensor, name: str) -> torch.Tensor:
        """A field of numbers in records: a view ``(K, count)`` of ``(K, size)`` bytes."""
        field = self.fields[name]
        assert isinstance(field.element, torch.dtype)
        numbers = records[:, field.offset : field.offset + field.size * field.element.itemsize]
        return numbers.view(field.element)


class Struct:
    """A record in memory, or a record of each lane.

    Args:
        builder: of the function.
        address: of the record; with lanes, of the first field in the first of the lanes that are used.
        layout: of the record; with lanes, of float32 alone.
        lanes: records whose numbers lie beside one another.
        width: lanes that are read and written at once.
    """

    def __init__(
        self, builder: ir.IRBuilder, address: ir.Value, layout: Layout, lanes: int = 1, width: int = 1
    ) -> None:
        self.builder = builder
        self.address = address
        self.layout = layout
        self.lanes = lanes
        self.width = width

    def get(self, name: str, index: Any = 0) -> TracedScalar:
        """Element ``index`` of a field."""
        pointer, dtype = self._place(name, index)
        ir_type = _MEMORY_TYPES[dtype]
        if self.width > 1:
            ir_type = ir.VectorType(ir_type, self.width)
        value = self.builder.load(pointer, typ=ir_type, align=dtype.itemsize)
        if dtype == torch.bool:
            value = self.builder.trunc(value, IR_TYPES[torch.bool])
        if dtype == torch.int32:
            value = self.builder.sext(value, INT)
        return TracedScalar(self.builder, value)

    def set(self, name: str, value: TracedScalar | Index | float, index: Any = 0) -> None:
        """Write element ``index`` of a field."""
        pointer, dtype = self._place(name, index)
        self.builder.store(self._memory_value(value, dtype), pointer, align=dtype.itemsize)

    def item(self, name: str, index: Any = 0) -> "Struct":
        """Record ``index`` of a field of records."""
        field = self.layout.fields[name]
        assert isinstance(field.element, Layout)
        return Struct(self.builder, self._element(field, index), field.element, self.lanes, self.width)

    def lane(self, index: Index | int) -> "Struct":
        """The record of a single lane."""
        address = self.builder.gep(self.address, [ir_value(index)], source_etype=IR_TYPES[torch.float32])
        return Struct(self.builder, address, self.layout, self.lanes)

    def _place(self, name: str, index: Any) -> tuple[ir.Value, torch.dtype]:
        field = self.layout.fields[name]
        assert isinstance(field.element, torch.dtype)
        return self._element(field, index), field.element

    def _element(self, field: Field, index: Any) -> ir.Value:
        size = _size(field.element) * self.lanes
        first = field.offset * self.lanes
        offset = first + index * size if isinstance(index, int) else Index(self.builder, ir_value(index)) * size + first
        return self.builder.gep(self.address, [ir_value(offset)], source_etype=BYTE)

    def _memory_value(self, value: Any, dtype: torch.dtype) -> ir.Value:
        ir_type = _MEMORY_TYPES[dtype]
        if isinstance(value, (int, float)):
            return ir.Constant(
                ir.VectorType(ir_type, self.width) if self.width > 1 else ir_type,
                [value] * self.width if self.width > 1 else value,
            )
        if dtype == torch.bool:
            return self.builder.zext(ir_value(value), BYTE)
        if dtype == torch.int32:
            return self.builder.trunc(ir_value(value), INT32)
        return ir_value(value)


def local_struct(builder: ir.IRBuilder, layout: Layout) -> Struct:
    """A record of zeros in the memory of the function that is being compiled."""
    address = entry_alloca(builder, BYTE, layout.size, align=64)
    fill_zeros(builder, address, layout.size)
    return Struct(builder, address, layout)


def fill_zeros(builder: ir.IRBuilder, address: ir.Value, size: int) -> None:
    """Set bytes to zero."""
    name = "llvm.memset.p0.i64"
    module = builder.module
    types = [POINTER, BYTE, INT, ir.IntType(1)]
    memset = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), types), name)
    builder.call(memset, [address, BYTE(0), INT(size), ir.IntType(1)(0)])


def constant_struct(
    module: ir.Module, builder: ir.IRBuilder, name: str, layout: Layout, values: Sequence[float]
) -> Struct:
    """A record of float32 constants, given as all numbers in order."""
    table = module.globals.get(name)
    if table is None:
        real = IR_TYPES[torch.float32]
        table = ir.GlobalVariable(module, ir.ArrayType(real, len(values)), name)
        table.initializer = ir.Constant(table.value_type, [ir.Constant(real, value) for value in values])
        table.global_constant = True
        table.linkage = "internal"
        table.type = POINTER
    return Struct(builder, table, layout)


def _size(element: torch.dtype | Layout) -> int:
    return element.size if isinstance(element, Layout) else element.itemsize


def _align(element: torch.dtype | Layout) -> int:
    return element.align if isinstance(element, Layout) else element.itemsize


def _round_up(offset: int, align: int) -> int:
    return -(-offset // align) * align
