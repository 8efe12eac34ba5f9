"""Checkpoints: plain data and tensors, written in one step, verified when read.

A checkpoint is what ``torch.save`` writes, followed by one line: the format version, and the SHA-256 of everything
before it. ``torch.load(path, weights_only=True)`` reads it, too, but notices neither a flipped bit nor a newer format.
"""

import hashlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.system.files import replace_file, write_text

FORMAT = 3
"""Version of the format. It grows when other keys are written: runs of 1 and 2 can be evaluated, but not resumed."""

BEST = "best.pt"
"""Beside the checkpoints: the parameters of each member at its best evaluation during training."""


class CorruptCheckpoint(PgkitError):
    """A checkpoint differs from what was written: it is cut off, or bits have changed."""


_TRAILER = re.compile(rb"\npgkit-checkpoint (\d{4}) ([0-9a-f]{64})\n")
_TRAILER_SIZE = len("\npgkit-checkpoint 0001 \n") + 64
_NAME = re.compile(r"step-(\d+)\.pt")


def save(path: Path, tree: Any) -> None:
    """Write a tree of dicts, lists, tuples, tensors, numbers, strings and None, in place of an older file.

    Raises:
        TypeError: the tree holds something else, which ``weights_only=True`` would refuse to load.
        WriteError: the system refuses to write; the older file stays.
    """
    content = to_bytes(tree)
    replace_file(path, lambda file: file.write(content))


def to_bytes(tree: Any) -> bytes:
    """The content of a checkpoint file; errors as of :func:`save`."""
    buffer = io.BytesIO()
    torch.save(to_plain(tree, "tree"), buffer)
    payload = buffer.getvalue()
    return payload + f"\npgkit-checkpoint {FORMAT:04d} {hashlib.sha256(payload).hexdigest()}\n".encode()


def load(path: Path, device: torch.device | str | None = "cpu") -> Any:
    """Read a tree. No code from the file is run.

    Args:
        path: of the checkpoint.
        device: where to put its tensors; None puts them where they were.

    Raises:
        CorruptCheckpoint: the file is damaged.
        PgkitError: there is no such file, a newer pgkit wrote it, it holds more than plain data, or its tensors belong
            on a device that this machine does not have.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise PgkitError(f"cannot read checkpoint {path}: {error.strerror}") from None
    return from_bytes(content, str(path), device)


def from_bytes(content: bytes, path: str, device: torch.device | str | None = "cpu") -> Any:
    """Read the content of a checkpoint file; ``path`` is what messages call it, errors are those of :func:`load`."""
    trailer = _TRAILER.fullmatch(content[-_TRAILER_SIZE:])
    if trailer is None:
        raise CorruptCheckpoint(f"{path} is not a complete pgkit checkpoint: its last line is missing")
    version = int(trailer[1])
    digest = trailer[2].decode()
    if not 1 <= version <= FORMAT:
        newer = ": it needs a newer pgkit" if version > FORMAT else ""
        raise PgkitError(f"checkpoint {path} has format {version}, this pgkit reads 1 to {FORMAT}{newer}")
    payload = content[:-_TRAILER_SIZE]
    if hashlib.sha256(payload).hexdigest() != digest:
        raise CorruptCheckpoint(f"checkpoint {path} is damaged: its checksum does not match")
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise PgkitError(f"checkpoint {path} holds more than plain data and tensors, so it is not loaded") from None
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        raise PgkitError(f"checkpoint {path} cannot be read on this machine: {reason}") from None


def save_step(directory: Path, step: int, tree: Any, keep: int = 2) -> Path:
    """Write ``step-<step>.pt``, and its name into ``latest``; delete all others but the last ``keep - 1``.

    Raises:
        TypeError, WriteError: as :func:`save`; nothing is deleted then.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    path = directory / f"step-{step:08d}.pt"
    save(path, tree)
    write_text(directory / "latest", f"{path.name}\n")
    others = [other for other in checkpoints_in(directory) if other != path]
    for other in others[: max(0, len(others) - (keep - 1))]:
        other.unlink(missing_ok=True)
    return path


def latest(directory: Path) -> Path:
    """Path of the checkpoint that was written last; without the file ``latest``, of the one with most steps.

    Raises:
        PgkitError: there is no checkpoint.
    """
    pointer = directory / "latest"
    if pointer.is_file():
        path = directory / pointer.read_text(encoding="utf-8").strip()
        if _NAME.fullmatch(path.name) and path.is_file():
            return path
    paths = checkpoints_in(directory)
    if not paths:
        raise PgkitError(f"no checkpoint in {directory}")
    return paths[-1]


def load_latest_valid(directory: Path, device: torch.device | str | None = "cpu") -> tuple[Path, Any]:
    """Path and tree of the latest checkpoint; if it is damaged, of the last one before it that is not.

    Raises:
        CorruptCheckpoint: all are damaged.
        PgkitError: as :func:`latest` and :func:`load`.
    """
    path = latest(directory)
    earlier = [other for other in checkpoints_in(directory) if step_of(other) < step_of(path)]
    while True:
        try:
            return path, load(path, device)
        except CorruptCheckpoint:
            if not earlier:
                raise
            path = earlier.pop()


def load_resumable(run: Path) -> tuple[Path, dict[str, Any]]:
    """Path and tree of the checkpoint from which a run is resumed, its tensors on their devices.

    Args:
        run: the run directory.

    Raises:
        PgkitError: there is none, or an earlier pgkit wrote it.
    """
    directory = run / "checkpoints"
    if not any(directory.glob("step-*.pt")):
        raise PgkitError(f"{run} was stopped before its first checkpoint: pgkit train --overwrite starts it again")
    path, saved = load_latest_valid(directory, device=None)
    if "workers" not in saved:
        raise PgkitError(f"checkpoint {path} was written by an earlier pgkit: it can be evaluated, but not resumed")
    return path, saved


def delete_later(path: Path) -> None:
    """Make a checkpoint the latest of its directory, and delete those of later steps."""
    write_text(path.parent / "latest", f"{path.name}\n")
    for other in checkpoints_in(path.parent):
        if step_of(other) > step_of(path):
            other.unlink(missing_ok=True)


def load_latest(directory: Path, device: torch.device | str = "cpu") -> Any:
    """The tree of the checkpoint that was written last; errors as of :func:`latest` and :func:`load`."""
    return load(latest(directory), device)


def checkpoints_in(directory: Path) -> list[Path]:
    """Paths sorted by step, because file times follow a clock that may be set back."""
    return sorted((path for path in directory.glob("step-*.pt") if _NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def to_plain(node: Any, place: str) -> Any:
    """The tree with tensors that own their memory; ``torch.save`` would write all memory that a view looks into.

    Args:
        node: the tree.
        place: its name in error messages.

    Raises:
        TypeError: it holds something else than plain data and tensors.
    """
    if isinstance(node, Tensor):
        tensor = node.detach()
        return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
    if type(node) is dict:
        for key in node:
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r}; a checkpoint's keys are strings or integers")
        return {key: to_plain(value, f"{place}[{key!r}]") for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(to_plain(value, f"{place}[{index}]") for index, value in enumerate(node))
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise TypeError(f"{place} is a {type(node).__name__}; a checkpoint holds plain data and tensors")
