"""What is compiled in a test."""

import pytest

from pgkit.system import cpu


def set_compile_mode(patch: pytest.MonkeyPatch, mode: str) -> None:
    """Compile as with ``PGKIT_COMPILE=mode``, which a process reads once."""
    assert mode in cpu.COMPILE_MODES
    patch.setattr(cpu, "compile_mode", lambda: mode)
