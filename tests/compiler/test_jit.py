"""The cache of machine code on disk: it is used again, checked, and never in the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from llvmlite import binding

from pgkit.compiler import jit
from pgkit.compiler.elementwise import compile_elementwise


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache in a directory of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jit.compile_module.cache_clear()
    yield
    jit.compile_module.cache_clear()


def doubled() -> bool:
    """Compile a kernel anew, and say whether it computes what it should."""
    jit.compile_module.cache_clear()
    x = torch.arange(21.0)
    y = torch.zeros(21)
    kernel = compile_elementwise(lambda x: x * 2.0, [(x.dtype, 1)], [(y.dtype, 1)])
    kernel(len(x), x.data_ptr(), y.data_ptr())
    return torch.equal(y, 2 * x)


def count_optimizations(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows whenever a module is optimized."""
    optimizations: list[object] = []
    build = binding.create_pass_builder
    monkeypatch.setattr(
        binding, "create_pass_builder", lambda *arguments: optimizations.append(arguments) or build(*arguments)
    )
    return optimizations


def test_code_is_compiled_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizations = count_optimizations(monkeypatch)
    assert doubled()
    assert doubled()
    assert len(optimizations) == 1
    (file,) = (tmp_path / "pgkit").iterdir()
    monkeypatch.setattr(jit, "_read", lambda file: None)
    before = file.read_bytes()
    assert doubled()
    assert file.read_bytes() == before  # compiled again, it is the same


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000])
def test_a_damaged_file_is_compiled_again(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doubled()
    (file,) = (tmp_path / "pgkit").iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    optimizations = count_optimizations(monkeypatch)
    assert doubled()
    assert len(optimizations) == 1
    assert file.read_bytes() == whole


def test_without_a_directory_nothing_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert doubled()

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert doubled()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
