"""What a worker does, and how it does it in a process of its own."""

import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from pgkit.callbacks.protocol import NOTHING, Watch
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, format_error
from pgkit.runs.checkpoint import to_plain
from pgkit.runs.provenance import cpu_seconds
from pgkit.system import processes
from pgkit.system.process_state import isolated_process
from pgkit.system.signals import SIGNALS
from pgkit.training.initial_state import InitialState
from pgkit.training.messages import (
    Channel,
    Envelope,
    Failed,
    Finished,
    ProcessMessage,
    Started,
    StateSaved,
    StepsDone,
    StopMembers,
    WorkerStopped,
    calls_back,
)
from pgkit.training.result import TrainResult


class WorkerTask(NamedTuple):
    """What a worker is to train.

    Attributes:
        configs: one for each of its members.
        recorded: whether the run has a directory, so that states are wanted.
        debug_numerics: whether to stop at the first number that is not finite.
        saved: the worker's state in a checkpoint; None starts from scratch.
        inexact: why the run cannot be resumed exactly; None if it can.
        restart_count: how often environments have been restarted because their state could not be restored.
        initial: what its members begin with; None draws their parameters.
        watch: what callbacks want to see.
    """

    configs: Sequence[TrainConfig]
    recorded: bool
    debug_numerics: bool = False
    saved: dict[str, Any] | None = None
    inexact: str | None = None
    restart_count: int = 0
    initial: InitialState | None = None
    watch: Watch = NOTHING


class Worker(Protocol):
    """Members that are trained together."""

    def train(self, channel: Channel) -> TrainResult:
        """Train until every member has left."""

    def close(self) -> None:
        """Free the environments."""


WorkerFactory = Callable[[WorkerTask], Worker]
"""Builds a worker: a class or function of a module."""


class StopRequested(Exception):
    """The coordinator asks a worker process to stop."""


class PipeChannel:
    """The channel of a worker in a process of its own.

    After the task, the coordinator sends which members callbacks have stopped, and None to ask the worker to stop.

    Args:
        connection: to the coordinator's process.
        wants_states: whether states are to be sent.
        watch: what callbacks want to see.
    """

    def __init__(self, connection: Connection, wants_states: bool, watch: Watch) -> None:
        self.wants_states = wants_states
        self.watch = watch
        self._connection = connection
        self._cpu_seconds = 0.0
        self._last_sent = 0.0
        self._stop_requested = False
        self._stops: dict[int, str] = {}

    def send(self, message: ProcessMessage) -> None:
        now = time.monotonic()
        if isinstance(message, StepsDone) and now - self._last_sent < processes.SECONDS_BETWEEN_REPORTS:
            return
        if isinstance(message, StateSaved):
            message = plain_state(message)
        before = self._cpu_seconds
        self._cpu_seconds = cpu_seconds()
        self._last_sent = now
        send_pickled(self._connection, Envelope(message, self._cpu_seconds - before))
        if calls_back(message, self.watch):  # so that a stop takes effect after this update, not some time later
            while not self._receive():
                pass

    def take_stops(self) -> dict[int, str]:
        while self._connection.poll():
            self._receive()
        stops = self._stops
        self._stops = {}
        return stops

    def stop_requested(self) -> bool:
        while self._connection.poll():
            self._receive()
        return self._stop_requested

    def _receive(self) -> bool:
        """Take one message of the coordinator; returns whether it is a reply."""
        message: StopMembers | None = pickle.loads(self._connection.recv_bytes())
        if message is None:
            self._stop_requested = True
            return False
        self._stops = {**message.reasons, **self._stops}
        return message.is_reply

    def stop_if_requested(self) -> None:
        if self._stop_requested:
            raise StopRequested


def worker_main(connection: Connection, make_worker: WorkerFactory) -> None:
    """The main function of a worker process. It ends when its parent does, because the connection breaks."""
    for number in SIGNALS:  # the parent handles signals to the whole process group, and asks for the last state
        signal.signal(number, signal.SIG_IGN)
    try:
        with isolated_process():  # a main module that is imported again may set defaults
            _train(pickle.loads(connection.recv_bytes()), make_worker, connection)
    except (EOFError, ConnectionError):
        sys.exit(1)  # the parent is gone
    except Exception as error:
        send_pickled(connection, Envelope(Failed(portable(error)), 0.0))


def _train(task: WorkerTask, make_worker: WorkerFactory, connection: Connection) -> None:
    channel = PipeChannel(connection, task.recorded, task.watch)
    with closing(make_worker(task)) as worker:
        send_pickled(connection, Envelope(Started(), 0.0))
        try:
            result = worker.train(channel)
        except StopRequested:
            channel.send(WorkerStopped())
            return
        channel.send(Finished(result))


def plain_state(state: StateSaved) -> StateSaved:
    """The state with tensors that own their memory: pickling a view would send all memory that it looks into."""
    return StateSaved(to_plain(state.parts, "parts"), to_plain(state.monitor, "monitor"))


def portable(error: Exception) -> Exception:
    """The error, with its traceback as a note; as a RuntimeError with its text if it cannot be pickled."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(format_error(error))
    if not isinstance(error, PgkitError):
        error.add_note(f"in a worker process:\n{text}")
    return error


def send_pickled(connection: Connection, content: Any) -> None:
    """Send an object with the contents of its tensors.

    ``connection.send`` would put each tensor into shared memory, which takes an open file for each.
    """
    connection.send_bytes(pickle.dumps(content))
