"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP).

The first asks a run to stop once its state is saved, a second one ends it at once.
"""

import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """Training has stopped on a signal, and everything is saved.

    Attributes:
        exit_code: 128 plus the signal's number, as shells have it.
    """

    def __init__(self, number: int, remedy: str) -> None:
        super().__init__(number, remedy)
        self.exit_code = 128 + number

    def __str__(self) -> str:
        number, remedy = self.args
        return f"stopped by {signal.Signals(number).name}: {remedy}"


class StopSignals:
    """A context that remembers the first signal instead of raising; see :meth:`stop_if_received`.

    Outside the main thread, where Python allows no signal handlers, it does nothing.

    Args:
        remedy: how to continue, for the message of :class:`Stopped`.

    Attributes:
        received: number of the signal that has come, or None.
        safe: set this to True when nothing can be lost: a signal then raises :class:`Stopped` at once.
    """

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
        self.received: int | None = None
        self.safe = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            # A signal that is ignored stays ignored, as under nohup.
            heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._remember) for number in heeded}
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop_if_received(self) -> None:
        """Raise :class:`Stopped` if a signal has come; call it where everything is saved."""
        if self.received is not None:
            raise Stopped(self.received, self.remedy)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        with suppress(Exception):  # a closed terminal is no reason not to stop
            print(
                f"{signal.Signals(number).name}: stopping as soon as all is saved (again: at once)",
                file=sys.stderr,
                flush=True,
            )
        self.__exit__(None, None, None)  # a second signal does what it did before this context
        if self.safe:
            self.stop_if_received()
