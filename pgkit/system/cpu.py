"""Computing on CPU: one thread, memory that is kept, and where loops of pgkit's own take the place of libraries."""

import ctypes
from functools import cache

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)


@cache
def use_compiled(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether pgkit's own loops, compiled by LLVM, compute there what they can, and not PyTorch."""
    return device.type == "cpu" and dtype in (torch.float32, torch.float64)


def settle() -> None:
    """One thread, and memory that is kept: what is freed serves the next tensor, without a visit to the system."""
    torch.set_num_threads(1)  # with more, sums are split differently for different P
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's, which else returns large blocks, and then has each page of the next anew
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_TOP_PAD, 64 << 20)
