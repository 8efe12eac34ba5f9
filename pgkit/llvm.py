"""Compiling with LLVM: loops, memory and modules, for the few places where a pass over memory has to be one's own.

Nothing may be reordered or contracted, and all operations used are correctly rounded, so the bits do not depend on how
wide the registers are.
"""

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import torch
from llvmlite import binding, ir

from pgkit.files import Unwritable, replace_file

TYPES = {torch.float32: ir.FloatType(), torch.float64: ir.DoubleType()}
"""What can be computed with."""

INT, POINTER = ir.IntType(64), ir.PointerType()

_DIGEST = hashlib.sha256().digest_size


def function(
    module: ir.Module, name: str, kinds: Sequence[ir.Type], alias: bool = False, private: bool = False
) -> tuple[ir.IRBuilder, tuple[ir.Value, ...]]:
    """A function that returns nothing: builder and arguments.

    Args:
        module: that it belongs to.
        name: in the module.
        kinds: of the arguments.
        alias: what it writes may overlap with what it reads; else LLVM may take it that no two addresses do.
        private: other functions of the module call it, nobody else; LLVM leaves it one.
    """
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    for argument in made.args:
        if argument.type == POINTER and not alias:
            argument.add_attribute("noalias")
    if private:
        made.linkage = "internal"
        made.attributes.add("noinline")
    return ir.IRBuilder(made.append_basic_block()), made.args


@contextmanager
def loop(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """``for index in range(count)``."""
    before, (head, body, after) = builder.block, (builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INT)
    index.add_incoming(INT(0), before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, after)
    builder.position_at_end(body)
    yield index
    index.add_incoming(builder.add(index, INT(1), flags=["nsw"]), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def load(builder: ir.IRBuilder, kind: ir.Type, base: ir.Value, index: ir.Value) -> ir.Value:
    """A number, or a vector of numbers that begins with it, ``index`` numbers behind an address."""
    number = _number(kind)
    return builder.load(builder.gep(base, [index], source_etype=number), typ=kind, align=_align(number))


def store(builder: ir.IRBuilder, value: ir.Value, base: ir.Value, index: ir.Value) -> None:
    """Put a number, or a vector, ``index`` numbers behind an address."""
    number = _number(value.type)
    builder.store(value, builder.gep(base, [index], source_etype=number), align=_align(number))


def intrinsic(builder: ir.IRBuilder, name: str, *operands: ir.Value) -> ir.Value:
    """``llvm.name`` of operands of one type, numbers or vectors of them."""
    kind, module = operands[0].type, builder.module
    many = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
    full = f"llvm.{name}.{many}{_number(kind).intrinsic_name}"
    called = module.globals.get(full) or ir.Function(module, ir.FunctionType(kind, [kind] * len(operands)), full)
    return builder.call(called, operands)


def lane_sum(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
    """The sum of the numbers of a vector, one half added to the other until one is left."""
    width, place = vector.type.count, ir.IntType(32)
    while width > 1:
        width //= 2
        halves = [ir.Constant(ir.VectorType(place, width), list(range(k, k + width))) for k in (0, width)]
        low, high = (builder.shuffle_vector(vector, vector, half) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, place(0))


def _align(number: ir.Type) -> int:
    """Bytes that an address is a multiple of, at least."""
    return 1 if number == ir.IntType(8) else 4


def _number(kind: ir.Type) -> ir.Type:
    return kind.element if isinstance(kind, ir.VectorType) else kind


@lru_cache
def register_bytes() -> int:
    """How much a vector register of this processor holds."""
    features = binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


@lru_cache
def compiled(module: str, name: str, kinds: tuple[type[Any], ...], vectorize: bool) -> Callable[..., None]:
    """A function of a module, by types of ctypes; the same text is compiled once, and its code kept on disk.

    ``vectorize``: LLVM shall unroll loops and make vectors of their numbers; in vain where they have vectors already.
    """
    parsed = binding.parse_assembly(module)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    machine = binding.Target.from_default_triple().create_target_machine(*processor, opt=3)
    file = _cached([llvmlite.__version__, *processor, str(vectorize), module])
    code = _read(file)
    if code is None:
        options = binding.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.loop_interleaving = options.loop_unrolling = vectorize
        passes = binding.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.set_object_cache(lambda module, made: _write(file, made), lambda module: code)
    engine.finalize_object()
    made = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address(name))
    made.engine = engine  # type: ignore[attr-defined] # it owns the code, and lives as long as the function
    return made


def _cached(parts: Sequence[str]) -> Path | None:
    """The file that holds the code of these parts, so that no other process need compile it; None without a home."""
    with suppress(RuntimeError):
        above = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return above / "pgkit" / hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return None


def _read(file: Path | None) -> bytes | None:
    """What :func:`_write` wrote, if it is there and whole."""
    with suppress(OSError):
        content = b"" if file is None else file.read_bytes()
        code = content[_DIGEST:]
        return code if hashlib.sha256(code).digest() == content[:_DIGEST] else None
    return None


def _write(file: Path | None, code: bytes) -> None:
    """Keep code, if the system lets us."""
    if file is not None:
        with suppress(Unwritable):
            replace_file(file, lambda out: out.write(hashlib.sha256(code).digest() + code))


class _Recorders(threading.local):
    """Those of a thread."""

    def __init__(self) -> None:
        self.all: list[Callable[[Any, Sequence[Any]], None]] = []


_recorders = _Recorders()


@contextmanager
def recorded(recorder: Callable[[Any, Sequence[Any]], None]) -> Iterator[None]:
    """``recorder(function, arguments)`` hears of each call of a compiled function that this thread makes inside."""
    _recorders.all.append(recorder)
    try:
        yield
    finally:
        _recorders.all.remove(recorder)


def compiled_function(made: ir.Function, vectorize: bool = False) -> Callable[..., None]:
    """A function that is written down, see :func:`compiled`."""
    function = _compiled(made, vectorize)

    def call(*arguments: Any) -> None:
        for recorder in _recorders.all:
            recorder(function, arguments)
        function(*arguments)

    return call


def _compiled(made: ir.Function, vectorize: bool) -> Callable[..., None]:
    kinds = tuple(ctypes.c_int64 if argument.type == INT else ctypes.c_void_p for argument in made.args)
    return compiled(str(made.module), made.name, kinds, vectorize)


def shared(made: ir.Function, vectorize: bool = False) -> Callable[..., None]:
    """The same, and other modules can declare a function of that name and call it."""
    function = _compiled(made, vectorize)
    binding.add_symbol(made.name, ctypes.cast(function, ctypes.c_void_p).value)  # type: ignore[arg-type] # of ctypes, too
    return function
