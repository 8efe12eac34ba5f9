"""What pgkit asks of the libraries below it, and the switch ``PGKIT_COMPILE``."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.command_line import pgkit

from pgkit.errors import PgkitError
from pgkit.system import cpu
from pgkit.system.cpu import available_cpus, compile_mode, use_compiled, use_graphs

TWENTY_MEGABYTES = """
import ctypes, sys, torch
from pgkit.system.cpu import configure_cpu

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
if "configure" in sys.argv:
    configure_cpu()
before = mallinfo()
block = torch.ones(5 << 20)
print(mallinfo().hblks - before.hblks)
del block
print(mallinfo().fordblks - before.fordblks)
"""

THREADS = """
import numpy
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from pgkit.system.cpu import configure_cpu

threadpool_limits(2, user_api="blas")
configure_cpu()
print(torch.get_num_threads())
print(*{library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
"""

CPU = torch.device("cpu")


def printed(program: str, *arguments: str) -> list[int]:
    """The numbers that a program prints in a process of its own."""
    command = [sys.executable, "-c", program, *arguments]
    return [int(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def test_one_thread() -> None:
    assert printed(THREADS) == [1, 1]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc reports the memory that it keeps")
def test_freed_memory_is_kept() -> None:
    """glibc maps 20 MiB as a block of their own and returns them to the system, unless it is configured otherwise."""
    default = printed(TWENTY_MEGABYTES)
    configured = printed(TWENTY_MEGABYTES, "configure")
    assert default[0] == 1
    assert default[1] < 10 << 20
    assert configured[0] == 0
    assert configured[1] >= 20 << 20


def test_available_cpus_with_and_without_affinity_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 3}, raising=False)
    assert available_cpus() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cpus() == 5


@pytest.mark.parametrize(
    ("mode", "kernels", "graphs"),
    [("off", False, False), ("kernels", True, False), ("graphs", True, True), (None, True, True)],
)
def test_pgkit_compile_says_what_is_compiled(
    mode: str | None, kernels: bool, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "compile_mode", compile_mode.__wrapped__)  # without its cache
    monkeypatch.delenv("PGKIT_COMPILE", raising=False)
    if mode is not None:
        monkeypatch.setenv("PGKIT_COMPILE", mode)
    assert use_compiled(torch.float32, CPU) == kernels
    assert use_compiled(torch.float64, CPU) == kernels
    assert use_graphs() == graphs


def test_kernels_are_for_floats_on_cpu() -> None:
    assert not use_compiled(torch.float16, CPU)
    assert not use_compiled(torch.float32, torch.device("cuda"))


def test_an_unknown_mode_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "compile_mode", compile_mode.__wrapped__)
    monkeypatch.setenv("PGKIT_COMPILE", "yes")
    with pytest.raises(PgkitError, match=r"^PGKIT_COMPILE must be off, kernels or graphs, got 'yes'$"):
        use_graphs()


def test_an_unknown_mode_ends_a_command_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "compile_mode", compile_mode.__wrapped__)
    monkeypatch.setenv("PGKIT_COMPILE", "yes")
    outcome = pgkit(f"train cartpole-actor-critic steps=1000 --out {tmp_path / 'run'}")
    assert outcome.exit_code == 2
    assert outcome.stderr == "error: PGKIT_COMPILE must be off, kernels or graphs, got 'yes'\n"
    assert not list(tmp_path.iterdir())
