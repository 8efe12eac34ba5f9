"""Files of named tensors in the format of `safetensors <https://github.com/huggingface/safetensors>`_.

Eight bytes with the length of a header (little-endian), the header (JSON: dtype, shape and bytes of each tensor, and
``__metadata__``, text by text), then the numbers of all tensors. Other packages read these files, too.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.system.files import replace_file

DTYPES = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8"), "U8": np.dtype("u1")}
"""The types of numbers that are written and read, by the format's names."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<Q")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts in place of an older file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.safetensors"
    >>> save_tensors(path, {"a": torch.zeros(2, 3), "b": torch.ones(1)}, {"about": "an example"})
    >>> load_tensors(path)[0]["a"].shape, read_metadata(path)
    (torch.Size([2, 3]), {'about': 'an example'})

    Raises:
        WriteError: the system refuses to write.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    chunks = []
    end = 0
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().numpy()
        dtype = array.dtype.newbyteorder("<")
        chunk = array.astype(dtype).tobytes()
        header[name] = {"dtype": _NAMES[dtype], "shape": list(array.shape), "data_offsets": [end, end + len(chunk)]}
        end += len(chunk)
        chunks.append(chunk)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of their size
    replace_file(path, lambda file: file.write(b"".join([_LENGTH.pack(len(text)), text, *chunks])))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the texts of a file.

    Raises:
        PgkitError: it cannot be read, is damaged, or holds other types of numbers.
    """
    header, content = _read(path)
    metadata = header.pop("__metadata__", {})
    try:
        return {name: _tensor(content, **entry) for name, entry in header.items()}, dict(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise PgkitError(f"{path} is damaged, or holds tensors of other types than {', '.join(DTYPES)}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts of a file; errors as :func:`load_tensors`."""
    return dict(_read(path)[0].get("__metadata__", {}))


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header, and the bytes after it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PgkitError(f"cannot read {path}: {error.strerror}") from None
    try:
        (length,) = _LENGTH.unpack_from(content)
        header = json.loads(content[_LENGTH.size : _LENGTH.size + length])
    except (ValueError, struct.error):
        header = None
    if not isinstance(header, dict):
        raise PgkitError(f"{path} is no safetensors file, or it is damaged")
    return header, content[_LENGTH.size + length :]


def _tensor(content: bytes, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    begin, end = data_offsets
    array = np.frombuffer(content[begin:end], DTYPES[dtype]).reshape(shape)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
