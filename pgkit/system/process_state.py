"""What a process has set for all its computations: put aside while pgkit computes, and restored afterwards."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_blocks = 0  # blocks of isolated_process() that are open, in all threads
_before = ExitStack()  # restores what the first of them has put aside

MALLOC_TRIM_THRESHOLD = -1  # options of glibc's mallopt(3)
MALLOC_TOP_PAD = -2
MALLOC_MMAP_THRESHOLD = -3


@contextmanager
def isolated_process() -> Iterator[None]:
    """Compute inside the block as if the process had set nothing, and leave the process as it was.

    Put aside are the default dtype and device of PyTorch, ``no_grad`` and ``inference_mode``, autocast, and whether
    subnormal numbers are flushed to zero. Restored are these, the number of threads, and how memory is kept
    (:func:`pgkit.system.cpu.configure_cpu` changes both). Blocks may be nested and may run in several threads: what all
    threads share is restored when the last block ends.
    """
    with _shared_by_threads(), restored_settings(), ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if _flushes_subnormals():
            torch.set_flush_denormal(False)
        yield


@contextmanager
def restored_settings() -> Iterator[None]:
    """Run other people's code inside the block: what it sets for all computations of PyTorch ends with the block."""
    with ExitStack() as stack:
        stack.callback(torch.set_flush_denormal, _flushes_subnormals())
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        stack.callback(torch.set_num_threads, torch.get_num_threads())  # OpenMP has a number for each thread
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        yield


@cache
def blas_threads() -> ThreadpoolController:
    """The threads of the libraries behind NumPy's matrix products, which are looked for once: that takes 10 ms."""
    return ThreadpoolController().select(user_api="blas")


def set_malloc(option: int, value: int) -> None:
    """Set an option of glibc's ``malloc``; other C libraries have none."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(option, value)


@contextmanager
def _shared_by_threads() -> Iterator[None]:
    """Put aside what all threads share, when the first block begins, and restore it when the last one ends."""
    global _blocks
    with _lock:
        if _blocks == 0:
            _before.callback(_restore_malloc)
            _before.enter_context(blas_threads().limit(limits=None))  # limits nothing, and restores what was
            _before.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                _before.close()


def _restore_malloc() -> None:
    """Let ``malloc`` return memory to the system again.

    Its options can be set, but not read. These values are those at which it arrives by itself in a process that has
    freed a large block.
    """
    set_malloc(MALLOC_TRIM_THRESHOLD, 64 << 20)
    set_malloc(MALLOC_TOP_PAD, 128 << 10)


def _flushes_subnormals() -> bool:
    """Whether this thread computes 0 in place of the smallest numbers."""
    smallest = sys.float_info.min
    return smallest / 2 == 0
