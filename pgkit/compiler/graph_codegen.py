"""Code of captured graphs: one function that makes the updates of all members."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from pgkit.compiler.elementwise import Column, elementwise_loop
from pgkit.compiler.graph_ops import OPERATIONS, BufferEntry, ElementwiseOp, GraphArguments, Repeat
from pgkit.compiler.ir import (
    BYTE,
    INT,
    POINTER,
    Index,
    Variable,
    define_function,
    element_pointer,
    for_range,
    load,
    store,
)
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar

FLAG = ir.IntType(1)

NextWord = Callable[[ir.Type], ir.Value]
"""Gives the graph's next word as a value of the type that is asked for."""


Operation = ElementwiseOp | tuple[bool, ...] | Repeat
"""What an instruction does, see :class:`pgkit.compiler.graph_ops.Instruction`."""


def compile_graph(operations: Sequence[Operation]) -> Callable[..., None]:
    """Compile a graph with the signature :class:`GraphArguments`.

    Args:
        operations: of its instructions, in order.
    """
    builder, arguments = define_function(ir.Module(), "graph", GraphArguments, alias=True)
    going = Variable(builder, FLAG)
    buffers = arguments.buffers, arguments.buffer_count
    snapshots = arguments.snapshots, arguments.snapshot_count
    with for_range(builder, arguments.members) as member:
        _copy_rows(builder, *buffers, member, into_workspace=True)
        going.set(FLAG(1))
        # A member that stops early runs through the rest of its loop without doing anything, which needs no jump out.
        with for_range(builder, arguments.max_updates) as update, builder.if_then(going.get()):
            _instructions(builder, operations, _words(builder, arguments.words))
            ok, snapshot_due, keep_going = (
                builder.trunc(load(builder, BYTE, flag, 0), FLAG)
                for flag in (arguments.ok, arguments.snapshot_due, arguments.keep_going)
            )
            going.set(builder.and_(ok, keep_going))
            store(builder, (update + 1).where(ok, update), arguments.updates, member)
            store(builder, builder.zext(ok, BYTE), arguments.all_ok, member)
            with builder.if_then(builder.and_(ok, snapshot_due)):
                _copy_rows(builder, *snapshots, member, into_workspace=False)
        _copy_rows(builder, *buffers, member, into_workspace=False)
    builder.ret_void()
    return compile_function(builder.function)


def _instructions(builder: ir.IRBuilder, operations: Sequence[Operation], next_word: NextWord) -> None:
    """The instructions of a graph or of a loop in it, one after the other."""
    for operation in operations:
        if isinstance(operation, ElementwiseOp):
            _elementwise(builder, operation, next_word)
        elif isinstance(operation, Repeat):
            _repeat(builder, operation, next_word)
        else:
            _call(builder, operation, next_word)


def _repeat(builder: ir.IRBuilder, operation: Repeat, next_word: NextWord) -> None:
    """A loop; once its flag is true, the rounds that are left do nothing."""
    flag = next_word(POINTER) if operation.until else None
    with for_range(builder, operation.rounds):
        going = FLAG(1) if flag is None else builder.not_(builder.trunc(load(builder, BYTE, flag, 0), FLAG))
        with builder.if_then(going):
            _instructions(builder, operation.operations, next_word)


def _words(builder: ir.IRBuilder, words: ir.Value) -> NextWord:
    """The words of all instructions, one at each call."""
    position = 0

    def next_word(ir_type: ir.Type) -> ir.Value:
        nonlocal position
        value = builder.load(element_pointer(builder, words, INT, position), typ=ir_type)
        position += 1
        return value

    return next_word


def _elementwise(builder: ir.IRBuilder, operation: ElementwiseOp, next_word: NextWord) -> None:
    """A loop over the elements of an operation of PyTorch."""
    inputs = [Column(next_word(POINTER), IR_TYPES[dtype], stride) for dtype, stride in operation.inputs]
    output = Column(next_word(POINTER), IR_TYPES[operation.output])

    def compute(row: TracedScalar, *values: TracedScalar) -> list[TracedScalar]:
        tensors = iter(values)
        arguments = [next(tensors) if argument is ... else argument for argument in operation.arguments]
        condition = arguments[:1] if operation.name == "where" else []  # which stays a boolean
        converted = [
            argument.to(operation.compute_dtype) if isinstance(argument, TracedScalar) else argument
            for argument in arguments[len(condition) :]
        ]
        return [OPERATIONS[operation.name](*condition, *converted)]

    elementwise_loop(builder, operation.size, inputs, [output], compute)


def _call(builder: ir.IRBuilder, is_address: Sequence[bool], next_word: NextWord) -> None:
    """A call of a compiled function, whose address is a word, too."""
    types: list[Any] = [POINTER if parameter else INT for parameter in is_address]
    called = next_word(ir.FunctionType(ir.VoidType(), types).as_pointer())
    builder.call(called, [next_word(ir_type) for ir_type in types])


def _copy_rows(builder: ir.IRBuilder, table: ir.Value, count: Index, member: Index, into_workspace: bool) -> None:
    """Copy a member's rows of all tensors of a table into the workspace, or from there to where they belong."""
    with for_range(builder, count) as index:
        entry = BufferEntry(
            *(
                load(builder, INT if name == "row_bytes" else POINTER, table, index * len(BufferEntry._fields) + field)
                for field, name in enumerate(BufferEntry._fields)
            )
        )
        row = Index(builder, load(builder, INT, entry.rows, member))
        tensor = entry.source if into_workspace else entry.target
        outside = element_pointer(builder, tensor, BYTE, row * entry.row_bytes)
        if into_workspace:
            _copy_bytes(builder, entry.workspace, outside, entry.row_bytes)
        else:
            _copy_bytes(builder, outside, entry.workspace, entry.row_bytes)


def _copy_bytes(builder: ir.IRBuilder, target: ir.Value, source: ir.Value, size: ir.Value) -> None:
    name = "llvm.memcpy.p0.p0.i64"
    module = builder.module
    types = [POINTER, POINTER, INT, FLAG]
    copy = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), types), name)
    is_volatile = FLAG(0)
    builder.call(copy, [target, source, size, is_volatile])
