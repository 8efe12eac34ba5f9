"""Element-wise functions of tensors with the same bits on every processor."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from pgkit.system.cpu import use_compiled

_COMPILED = (torch.sqrt, torch.exp, torch.log, torch.cos)
"""What :func:`deterministic_map` has functions of pgkit's own for."""


def deterministic_map(function: Callable[..., Tensor], *vectors: Tensor) -> Tensor:
    """``function`` of the numbers ``(P,)`` of each member, the same bits at each place of any population.

    Libraries compute ``exp`` or ``cos`` with vector code where a register can be filled and with scalar code for the
    rest, which differ in the last bit. On CPU pgkit's own are taken, which can be captured; where it has none, each
    number fills registers of its own.
    """
    like = vectors[0]
    if function not in _COMPILED or not use_compiled(like.dtype, like.device):
        return function(*(vector.unsqueeze(1).expand(-1, 16).contiguous() for vector in vectors))[:, 0]
    own, results = like.contiguous(), torch.empty_like(like, memory_format=torch.contiguous_format)
    _kernel(function, like.dtype)(own.numel(), own.data_ptr(), results.data_ptr())
    return results


@lru_cache
def _kernel(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.compiler.elementwise import compile_elementwise  # LLVM is loaded where something is compiled

    return compile_elementwise(lambda x: [function(x)], [(dtype, 1)], [(dtype, 1)])
