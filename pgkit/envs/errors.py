"""Environments that break: one line that says which, where and how, and the traceback for whoever wrote it."""

import traceback
from pathlib import Path

from pgkit.errors import PgkitError


class StepTimeout(BaseException):
    """Raised inside an environment that takes too long; no ``except Exception`` of its author's stops it."""


ENV_EXCEPTIONS = (Exception, SystemExit, StepTimeout)
"""What counts as a fault of an environment that raises it; Ctrl-C does not."""


class EnvError(PgkitError):
    """An environment raised, returned something of the wrong shape, took too long, or died with its process.

    Attributes:
        seed: the one that the sub-environment was last seeded with; None where it is not known.
        details: the traceback, in the process where it happened; empty where there is none.
    """

    exit_code = 1
    seed: int | None = None
    details: str = ""


def env_error(name: str, where: str, error: BaseException, seed: int | None = None) -> EnvError:
    """The fault of an environment that has just raised ``error``, or returned what raised it in pgkit's hands.

    Args:
        name: of the environment.
        where: such as ``"step() of sub-environment 3"``.
        error: being handled: its traceback is kept.
        seed: of the sub-environment.
    """
    seeded = "" if seed is None else f" (seeded with {seed})"
    what = "returned something else than it may" if _is_ours(error) else "failed"
    how = str(error) if isinstance(error, StepTimeout) else f"{what}: {type(error).__name__}: {error}"
    text = f"environment {name!r}: {where}{seeded} {how}"
    fault = EnvError(" ".join(text.split()))
    fault.seed, fault.details = seed, "".join(traceback.format_exception(error))
    return fault


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised in this package, not by anything that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == Path(__file__).parent
