"""Ctrl-C and SIGTERM: the first asks to stop where nothing is lost, a second ends at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Training has stopped on a signal, with everything saved."""

    def __init__(self, number: int, remedy: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {remedy}")
        self.exit_code = 128 + number


class StopSignals:
    """A context: within it the first signal is only remembered, or raises :class:`Stopped` where that is safe.

    ``remedy`` says how to go on. It does nothing outside the main thread, where Python allows no handlers.
    """

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
        self.received: int | None = None
        self.safe = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup stays
            self._before = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop_here(self) -> None:
        """Nothing would be lost now: raises :class:`Stopped` if a signal has come."""
        if self.received is not None:
            raise Stopped(self.received, self.remedy)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__(None, None, None)  # the next one does what it did before
        if self.safe:
            self.stop_here()
