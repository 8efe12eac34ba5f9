"""The callbacks of a run: its loggers, those of its configuration, and those that somebody passes."""

from collections.abc import Mapping, Sequence
from typing import Any

from pgkit.callbacks.protocol import check_callbacks, moments_of, name_of
from pgkit.config.registry import DIAGNOSE, callback_class
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, describe_exception
from pgkit.loggers import make_logger


def make_callbacks(config: TrainConfig, more: Sequence[object] = ()) -> list[object]:
    """Make the loggers and callbacks that a configuration names, followed by others.

    Args:
        config: of any member of the run.
        more: objects with methods of :class:`pgkit.callbacks.Callback`.

    Raises:
        PgkitError: one cannot be made, is no callback, or is never called.
    """
    tables = [*(config.callbacks or ())]
    if config.diagnose is not None:
        _check_diagnose(config)
        tables.append({"name": DIAGNOSE, **config.diagnose.model_dump()})
    loggers = [make_logger(name) for name in config.logger if name != "tensorboard"]
    callbacks = check_callbacks([*loggers, *map(_make, tables), *check_callbacks(more)])
    for callback in callbacks:
        if config.evaluation.points == 0 and moments_of(callback) == {"on_evaluation"}:
            why = "evaluation.points = 0 switches evaluations while training off"
            raise PgkitError(f"callback {name_of(callback)} has no effect: {why}")
    return callbacks


def _check_diagnose(config: TrainConfig) -> None:
    """Refuse measurements while training that would never be made, or could not be."""
    if config.evaluation.points == 0:
        why = "it is measured at evaluations, and evaluation.points = 0 switches them off while training"
        raise PgkitError(f"diagnose.every has no effect: {why}")
    if "tensorboard" not in config.logger:
        raise PgkitError("diagnose.every has no effect: it is shown in TensorBoard, which is not in logger")
    if config.policy.network == "gru":
        raise PgkitError("diagnose: the policy is recurrent, and a diagnosis looks at single states")


def _make(table: Mapping[str, Any]) -> object:
    """Make one callback of its table in a configuration."""
    arguments = {key: value for key, value in table.items() if key != "name"}
    try:
        return callback_class(table["name"])(**arguments)
    except PgkitError as error:
        raise PgkitError(f"callback {table['name']!r}: {error}") from None
    except Exception as error:  # a user's class, which may raise anything
        raise PgkitError(f"callback {table['name']!r} cannot be made: {describe_exception(error)}") from error
