"""Checkpoints: what goes in comes out, and nothing else does."""

import io
import os
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.trees import assert_equal

from pgkit.errors import PgkitError
from pgkit.runs import checkpoint
from pgkit.system import files


class Pair(NamedTuple):
    """Not plain."""

    a: int
    b: int


def tree() -> dict[str, Any]:
    """One of everything that a checkpoint may hold."""
    return {
        "params": {"actor.0.weight": torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))},
        "state": [{"count": torch.tensor([1, 2]), 0: (1, 2.5, None)}, "adam", True],
        "mask": torch.tensor([True, False]),
        "double": torch.tensor([1 / 3, torch.nan, torch.inf], dtype=torch.float64),
        "empty": {},
    }


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.pt"
    checkpoint.save(path, tree())
    assert_equal(checkpoint.load(path), tree())
    assert os.listdir(path.parent) == ["x.pt"], "no temporary file stays"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~files._umask()


def test_plain_torch_reads_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "x.pt", tree())
    assert_equal(torch.load(tmp_path / "x.pt", weights_only=True), tree())


def test_gradients_and_shared_storages_stay_out(tmp_path: Path) -> None:
    population = torch.zeros(1000, 100, requires_grad=True)
    checkpoint.save(tmp_path / "x.pt", {"row": population[3:4]})
    row = checkpoint.load(tmp_path / "x.pt")["row"]
    assert row.shape == (1, 100)
    assert not row.requires_grad
    assert (tmp_path / "x.pt").stat().st_size < 10_000


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (Pair(1, 2), r"tree\['a'\]\[1\] is a Pair"),
        (np.float64(1.0), r"tree\['a'\]\[1\] is a float64"),
        (OrderedDict(), r"tree\['a'\]\[1\] is a OrderedDict"),
        ({1.5: 1}, r"tree\['a'\]\[1\] has the key 1.5"),
        (open, r"tree\['a'\]\[1\] is a builtin_function"),
    ],
)
def test_only_plain_data_is_saved(tmp_path: Path, leaf: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "x.pt", {"a": [0, leaf]})
    assert os.listdir(tmp_path) == []


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    checkpoint.save(tmp_path / "x.pt", {})
    buffer = io.BytesIO()
    torch.save({"a": Bomb()}, buffer)
    digest = checkpoint.hashlib.sha256(buffer.getvalue()).hexdigest()
    (tmp_path / "x.pt").write_bytes(buffer.getvalue() + f"\npgkit-checkpoint 0001 {digest}\n".encode())
    with pytest.raises(PgkitError, match=r"x\.pt holds more than plain data"):
        checkpoint.load(tmp_path / "x.pt")
    assert not (tmp_path / "exploded").exists()


# --- damage ---


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(PgkitError, match=r"^cannot read checkpoint .*x\.pt: No such file or directory$"):
        checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(PgkitError, match=r"^no checkpoint in "):
        checkpoint.load_latest(tmp_path / "nowhere")


@pytest.mark.parametrize("place", [0, 40, 500, -200, -90])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x.pt"
    checkpoint.save(path, tree())
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(PgkitError, match=r"x\.pt is (damaged|not a complete pgkit checkpoint)"):
        checkpoint.load(path)


@pytest.mark.parametrize("size", [0, 1, 50, 1000])
def test_half_a_file_is_noticed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.pt"
    checkpoint.save(path, tree())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(PgkitError, match=r"x\.pt is not a complete pgkit checkpoint"):
        checkpoint.load(path)


def saved_as_format(version: int, directory: Path) -> Path:
    path = directory / "x.pt"
    checkpoint.save(path, tree())
    content = path.read_bytes()
    assert content.count(b"pgkit-checkpoint 0003") == 1
    path.write_bytes(content.replace(b"pgkit-checkpoint 0003", b"pgkit-checkpoint %04d" % version))
    return path


@pytest.mark.parametrize(("version", "more"), [(4, ": it needs a newer pgkit"), (0, "")])
def test_a_format_that_cannot_be_read_is_named(tmp_path: Path, version: int, more: str) -> None:
    with pytest.raises(PgkitError, match=rf"has format {version}, this pgkit reads 1 to 3{more}$"):
        checkpoint.load(saved_as_format(version, tmp_path))


def test_the_first_format_is_read(tmp_path: Path) -> None:
    assert_equal(checkpoint.load(saved_as_format(1, tmp_path)), tree())


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pt"
    checkpoint.save(path, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PgkitError, match=r"^cannot write .*x\.pt: No space left on device$"):
        checkpoint.save(path, {"a": 2})
    assert os.listdir(tmp_path) == ["x.pt"]
    assert checkpoint.load(path) == {"a": 1}


def test_a_place_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(PgkitError, match=r"^cannot write [^\n]*x\.pt: [^\n]+$"):
        checkpoint.save(tmp_path / "taken" / "x.pt", {})


# --- a series ---


def test_the_last_ones_stay(tmp_path: Path) -> None:
    for step in (0, 500, 1000, 123_456_789):
        path = checkpoint.save_step(tmp_path, step, {"step": step}, keep=2)
        assert checkpoint.latest(tmp_path) == path
        assert checkpoint.load_latest(tmp_path) == {"step": step}
    assert sorted(os.listdir(tmp_path)) == ["latest", "step-00001000.pt", "step-123456789.pt"]
    checkpoint.save_step(tmp_path, 123_456_789, {"step": "again"}, keep=1)
    assert sorted(os.listdir(tmp_path)) == ["latest", "step-123456789.pt"]
    assert checkpoint.load_latest(tmp_path) == {"step": "again"}


def test_going_back_makes_the_older_step_the_latest(tmp_path: Path) -> None:
    for step in (100, 200, 300, 150):
        os.utime(checkpoint.save_step(tmp_path, step, {"step": step}, keep=2), ns=(step, step))
    assert checkpoint.load_latest(tmp_path) == {"step": 150}
    assert sorted(os.listdir(tmp_path)) == ["latest", "step-00000150.pt", "step-00000300.pt"]


@pytest.mark.parametrize("pointer", [None, "step-00000999.pt\n", "../secret", ""])
def test_a_lost_pointer_falls_back_to_the_last_written(tmp_path: Path, pointer: str | None) -> None:
    for step in (100, 200):
        os.utime(checkpoint.save_step(tmp_path, step, {"step": step}, keep=2), ns=(step, step))
    (tmp_path / "latest").unlink()
    if pointer is not None:
        (tmp_path / "latest").write_text(pointer)
    (tmp_path / "step-nonsense.pt").write_text("not one of ours")
    assert checkpoint.load_latest(tmp_path) == {"step": 200}


def test_keep_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep"):
        checkpoint.save_step(tmp_path, 0, {}, keep=0)
