"""Files that are replaced in one step, locks and JSON."""

import os
import signal
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from pgkit.errors import PgkitError
from pgkit.system.files import WriteError, is_temporary, lock, read_json, remove_temporary_files, replace_file


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    replace_file(path, lambda file: file.write(b"old"))

    def fail(file: BinaryIO) -> None:
        file.write(b"new")
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


def test_a_refusal_of_the_system_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"^cannot write [^\n]*inside: [^\n]+$"):
        replace_file(tmp_path / "file" / "inside", lambda file: None)


def test_temporary_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".file.abc.tmp").write_text("left by a killed process")
    (tmp_path / "file").write_text("")
    assert is_temporary(tmp_path / ".file.abc.tmp")
    remove_temporary_files(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with lock(tmp_path / "x", "busy"), pytest.raises(PgkitError, match=r"^busy$"), lock(tmp_path / "x", "busy"):
            pass


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with lock(tmp_path / "x", "busy"):
        child = os.fork()
        if child == 0:  # it outlives the block below, and would keep the lock if it kept a copy of the file
            os.write(write_end, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(read_end, 1)
        with pytest.raises(PgkitError, match="busy"), lock(tmp_path / "x", "busy"):
            pass
    try:
        with lock(tmp_path / "x", "busy"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "^cannot read .*x.json: No such file"),
        (b"{", "x.json is damaged: "),
        (b"\xff", "x.json is damaged: "),
        (b"[1]", "x.json is damaged: it holds no JSON object$"),
    ],
)
def test_a_json_file_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(PgkitError, match=message) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)
