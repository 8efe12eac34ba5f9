"""Errors of environments: one line that says which environment failed, where and how, with the author's traceback."""

import traceback
from pathlib import Path

from pgkit.errors import PgkitError, describe_exception


class StepTimeout(BaseException):
    """Raised inside an environment that exceeds its time limit (``env.timeout``).

    It is no ``Exception``, so that an ``except Exception`` in the environment's code does not swallow it.
    """


class MalformedData(ValueError):
    """An environment returned something else than its spaces and Gymnasium's interface say."""


class EnvError(PgkitError):
    """An environment raised, returned malformed data, exceeded its time limit, or died with its worker process.

    Attributes:
        seed: the seed that the sub-environment was last reset with; None if it is unknown.
        details: traceback from the process where the error occurred; empty if there is none.
    """

    exit_code = 1
    seed: int | None = None
    details: str = ""


class TooManyEnvs(PgkitError):
    """Some environments could be created, but not as many as are needed."""


def env_error(
    name: str, where: str, error: BaseException, seed: int | None = None, step: int | None = None
) -> EnvError:
    """Describe, in one line, an exception that was caught around a call of an environment.

    Catch ``BaseException`` there, because environments also raise what is no ``Exception``, but let Ctrl-C
    (``KeyboardInterrupt``) pass.

    Args:
        name: name of the environment.
        where: the call, such as ``"step() of sub-environment 3"``.
        error: the exception, with its traceback.
        seed: seed of the sub-environment's last reset.
        step: which step of its episode it was, from 1 on.

    Example:
        >>> try:
        ...     1 / 0
        ... except ZeroDivisionError as error:
        ...     print(env_error("Maze-v0", "step() of sub-environment 3", error, seed=7))
        environment 'Maze-v0': step() of sub-environment 3 (seed 7) raised ZeroDivisionError: division by zero
    """
    if isinstance(error, StepTimeout):
        problem = f"exceeded its time limit {error}".rstrip()
    elif _raised_by_pgkit(error):
        reason = str(error) if isinstance(error, MalformedData) else describe_exception(error)
        problem = f"returned malformed data{f' at step {step}' if step else ''}: {reason}"
    else:
        problem = f"raised {describe_exception(error)}"
    seed_note = "" if seed is None else f" (seed {seed})"
    message = f"environment {name!r}: {where}{seed_note} {problem}"
    described = EnvError(" ".join(message.split()))
    described.seed = seed
    described.details = "".join(traceback.format_exception(error))
    return described


def _raised_by_pgkit(error: BaseException) -> bool:
    """Whether code of this package raised it, which means that it could not use what the environment returned."""
    if isinstance(error, MalformedData):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and Path(frame.tb_frame.f_code.co_filename).parent == Path(__file__).parent
