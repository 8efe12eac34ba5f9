"""Compile LLVM modules, and cache their machine code on disk."""

import ctypes
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding, ir

from pgkit.compiler.ir import INT
from pgkit.compiler.recorder import recorders
from pgkit.system.files import WriteError, replace_file

_DIGEST_BYTES = hashlib.sha256().digest_size


def compile_function(function: ir.Function, vectorize: bool = False) -> Callable[..., None]:
    """Compile a function whose code is complete; calls of it are recorded, see :mod:`pgkit.compiler.recorder`.

    Args:
        function: its module is compiled with it.
        vectorize: let LLVM unroll loops and vectorize them; of no use for loops over vectors.

    Returns:
        A function of integers and addresses, which checks nothing.
    """
    compiled = _compile(function, vectorize)

    def call(*arguments: Any) -> None:
        for recorder in recorders.active:
            recorder(compiled, arguments)
        compiled(*arguments)

    return call


def compile_shared(function: ir.Function, vectorize: bool = False) -> Callable[..., None]:
    """Compile a function that other modules can call once they declare it by the same name; it is not recorded."""
    compiled = _compile(function, vectorize)
    binding.add_symbol(function.name, ctypes.cast(compiled, ctypes.c_void_p).value)  # type: ignore[arg-type] # not None
    return compiled


def _compile(function: ir.Function, vectorize: bool) -> Callable[..., None]:
    types = tuple(ctypes.c_int64 if argument.type == INT else ctypes.c_void_p for argument in function.args)
    return compile_module(str(function.module), function.name, types, vectorize)


@lru_cache
def compile_module(module: str, name: str, types: tuple[type[Any], ...], vectorize: bool) -> Callable[..., None]:
    """Compile a module, or take its machine code from the cache on disk.

    Args:
        module: its text; the same text is compiled once.
        name: of the function that is returned.
        types: of its parameters, in terms of ctypes.
        vectorize: see :func:`compile_function`.
    """
    parsed = binding.parse_assembly(module)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    machine = binding.Target.from_default_triple().create_target_machine(*processor, opt=3)
    file = _cache_file([llvmlite.__version__, *processor, str(vectorize), module])
    code = _read(file)
    if code is None:
        options = binding.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = options.loop_interleaving = options.loop_unrolling = vectorize
        passes = binding.create_pass_builder(machine, options)
        passes.getModulePassManager().run(parsed, passes)
    engine = binding.create_mcjit_compiler(parsed, machine)
    # The engine asks the second function for machine code before it generates any, and gives what it generated to the
    # first one. With cached code the module was not optimized above, because its text is not looked at again.
    engine.set_object_cache(lambda module, generated: _write(file, generated), lambda module: code)
    engine.finalize_object()
    compiled = ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(name))
    compiled.engine = engine  # type: ignore[attr-defined] # it owns the code, so it has to live as long as the function
    return compiled


def _cache_file(parts: Sequence[str]) -> Path | None:
    """Where machine code is cached, by everything that it depends on; None without a cache."""
    directory = cache_directory()
    return None if directory is None else directory / hashlib.sha256("\n".join(parts).encode()).hexdigest()


def cache_directory() -> Path | None:
    """The folder where machine code is cached, which may not exist yet; None for a user without a home directory."""
    with suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgkit"
    return None


def _read(file: Path | None) -> bytes | None:
    """The machine code that :func:`_write` wrote; None if there is no file or its checksum is wrong."""
    with suppress(OSError):
        content = b"" if file is None else file.read_bytes()
        code = content[_DIGEST_BYTES:]
        return code if hashlib.sha256(code).digest() == content[:_DIGEST_BYTES] else None
    return None


def _write(file: Path | None, code: bytes) -> None:
    """Cache machine code behind its checksum; a cache that cannot be written is no error."""
    if file is not None:
        with suppress(WriteError):
            replace_file(file, lambda out: out.write(hashlib.sha256(code).digest() + code))
