"""CPU settings: which cores there are, how memory is kept, and what is compiled (``PGKIT_COMPILE``)."""

import os
from functools import cache

import torch

from pgkit.errors import PgkitError
from pgkit.system.process_state import (
    MALLOC_MMAP_THRESHOLD,
    MALLOC_TOP_PAD,
    MALLOC_TRIM_THRESHOLD,
    blas_threads,
    set_malloc,
)

COMPILE_MODES = ("off", "kernels", "graphs")
"""How much of the computation on CPU is compiled.

off: nothing; everything runs on PyTorch tensors, as on GPUs.
kernels: matrix products, passes through networks, scans, optimizers, rollouts.
graphs: these, and whole updates are captured and repeated without Python.
"""


@cache
def compile_mode() -> str:
    """One of ``COMPILE_MODES``: the environment variable ``PGKIT_COMPILE``, by default ``graphs``.

    It is read once, because every kernel asks. Results with ``off`` differ from the others by rounding.

    Raises:
        PgkitError: the variable has another value.
    """
    mode = os.environ.get("PGKIT_COMPILE", "graphs")
    if mode not in COMPILE_MODES:
        raise PgkitError(f"PGKIT_COMPILE must be off, kernels or graphs, got {mode!r}")
    return mode


def use_compiled(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether pgkit's compiled kernels compute with such tensors; otherwise PyTorch does."""
    return _can_compile(dtype, device) and compile_mode() != "off" and not is_traced()


def is_traced() -> bool:
    """Whether PyTorch records its operations (``torch.export``, ``torch.compile``): it cannot see compiled kernels."""
    return torch.compiler.is_compiling()


@cache
def _can_compile(dtype: torch.dtype, device: torch.device) -> bool:
    return device.type == "cpu" and dtype in (torch.float32, torch.float64)


def use_graphs() -> bool:
    """Whether updates may be captured and repeated without Python."""
    return compile_mode() == "graphs"


def available_cpus() -> int:
    """The number of CPUs that this process may use: those of its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_cpu() -> None:
    """Compute on one thread, and let the process keep the memory that it frees.

    More threads split sums differently for different P, which changes bits, and those of NumPy's matrix products spin
    while they wait: where other processes use the same cores, small products take 100 times as long. glibc returns
    large blocks to the system and maps each page of the next block anew, which takes longer than most kernels. The end
    of a block of :func:`pgkit.system.process_state.isolated_process` undoes all of this.

    Raises:
        PgkitError: ``PGKIT_COMPILE`` has an unknown value.
    """
    compile_mode()
    torch.set_num_threads(1)
    blas_threads().limit(limits=1)
    set_malloc(MALLOC_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc accepts
    set_malloc(MALLOC_TRIM_THRESHOLD, (1 << 31) - 1)
    set_malloc(MALLOC_TOP_PAD, 64 << 20)
