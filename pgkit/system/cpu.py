"""CPU settings: which cores there are, how memory is kept, and what is compiled (``PGKIT_COMPILE``)."""

import ctypes
import os
from enum import IntEnum

import torch

from pgkit.errors import PgkitError

_TRIM_THRESHOLD = -1  # options of glibc's mallopt(3)
_TOP_PAD = -2
_MMAP_THRESHOLD = -3


class CompileMode(IntEnum):
    """How much of pgkit's computation on CPU is compiled; each level includes the ones before it."""

    OFF = 0
    """Everything runs on PyTorch tensors, as on GPUs."""
    KERNELS = 1
    """Kernels are compiled: matrix products, network passes, scans, optimizers, rollouts."""
    GRAPHS = 2
    """Whole updates are captured, too, and repeated without Python."""


def compile_mode() -> CompileMode:
    """What the environment variable ``PGKIT_COMPILE`` says: ``off``, ``kernels`` or ``graphs``, the default.

    It is read at every call, so that a test or a debugger can switch at any time. Results with ``off`` differ from the
    others by rounding.

    Raises:
        PgkitError: it says something else.
    """
    name = os.environ.get("PGKIT_COMPILE", "graphs")
    try:
        return _MODES[name]
    except KeyError:
        raise PgkitError(f"PGKIT_COMPILE must be off, kernels or graphs, got {name!r}") from None


_MODES = {mode.name.lower(): mode for mode in CompileMode}


def use_compiled(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether pgkit's compiled kernels compute with such tensors; otherwise PyTorch does."""
    on_cpu = device.type == "cpu" and dtype in (torch.float32, torch.float64)
    return on_cpu and compile_mode() >= CompileMode.KERNELS


def use_graphs() -> bool:
    """Whether updates may be captured and repeated without Python."""
    return compile_mode() == CompileMode.GRAPHS


def available_cpus() -> int:
    """The number of CPUs that this process may use: those of its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_cpu() -> None:
    """Compute on one thread, and let the process keep the memory that it frees.

    More threads split sums differently for different P, which changes bits. glibc returns large blocks to the system
    and maps each page of the next block anew, which takes longer than most kernels.

    Raises:
        PgkitError: ``PGKIT_COMPILE`` has an unknown value.
    """
    compile_mode()
    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest value that it accepts
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_TOP_PAD, 64 << 20)
