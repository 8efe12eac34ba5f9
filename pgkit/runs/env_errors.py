"""What is told of a run whose environment broke: whose environment it was, and the traceback, in its directory."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pgkit.config.schema import TrainConfig
from pgkit.envs.errors import EnvError
from pgkit.errors import PgkitError
from pgkit.seeding import stream_seed
from pgkit.system.files import write_text


def report(error: BaseException | None, configs: Sequence[TrainConfig], directory: Path | None) -> None:
    """Adds to a fault of an environment what only the run knows, and writes ``error.txt``; other errors pass."""
    if not isinstance(error, EnvError):
        return
    owner = _owner(error.seed, configs)
    if owner is not None:
        error.add_note(f"it is environment {owner[1]} of seed {owner[0]}")
    if directory is not None and error.details:
        with contextlib.suppress(PgkitError):  # the fault is what must be told, not that the disk is full too
            write_text(directory / "error.txt", f"{error}\n\n{error.details}")
            error.add_note(f"traceback in {directory / 'error.txt'}")


def _owner(env_seed: int | None, configs: Sequence[TrainConfig]) -> tuple[int, int] | None:
    """The seed of the member, and its own number there, of the training environment with this seed."""
    for config in configs:
        for n in range(config.envs_per_member):
            if stream_seed(config.seed, "env", n) == env_seed:
                return config.seed, n
    return None
