"""The one way to load code generators: LLVM takes a tenth of a second to import, so nothing imports it before use."""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any


def lazy_kernel(path: str) -> Callable[..., Any]:
    """A function that compiles kernels, from a module that is imported when it is first called.

    What it returns is cached by its arguments, which must be hashable:

        _matmul = lazy_kernel("pgkit.kernels.codegen.matmul:compile_matmul")
        _matmul(torch.float32)(*arguments)  # compiled the first time, called every time

    Args:
        path: ``"package.module:function"``.
    """
    module, _, name = path.partition(":")

    @lru_cache(maxsize=256)
    def compile_once(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return compile_once
