"""Files of tensors and texts in the format of safetensors, which other programs read, too."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.system.files import replace_file


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts in place of an older file.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "two.safetensors"
    >>> save_tensors(path, {"a": torch.zeros(2, 3), "b": torch.ones(1)}, {"about": "an example"})
    >>> load_tensors(path)[0]["a"].shape, read_metadata(path)
    (torch.Size([2, 3]), {'about': 'an example'})

    Raises:
        WriteError: the system refuses to write.
    """
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    replace_file(path, lambda file: file.write(content))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the texts of a file.

    Raises:
        PgkitError: it cannot be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 # no mapping
    except OSError as error:
        raise PgkitError(f"cannot read {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise PgkitError(f"{path} is no safetensors file, or it is damaged ({error})") from None


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts of a file; errors as :func:`load_tensors`."""
    return load_tensors(path)[1]
