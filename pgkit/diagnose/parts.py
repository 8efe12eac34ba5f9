"""Finished measurements on disk, so that a diagnosis that was stopped goes on where it was."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgkit.diagnose.results import Measured, Quantity
from pgkit.system.files import write_text


class Parts:
    """The measurements of one diagnosis, a file each.

    Args:
        directory: where they are; it is created with the first one.
        identity: what the measurements depend on beside their names; those of another identity are measured again, and
            with None all are.
    """

    def __init__(self, directory: Path, identity: str | None) -> None:
        self._directory = directory
        self._identity = identity

    def load(self, name: str) -> Measured | None:
        """A measurement, if it is finished."""
        path = self._directory / f"{name}.json"
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # cut off
            return None
        fits = self._identity is not None and content.get("identity") == self._identity
        return _decode(content) if fits else None

    def save(self, name: str, measured: Measured) -> None:
        """Keep a finished measurement."""
        self._directory.mkdir(parents=True, exist_ok=True)
        content = {
            "identity": self._identity,
            "quantities": {key: tuple(quantity) for key, quantity in measured.quantities.items()},
            "tables": measured.tables,
            "env_steps": measured.env_steps,
            "seconds": measured.seconds,
            "not_done": measured.not_done,
        }
        write_text(self._directory / f"{name}.json", json.dumps(content))

    def remove(self) -> None:
        """Delete them: the diagnosis is complete."""
        shutil.rmtree(self._directory, ignore_errors=True)


def _decode(content: Mapping[str, Any]) -> Measured:
    quantities = {key: Quantity(*values) for key, values in content["quantities"].items()}
    not_done = [(what, why) for what, why in content["not_done"]]
    return Measured(quantities, dict(content["tables"]), content["env_steps"], content["seconds"], not_done)
