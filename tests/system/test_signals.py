"""Signals ask a run to stop."""

import os
import signal

import pytest

from pgkit.system.signals import Stopped, StopSignals


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda x: str(x)
)
def test_the_first_signal_asks_and_nothing_is_interrupted(number: signal.Signals, exit_code: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # this test may itself run under nohup
    try:
        with StopSignals("pgkit resume runs/x continues") as signals:
            os.kill(os.getpid(), number)
            assert signals.received == number
            with pytest.raises(Stopped, match=f"stopped by {number.name}: pgkit resume runs/x continues") as stopped:
                signals.stop_if_received()
    finally:
        signal.signal(number, before)
    assert stopped.value.exit_code == exit_code
