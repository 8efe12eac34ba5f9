"""What pgkit asks of the libraries that compute for it on CPU: one thread, and memory that is kept."""

import ctypes
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)


def settle() -> None:
    """One thread, and memory that is kept: what is freed serves the next tensor, without a visit to the system."""
    torch.set_num_threads(1)  # with more, sums are split differently for different P
    ThreadpoolController().limit(limits=1, user_api="blas")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's, which else returns large blocks, and then has each page of the next anew
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_TOP_PAD, 64 << 20)


def blas() -> str:
    """The library that multiplies matrices for NumPy, and the processor whose code it runs.

    SciPy's own copy, which may or may not be loaded, does not count.
    """
    found = ThreadpoolController().select(user_api="blas").info()
    found = [
        library for library in found if not any(part.startswith("scipy") for part in Path(library["filepath"]).parts)
    ]
    return ", ".join(sorted(f"{library['internal_api']} {library.get('architecture')}" for library in found))
