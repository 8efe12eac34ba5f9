"""Element-wise functions of tensors with the same bits on every processor."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.system.cpu import use_compiled

_COMPILED_FUNCTIONS = (torch.sqrt, torch.exp, torch.log, torch.cos)
"""The functions that :func:`deterministic_map` compiles."""

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")


def deterministic_map(function: Callable[..., Tensor], *vectors: Tensor) -> Tensor:
    """``function(*vectors)`` for vectors ``(P,)``, with bits that do not depend on a number's position.

    PyTorch computes ``exp`` or ``cos`` by vector code as far as registers can be filled, and by scalar code for the
    rest; the two differ in the last bit, so a member's result would depend on how many members there are. On CPU the
    functions in ``_COMPILED_FUNCTIONS`` are compiled, which graphs can capture. For all others each number is repeated
    until it fills registers by itself.

    Raises:
        TypeError: from ``function``, if it does not take this many tensors.
    """
    first = vectors[0]
    if function not in _COMPILED_FUNCTIONS or not use_compiled(first.dtype, first.device):
        return function(*(vector.unsqueeze(1).expand(-1, 16).contiguous() for vector in vectors))[:, 0]
    x = first.contiguous()
    results = torch.empty_like(x)
    _kernel(function, x.dtype)(x.numel(), x.data_ptr(), results.data_ptr())
    return results


@lru_cache
def _kernel(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., None]:
    kernel: Callable[..., None] = _compile(lambda x: [function(x)], ((dtype, 1),), ((dtype, 1),))
    return kernel
