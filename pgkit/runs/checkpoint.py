"""Checkpoints: plain data and tensors, written at once, verified when read.

A checkpoint is what ``torch.save`` writes, followed by one line: format version and SHA-256 of everything before it.
``torch.load(path, weights_only=True)`` alone reads it too, but notices neither a flipped bit nor a newer format.
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
from pgkit.system.files import replace_file
from pgkit.system.files import write_text as write_text

FORMAT = 2
"""Version of the format; it grows when an older pgkit could not read what is written. 2: a run can be resumed."""


BEST = "best.pt"
"""Beside the checkpoints: each member's parameters at its best evaluation while training."""


class CorruptCheckpoint(PgkitError):
    """A checkpoint that is not what was written."""


_TRAILER = re.compile(rb"\npgkit-checkpoint (\d{4}) ([0-9a-f]{64})\n")
_TRAILER_SIZE = len("\npgkit-checkpoint 0001 \n") + 64
_NAME = re.compile(r"step-(\d+)\.pt")


def save(path: Path, tree: Any) -> None:
    """Write a tree of dicts, lists, tuples, tensors, numbers, strings and None; the old file stays until it is done.

    Raises:
        TypeError: something else is in the tree, which ``weights_only=True`` would refuse to load.
        PgkitError: the system refuses to write.
    """
    buffer = io.BytesIO()
    torch.save(plain(tree, "tree"), buffer)
    payload = buffer.getvalue()
    trailer = f"\npgkit-checkpoint {FORMAT:04d} {hashlib.sha256(payload).hexdigest()}\n"
    replace_file(path, lambda file: (file.write(payload), file.write(trailer.encode())))


def load(path: Path, device: torch.device | str | None = "cpu") -> Any:
    """Read a tree back, its tensors on ``device``, or where they were (None); no code from the file is run.

    Raises:
        PgkitError: there is no such file, it is :class:`CorruptCheckpoint`, a newer pgkit wrote it, it holds more
            than plain data, or tensors of a device that is not here.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise PgkitError(f"cannot read checkpoint {path}: {error.strerror}") from None
    trailer = _TRAILER.fullmatch(content[-_TRAILER_SIZE:])
    if trailer is None:
        raise CorruptCheckpoint(f"{path} is not a whole pgkit checkpoint: its last line is missing")
    version, digest = int(trailer[1]), trailer[2].decode()
    if not 1 <= version <= FORMAT:
        newer = ": it needs a newer pgkit" if version > FORMAT else ""
        raise PgkitError(f"checkpoint {path} has format {version}, this pgkit reads 1 to {FORMAT}{newer}")
    payload = content[:-_TRAILER_SIZE]
    if hashlib.sha256(payload).hexdigest() != digest:
        raise CorruptCheckpoint(f"checkpoint {path} is damaged: its checksum does not match")
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise PgkitError(f"checkpoint {path} holds more than plain data and tensors, and is not loaded") from None
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        raise PgkitError(f"checkpoint {path} cannot be read here: {reason}") from None


def save_step(directory: Path, step: int, tree: Any, keep: int = 2) -> Path:
    """Write ``step-<step>.pt`` and its name into ``latest``; of the others, the ``keep - 1`` furthest ones stay.

    Raises:
        TypeError, PgkitError: as :func:`save`; then nothing older is deleted.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    path = directory / f"step-{step:08d}.pt"
    save(path, tree)
    write_text(directory / "latest", f"{path.name}\n")
    others = [other for other in _checkpoints(directory) if other != path]
    for other in others[: max(0, len(others) - (keep - 1))]:
        other.unlink(missing_ok=True)
    return path


def latest(directory: Path) -> Path:
    """The checkpoint that was written last, or the furthest one if nothing says which that was.

    Raises:
        PgkitError: there is none.
    """
    pointer = directory / "latest"
    if pointer.is_file():
        path = directory / pointer.read_text(encoding="utf-8").strip()
        if _NAME.fullmatch(path.name) and path.is_file():
            return path
    found = _checkpoints(directory)
    if not found:
        raise PgkitError(f"no checkpoint in {directory}")
    return found[-1]


def load_latest_valid(directory: Path, device: torch.device | str | None = "cpu") -> tuple[Path, Any]:
    """The last whole checkpoint, and its tree: where the latest is damaged, the furthest one before it.

    Raises:
        PgkitError: as :func:`latest` and :func:`load`; Damaged if none is whole.
    """
    path = latest(directory)
    earlier = [other for other in _checkpoints(directory) if _step(other) < _step(path)]
    while True:
        try:
            return path, load(path, device)
        except CorruptCheckpoint:
            if not earlier:
                raise
            path = earlier.pop()


def forget_after(path: Path) -> None:
    """Make a checkpoint the latest of its directory: those of later steps go."""
    write_text(path.parent / "latest", f"{path.name}\n")
    for other in _checkpoints(path.parent):
        if _step(other) > _step(path):
            other.unlink(missing_ok=True)


def load_latest(directory: Path, device: torch.device | str = "cpu") -> Any:
    """The tree of the checkpoint that was written last; errors as :func:`latest` and :func:`load`."""
    return load(latest(directory), device)


def _checkpoints(directory: Path) -> list[Path]:
    """By step: file times follow a clock, which may be set."""
    return sorted((path for path in directory.glob("step-*.pt") if _NAME.fullmatch(path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def plain(node: Any, place: str) -> Any:
    """The tree with tensors detached, and cut out of larger storages (``torch.save`` would write those whole)."""
    if isinstance(node, Tensor):
        tensor = node.detach()
        return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
    if type(node) is dict:
        for key in node:
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r}; a checkpoint's keys are strings or integers")
        return {key: plain(value, f"{place}[{key!r}]") for key, value in node.items()}
    if type(node) in (list, tuple):
        return type(node)(plain(value, f"{place}[{index}]") for index, value in enumerate(node))
    if node is None or type(node) in (bool, int, float, str):
        return node
    raise TypeError(f"{place} is a {type(node).__name__}; a checkpoint holds plain data and tensors")
