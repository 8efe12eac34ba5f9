"""Call the callbacks of a run, in their order, and report what they raise."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from pgkit.callbacks.protocol import (
    PER_UPDATE,
    CallbackError,
    Stop,
    Watch,
    moments_of,
    name_of,
    stride_of,
    watch_of,
)
from pgkit.callbacks.views import EvaluationView, LogView, RolloutView, RunEnd, RunStart, UpdateView
from pgkit.errors import describe_exception, format_value
from pgkit.system.process_state import restored_settings

View = RunStart | RolloutView | UpdateView | LogView | EvaluationView | RunEnd


class Callbacks:
    """The callbacks of a run. They live in the process of :func:`pgkit.train`, whatever processes train.

    Args:
        callbacks: in the order in which they are called.
        seeds: of the members of the run.

    Attributes:
        watch: what workers have to send.
    """

    def __init__(self, callbacks: Sequence[object], seeds: Sequence[int]) -> None:
        self.watch: Watch = watch_of(callbacks)
        self._callbacks = [(callback, moments_of(callback)) for callback in callbacks]
        self._seeds = tuple(seeds)

    def call(self, moment: str, make_view: Callable[[], View]) -> dict[int, str]:
        """Call a method of every callback that defines it.

        Args:
            moment: the name of the method.
            make_view: makes its argument, a new one for each callback.

        Returns:
            The members that are to stop, and why.

        Raises:
            CallbackError: a callback raised, or returned something else than None or a :class:`Stop`.
        """
        stops: dict[int, str] = {}
        for callback, moments in self._callbacks:
            if moment not in moments:
                continue
            view = make_view()
            if moment in PER_UPDATE and getattr(view, "update", 0) % stride_of(callback):
                continue
            stop = self._call_one(callback, moment, view)
            if stop is not None:
                reason = f"{stop.reason} ({name_of(callback)})"
                members = range(len(self._seeds)) if stop.member is None else [stop.member]
                stops = {**dict.fromkeys(members, reason), **stops}  # the first reason counts
        return stops

    def end(self, make_view: Callable[[], View]) -> list[CallbackError]:
        """Call ``on_end`` of every callback, whatever the others raise; returns what they have raised."""
        errors = []
        for callback, moments in self._callbacks:
            if "on_end" in moments:
                try:
                    self._call_one(callback, "on_end", make_view())
                except CallbackError as error:
                    errors.append(error)
        return errors

    def _call_one(self, callback: object, moment: str, view: View) -> Stop | None:
        where = f"callback {name_of(callback)}: {moment}{self._of_members(view)}"
        try:
            with restored_settings():
                result = getattr(callback, moment)(view)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # someone else's code, which may raise anything, sys.exit included
            described = CallbackError(" ".join(f"{where} raised {describe_exception(error)}".split()))
            described.details = "".join(traceback.format_exception(error))
            raise described from error
        if result is None:
            return None
        if moment == "on_end":
            raise CallbackError(f"{where} returned {_shown(result)}, but there is nothing left to stop")
        if not isinstance(result, Stop):
            raise CallbackError(f"{where} returned {_shown(result)}: return None to go on, or a pgkit.callbacks.Stop")
        if not isinstance(result.reason, str) or not result.reason.strip():
            raise CallbackError(f"{where} returned a Stop without a reason: it must be a text")
        if result.member is not None and result.member not in range(len(self._seeds)):
            allowed = f"members are counted from 0 to {len(self._seeds) - 1}"
            raise CallbackError(f"{where} returned a Stop of member {format_value(result.member)}: {allowed}")
        return result

    def _of_members(self, view: View) -> str:
        """Of whom a call is, in a few words: " of seed 3 after 1,200 steps"."""
        match view:
            case EvaluationView():
                seeds: Sequence[int] = [view.seed]
                steps = [view.env_steps]
            case RolloutView() | UpdateView() | LogView():
                seeds = view.seeds
                steps = list(view.env_steps)
            case _:
                return ""
        members = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} ... {seeds[-1]}"
        return f" of {members} after {max(steps):,.0f} steps"


def _shown(result: object) -> str:
    return format_value(result) if isinstance(result, bool | int | float | str) else type(result).__name__


def ended(status: str, error: str | None, directory: Path | None) -> RunEnd:
    """What callbacks see of a run that has no result."""
    return RunEnd(status, error, directory, (), {}, {}, {}, {})
