"""The torch device of a configuration."""

import torch

from pgkit.errors import PgkitError


def resolve_device(device: str) -> torch.device:
    """Return the torch device of a ``device`` setting: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``.

    Raises:
        PgkitError: there is no CUDA device, or none of that number.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and (resolved.index or 0) >= count:
        devices = f"{count} CUDA device(s) found" if count else "no CUDA device found"
        raise PgkitError(
            f"device {device!r} is not available: {devices} (allowed here: cpu, auto{', cuda' * bool(count)})"
        )
    return resolved
