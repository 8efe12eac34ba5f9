"""Compiled code that is kept on disk: used again, never trusted, never in the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from llvmlite import binding

from pgkit.compiler import jit
from pgkit.compiler.elementwise import compile_elementwise


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, and a directory of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jit.compile_module.cache_clear()
    yield
    jit.compile_module.cache_clear()


def doubled() -> bool:
    """Compile something, and say whether it is right."""
    jit.compile_module.cache_clear()
    x, y = torch.arange(21.0), torch.zeros(21)
    kernel = compile_elementwise(lambda x: [x * 2.0], [(x.dtype, 1)], [(y.dtype, 1)])
    kernel(len(x), x.data_ptr(), y.data_ptr())
    return torch.equal(y, 2 * x)


def passes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows whenever something is optimised anew."""
    made, build = list[object](), binding.create_pass_builder
    monkeypatch.setattr(binding, "create_pass_builder", lambda *own: made.append(own) or build(*own))
    return made


def test_code_is_compiled_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = passes(monkeypatch)
    assert doubled()
    assert doubled()
    assert len(made) == 1
    (file,) = (tmp_path / "pgkit").iterdir()
    monkeypatch.setattr(jit, "_read", lambda file: None)
    before = file.read_bytes()
    assert doubled()
    assert file.read_bytes() == before  # compiled again, it is the same


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000])
def test_a_file_that_is_not_whole_is_compiled_again(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doubled()
    (file,) = (tmp_path / "pgkit").iterdir()
    whole = file.read_bytes()
    file.write_bytes(content)
    made = passes(monkeypatch)
    assert doubled()
    assert len(made) == 1
    assert file.read_bytes() == whole


def test_where_nothing_can_be_kept_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert doubled()

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert doubled()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
