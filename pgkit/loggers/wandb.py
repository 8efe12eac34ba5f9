"""Weights & Biases: a run for each member, below the run directory; offline where there is no API key.

The project is ``WANDB_PROJECT``, or pgkit. ``wandb sync RUN/wandb/offline-run-*`` sends what was written offline.
"""

import netrc
import shutil
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import wandb

from pgkit.config.load import to_table
from pgkit.loggers.logger import MemberRun, Row


class WandbRun:
    """A run of W&B.

    Args:
        run: as ``wandb.init`` returns it.
    """

    def __init__(self, run: Any) -> None:
        self.rows = int(run.step)  # what the server has of a resumed run; 0 offline
        self._run = run
        run.define_metric("env_steps")
        run.define_metric("*", step_metric="env_steps")

    def log(self, row: Row) -> None:
        """Log a row at its number: W&B drops steps that go back, and evaluations may arrive after later rows."""
        self._run.log({"env_steps": row.env_steps, **row.values}, step=row.number)

    def finish(self, status: str, final: Mapping[str, float]) -> None:
        """Write results to the summary, and end the run."""
        self._run.summary.update(dict(final))
        self._run.finish(exit_code=0 if status in ("finished", "stopped") else 1)


def open_run(member: MemberRun) -> WandbRun:
    """Open the run of a member. Offline it is written from the start again, so what is there of it is deleted."""
    shared = wandb.setup().settings
    offline = shared.mode == "offline" or (shared.mode in (None, "online") and not _has_key(shared))
    if offline:
        for earlier in member.directory.glob(f"wandb/offline-run-*-{member.id}"):
            shutil.rmtree(earlier)
    settings = wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True)
    return WandbRun(
        wandb.init(
            project=shared.project or "pgkit",
            group=member.config.name,
            name=member.name,
            id=member.id,
            config=to_table(member.config),
            dir=member.directory,
            mode="offline" if offline else None,
            resume="allow" if member.resumed and not offline else None,
            reinit="create_new",  # the runs of all members at a time
            settings=settings,
        )
    )


def _has_key(settings: Any) -> bool:
    """Whether there is an API key, from the environment or from ``wandb login``; W&B would ask for one otherwise."""
    try:
        saved = netrc.netrc().authenticators(urlsplit(settings.base_url).netloc)
    except (OSError, netrc.NetrcParseError):
        saved = None
    return bool(settings.api_key or saved)
