"""A message that cannot be printed ends no run and loses no result."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.resumable_runs import CARTPOLE, config, population

import pgkit
from pgkit import cli
from pgkit.compare.execution.display import Display
from pgkit.system.output import TolerantStream, tolerant_output


class Bare:
    """A stream that has ``write`` only, as those of some notebooks and log collectors."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Deleted:
    """A stream whose window is gone: each call raises something of its own."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise RuntimeError("wrapped C++ object has been deleted")

    def flush(self) -> None:
        raise RuntimeError("wrapped C++ object has been deleted")

    def isatty(self) -> bool:
        return True


class Unreachable:
    """A stream of a proxy whose other end is gone: even to look at an attribute raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"the object behind {name!r} is gone")


class Hangup(io.TextIOWrapper):
    """A terminal that is closed."""

    def isatty(self) -> bool:
        return True


def closed() -> Any:
    stream = io.StringIO()
    stream.close()
    return stream


def broken_pipe() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def closed_terminal() -> Any:
    """A terminal whose window is closed refuses to be written to: input/output error."""
    window, terminal = os.openpty()
    os.close(window)
    return Hangup(os.fdopen(terminal, "wb", buffering=0), write_through=True)


STREAMS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "closed": closed,
    "a full device": lambda: open("/dev/full", "w", buffering=1),  # noqa: SIM115 # the fixture closes it
    "a broken pipe": broken_pipe,
    "a closed terminal": closed_terminal,
    "only write": Bare,
    "a deleted window": Deleted,
    "unreachable": Unreachable,
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
}


@pytest.fixture
def open_stream() -> Iterator[Callable[[str], Any]]:
    """Opens a stream by its name, and closes it after the test."""
    streams: list[Any] = []

    def open_one(name: str) -> Any:
        streams.append(STREAMS[name]())
        return streams[-1]

    yield open_one
    for stream in streams:
        with suppress(Exception):
            stream.close()


@pytest.mark.parametrize("name", STREAMS)
def test_training_does_not_need_standard_error(
    name: str, open_stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar is shown, a member diverges, which is said, and a run that is resumed has notes."""
    configs = population("actor-critic", CARTPOLE, steps=300)
    monkeypatch.setattr(sys, "stderr", open_stream(name))
    result = pgkit.train(configs, tmp_path / "run", progress=True)
    (tmp_path / "run" / "result.json").unlink()
    again = pgkit.resume(tmp_path / "run", progress=True)
    monkeypatch.undo()
    assert [row["failed"] for row in result.table] == [False, False, False, True]
    assert again is not None
    assert [row["return_mean"] for row in again.table] == [row["return_mean"] for row in result.table]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["members"][0] == result.table[0]


@pytest.mark.parametrize("name", STREAMS)
def test_the_progress_of_a_comparison_needs_no_terminal(
    name: str, open_stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_stream(name)
    monkeypatch.setattr(sys, "stderr", stream)
    with Display() as display:
        display.say("Größe: 3 µs → ok")
        display.say("and goes on")
    monkeypatch.undo()
    if name in ("only write", "ascii"):  # the others take nothing
        assert "3" in (stream.text if name == "only write" else stream.buffer.getvalue().decode())


def command(words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line in this process, with its own entry point."""
    monkeypatch.setattr(sys, "argv", ["pgkit", *words.split()])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    return int(leaving.value.code or 0)


SHORT = "train cartpole-actor-critic steps=200 envs_per_member=2 evaluation.points=1 evaluation.final_episodes=1"


@pytest.mark.parametrize("name", STREAMS)
def test_a_command_trains_without_any_output(
    name: str, open_stream: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", open_stream(name))
        patch.setattr(sys, "stderr", open_stream(name))
        code = command(f"{SHORT} name=größe --out {tmp_path / 'run'}", patch)
    assert code == 0
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize(("name", "reason"), [("a full device", "No space left on device"), ("none", "it is closed")])
def test_a_command_whose_output_is_lost_says_so(
    name: str, reason: str, open_stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", open_stream(name))
        patch.setattr(sys, "stderr", error)
        code = command("list agents", patch)
    assert code == 2
    assert error.getvalue() == f"error: cannot print to standard output: {reason}\n"


def test_what_the_encoding_lacks_becomes_a_question_mark() -> None:
    below = io.BytesIO()
    stream = TolerantStream(io.TextIOWrapper(below, encoding="ascii"))
    stream.write("3 µs\n")
    stream.flush()
    assert below.getvalue() == b"3 ?s\n"
    assert stream.problem is None
    with pytest.raises(TypeError, match="expected a text, got bytes"):
        stream.write(b"")  # type: ignore[arg-type] # libraries try this to see what kind of stream it is


def test_the_streams_of_a_process_come_back() -> None:
    before = sys.stdout, sys.stderr
    with tolerant_output():
        assert isinstance(sys.stdout, TolerantStream)
        assert isinstance(sys.stderr, TolerantStream)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.process
@pytest.mark.parametrize(
    "redirection",
    ["> /dev/full 2>&-", "| true"],
)
def test_a_shell_gets_the_exit_code_of_the_run(redirection: str, tmp_path: Path) -> None:
    words = f"{sys.executable} -m pgkit {SHORT} --out {tmp_path / 'run'}"
    script = f"set -o pipefail; {words} {redirection}"
    outcome = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (tmp_path / "run" / "result.json").is_file()
    assert (outcome.returncode, outcome.stdout) == (0, "")
    assert "Exception ignored" not in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_member_that_diverges_is_reported_on_an_ordinary_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Bare()
    monkeypatch.setattr(sys, "stderr", stream)
    pgkit.train([config(optimizer={"name": "sgd", "lr": 1e30, "max_grad_norm": 1e30}, steps=300)])
    assert "seed 0 failed" in stream.text
