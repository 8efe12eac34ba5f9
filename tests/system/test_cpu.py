"""What pgkit asks of the libraries below it."""

import ctypes
import subprocess
import sys

import pytest

TWENTY_MEGABYTES = """
import ctypes, sys, torch
from pgkit import machine

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
if "settle" in sys.argv:
    machine.settle()
before = mallinfo()
block = torch.ones(5 << 20)
print(mallinfo().hblks - before.hblks)
del block
print(mallinfo().fordblks - before.fordblks)
"""

THREADS = """
import torch
from pgkit import machine

machine.settle()
print(torch.get_num_threads())
"""


def printed(program: str, *arguments: str) -> list[int]:
    """The numbers that a program of its own prints."""
    command = [sys.executable, "-c", program, *arguments]
    return [int(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def test_one_thread() -> None:
    assert printed(THREADS) == [1]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc says what it keeps")
def test_memory_that_is_freed_is_kept() -> None:
    """The system hands 20 MiB out as a block of their own and gets them back, unless it is told not to."""
    alone, kept = printed(TWENTY_MEGABYTES), printed(TWENTY_MEGABYTES, "settle")
    assert alone[0] == 1
    assert alone[1] < 10 << 20
    assert kept[0] == 0
    assert kept[1] >= 20 << 20
