"""Report an environment or a callback that failed: its traceback in the run directory, and an environment's member."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pgkit.callbacks.protocol import CallbackError
from pgkit.config.schema import TrainConfig
from pgkit.envs.errors import EnvError
from pgkit.errors import PgkitError
from pgkit.seeding import stream_seed
from pgkit.system.files import write_text


def report(error: BaseException | None, configs: Sequence[TrainConfig], directory: Path | None) -> None:
    """Add the member that an environment belongs to as a note to its error, and write ``error.txt``.

    Other errors are ignored.
    """
    if not isinstance(error, EnvError | CallbackError):
        return
    member = _member_of(error.seed, configs) if isinstance(error, EnvError) else None
    if member is not None:
        error.add_note(f"it is environment {member[1]} of seed {member[0]}")
    if directory is not None and error.details:
        with contextlib.suppress(PgkitError):  # the user needs to see the environment's error, even if the disk is full
            write_text(directory / "error.txt", f"{error}\n\n{error.details}")
            error.add_note(f"traceback in {directory / 'error.txt'}")


def _member_of(env_seed: int | None, configs: Sequence[TrainConfig]) -> tuple[int, int] | None:
    """For the training environment with this seed: the seed of its member, and its number there."""
    for config in configs:
        for n in range(config.envs_per_member):
            if stream_seed(config.seed, "env", n) == env_seed:
                return config.seed, n
    return None
