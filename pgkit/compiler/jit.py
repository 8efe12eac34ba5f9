"""Compile LLVM modules, cache their machine code and record calls of compiled functions."""

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
from llvmlite import binding, ir

from pgkit.compiler.ir import INT
from pgkit.system.files import WriteError, replace_file

_DIGEST = hashlib.sha256().digest_size


@lru_cache
def compile_module(module: str, name: str, kinds: tuple[type[Any], ...], vectorize: bool) -> Callable[..., None]:
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
        with suppress(WriteError):
            replace_file(file, lambda out: out.write(hashlib.sha256(code).digest() + code))


class _Recorders(threading.local):
    """Those of a thread."""

    def __init__(self) -> None:
        self.all: list[Callable[[Any, Sequence[Any]], None]] = []


_recorders = _Recorders()


@contextmanager
def record_calls(recorder: Callable[[Any, Sequence[Any]], None]) -> Iterator[None]:
    """``recorder(function, arguments)`` hears of each call of a compiled function that this thread makes inside."""
    _recorders.all.append(recorder)
    try:
        yield
    finally:
        _recorders.all.remove(recorder)


def compile_function(made: ir.Function, vectorize: bool = False) -> Callable[..., None]:
    """A function that is written down, see :func:`compile_module`."""
    function = _compiled(made, vectorize)

    def call(*arguments: Any) -> None:
        for recorder in _recorders.all:
            recorder(function, arguments)
        function(*arguments)

    return call


def _compiled(made: ir.Function, vectorize: bool) -> Callable[..., None]:
    kinds = tuple(ctypes.c_int64 if argument.type == INT else ctypes.c_void_p for argument in made.args)
    return compile_module(str(made.module), made.name, kinds, vectorize)


def compile_shared(made: ir.Function, vectorize: bool = False) -> Callable[..., None]:
    """The same, and other modules can declare a function of that name and call it."""
    function = _compiled(made, vectorize)
    binding.add_symbol(made.name, ctypes.cast(function, ctypes.c_void_p).value)  # type: ignore[arg-type] # of ctypes, too
    return function
