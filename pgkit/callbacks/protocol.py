"""What a callback is, and how it stops a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pgkit.callbacks.views import EvaluationView, LogView, RolloutView, RunEnd, RunStart, UpdateView
from pgkit.errors import PgkitError, format_value, unknown_name


@dataclass(frozen=True)
class Stop:
    """Returned by a callback: training ends, and the run has its result; ``pgkit resume`` continues it.

    >>> from pgkit.callbacks import Stop
    >>> Stop("the return has reached 475", member=3)
    Stop(reason='the return has reached 475', member=3)

    Attributes:
        reason: a few words for the user, and for ``result.json``.
        member: stop only this member, whose neighbours go on; None stops all.
    """

    reason: str
    member: int | None = None


class Callback(Protocol):
    """Any object with at least one of these methods; those that it does not define cost nothing.

    Attributes:
        every: how many updates make one call of ``on_rollout`` or ``on_update``; 1 if it is not defined.
    """

    every: int

    def on_start(self, start: RunStart) -> Stop | None:
        """Before the first update."""

    def on_rollout(self, rollout: RolloutView) -> Stop | None:
        """Members have acted, and have not learnt from it yet."""

    def on_update(self, update: UpdateView) -> Stop | None:
        """Members have learnt from a rollout."""

    def on_log(self, row: LogView) -> Stop | None:
        """Something is logged, be it of updates or of an evaluation."""

    def on_evaluation(self, evaluation: EvaluationView) -> Stop | None:
        """A member was evaluated, right after the update in which that was due."""

    def on_end(self, end: RunEnd) -> None:
        """After everything else, also if the run has failed."""


MOMENTS = ("on_start", "on_rollout", "on_update", "on_log", "on_evaluation", "on_end")
"""The methods of a callback, in the order in which they may be called."""

PER_UPDATE = frozenset(["on_rollout", "on_update"])
"""The moments for which updates run in Python."""

OTHER_WORDS = {
    "_on_step": "on_update",
    "_on_rollout_end": "on_rollout",
    "_on_training_start": "on_start",
    "_on_training_end": "on_end",
    "on_step": "on_update",
    "on_rollout_end": "on_rollout",
    "on_fit_start": "on_start",
    "on_fit_end": "on_end",
    "on_train_start": "on_start",
    "on_train_end": "on_end",
    "on_training_start": "on_start",
    "on_training_end": "on_end",
    "on_train_batch_end": "on_update",
    "on_validation_end": "on_evaluation",
    "on_exception": "on_end",
}
"""Moments in Stable-Baselines3 and Lightning, and what they are here."""


class CallbackError(PgkitError):
    """A callback raised, or returned something else than ``None`` and :class:`Stop`.

    Attributes:
        details: the traceback; empty if nothing was raised.
    """

    exit_code = 1
    details: str = ""


class Watch(NamedTuple):
    """What the workers of a run have to send for its callbacks.

    Attributes:
        moments: the methods that any callback defines.
        strides: how many updates lie between two calls of ``on_rollout`` or ``on_update``, of each callback with one.
    """

    moments: frozenset[str] = frozenset()
    strides: tuple[int, ...] = ()

    def unwatched(self, updates: int) -> int | None:
        """How many updates after this many may pass before one that is watched; None if none ever is."""
        return min((stride - 1 - updates % stride for stride in self.strides), default=None)


NOTHING = Watch()
"""Without callbacks."""


def watch_of(callbacks: Sequence[object]) -> Watch:
    """What these callbacks want to see."""
    strides = {stride_of(callback) for callback in callbacks if PER_UPDATE & moments_of(callback)}
    return Watch(frozenset().union(*map(moments_of, callbacks)), tuple(sorted(strides)))


def moments_of(callback: object) -> frozenset[str]:
    """The moments at which a callback is called."""
    return frozenset(moment for moment in MOMENTS if callable(getattr(callback, moment, None)))


def stride_of(callback: object) -> int:
    """How many updates make one call of a callback."""
    stride: int = getattr(callback, "every", 1)
    return stride


def name_of(callback: object) -> str:
    """The name of a callback's class, for messages."""
    return type(callback).__name__


def check_callbacks(callbacks: Any) -> list[object]:
    """Check that these are callbacks.

    Raises:
        PgkitError: one is none.
    """
    if not isinstance(callbacks, list | tuple):
        shown = name_of(callbacks)
        raise PgkitError(f"callbacks must be a list of callbacks, such as [MyCallback()], got {shown}")
    for callback in callbacks:
        _check(callback)
    return list(callbacks)


def _check(callback: object) -> None:
    if isinstance(callback, type):
        raise PgkitError(f"callbacks must be objects, got the class {callback.__name__}: make one of it")
    name = name_of(callback)
    methods = [word for word in dir(callback) if word.startswith("on_") or word in OTHER_WORDS]
    for method in sorted(set(methods) - set(MOMENTS)):
        if method in OTHER_WORDS:
            what = f"callback {name} has {method}, which is {OTHER_WORDS[method]} in pgkit"
            raise PgkitError(f"{what} (allowed: {', '.join(MOMENTS)})")
        raise PgkitError(f"callback {name}: {unknown_name('moment', method, MOMENTS)}")
    if not moments_of(callback):
        raise PgkitError(f"callback {name} defines none of {', '.join(MOMENTS)}")
    stride = stride_of(callback)
    if type(stride) is not int or stride < 1:
        raise PgkitError(f"callback {name}: every must be a whole number of at least 1, got {format_value(stride)}")
    if stride > 1 and not PER_UPDATE & moments_of(callback):
        raise PgkitError(f"callback {name}: every = {stride} has no effect without on_rollout or on_update")
