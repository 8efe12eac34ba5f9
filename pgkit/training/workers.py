"""The members of a run in slices, each trained as one population: the only one here, several in a process each.

Members share nothing, so that their numbers do not depend on the slices. A process sends what its observer tells, and
the parent hands it to the :class:`pgkit.training.coordinator.Coordinator`, which alone writes.
"""

import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from pgkit.config.members import check_population
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, format_error
from pgkit.runs.checkpoint import plain
from pgkit.runs.provenance import cpu_seconds
from pgkit.system import processes
from pgkit.system.signals import SIGNALS
from pgkit.training.coordinator import Coordinator, LocalChannel
from pgkit.training.monitor import Channel
from pgkit.training.result import TrainResult

SECONDS_BETWEEN_LOOKS = 0.2
"""How long a signal may go unnoticed."""


class WorkerTask(NamedTuple):
    """What a slice is to do.

    Attributes:
        configs: of its members.
        recorded: whether its states are wanted.
        debug_numerics: stop at the first number that is not finite.
        saved: the slice in a checkpoint; None begins anew.
        inexact: why that checkpoint cannot be resumed exactly, if so.
        beginning: how often environments had to begin anew.
    """

    configs: Sequence[TrainConfig]
    recorded: bool
    debug_numerics: bool = False
    saved: dict[str, Any] | None = None
    inexact: str | None = None
    restart_count: int = 0


class Worker(Protocol):
    """Members that are trained together.

    Attributes:
        inexact: why they cannot be resumed exactly, if so.
    """

    inexact: str | None

    def train(self, outlet: Channel) -> TrainResult:
        """Train until every member has left."""

    def close(self) -> None:
        """Free the environments."""


class Workers(AbstractContextManager["Workers"], Protocol):
    """All slices of a run, ready to be trained; a context that frees what they hold.

    Attributes:
        inexact: why the run cannot be resumed exactly, if so.
    """

    inexact: str | None

    def train(self, whole: Coordinator) -> list[TrainResult]:
        """Train until every member has left."""


class WorkerDied(PgkitError):
    """The process of a slice has ended without a word."""

    exit_code = 1


def cut(configs: Sequence[TrainConfig], slices: int) -> list[Sequence[TrainConfig]]:
    """At most so many contiguous pieces of nearly the same length, none empty.

    Raises:
        PgkitError: the members do not fit together.
    """
    check_population(configs)
    count = min(slices, len(configs))
    bounds = [len(configs) * k // count for k in range(count + 1)]
    return [configs[begin:end] for begin, end in pairwise(bounds)]


def prepare(jobs: Sequence[WorkerTask], make: Callable[[WorkerTask], Worker]) -> "Workers":
    """The slices of a run, before their first update.

    Args:
        jobs: one for each slice.
        make: builds a slice; the class or function of a module.

    Raises:
        whatever ``make`` raises.
    """
    return ProcessWorkers(jobs, make) if len(jobs) > 1 else LocalWorkers(make(jobs[0]))


class LocalWorkers:
    """A run of one slice, in the process that writes."""

    def __init__(self, slice_: Worker) -> None:
        self._slice, self.inexact = slice_, slice_.inexact

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slice.close()

    def train(self, whole: Coordinator) -> list[TrainResult]:
        return [self._slice.train(LocalChannel(whole))]


class ProcessWorkers:
    """A run of several slices, each in a process of its own, with one thread."""

    def __init__(self, jobs: Sequence[WorkerTask], make: Callable[[WorkerTask], Worker]) -> None:
        seeds = [list(dict.fromkeys((job.configs[0].seed, job.configs[-1].seed))) for job in jobs]
        self._members = [f"seed{'s' * (len(ends) > 1)} {' ... '.join(map(str, ends))}" for ends in seeds]
        self._workers: list[tuple[BaseProcess, Connection]] = []
        self._stopping = False
        self._stopped: set[int] = set()
        try:
            for _ in jobs:
                self._workers.append(processes.start(_work, make, preload=make.__module__))
            for (_, connection), job in zip(self._workers, jobs, strict=True):
                _send(connection, job)
            begun = [self._receive(number)[1] for number in range(len(jobs))]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.inexact: str | None = next(filter(None, begun), None)

    def __enter__(self) -> "ProcessWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._workers:
            process.kill()
            process.join()
            connection.close()

    def train(self, whole: Coordinator) -> list[TrainResult]:
        connections = {connection: number for number, (_, connection) in enumerate(self._workers)}
        results: dict[int, TrainResult] = {}
        while len(results) < len(connections):
            if whole.stop_wanted():
                self._stop(whole)
            ended = results.keys() | self._stopped
            waiting = [connection for connection, number in connections.items() if number not in ended]
            ready = wait(waiting, SECONDS_BETWEEN_LOOKS)
            for number in [connections[connection] for connection in waiting if connection in ready]:
                kind, content, cpu = self._receive(number, whole.directory)
                whole.spend(cpu)
                if kind == "result":
                    results[number] = content
                    whole.hear(number, "steps", float(sum(row["env_steps"] for row in content.table)))
                elif kind == "stopped":
                    self._stopped.add(number)
                else:
                    whole.hear(number, kind, content)
        return [results[number] for number in range(len(connections))]

    def _stop(self, whole: Coordinator) -> None:
        """Ask all slices to stop, and stop once they have sent their last states."""
        if not self._stopping:
            self._stopping = True
            for _, connection in self._workers:
                with suppress(OSError):  # that one has nothing left to do
                    _send(connection, None)
        if all(number in self._stopped or whole.is_trained(number) for number in range(len(self._workers))):
            whole.stop_here()

    def _receive(self, number: int, directory: Path | None = None) -> tuple[str, Any, float]:
        """What a worker says: kind, content, and the CPU seconds that it took since it last said something.

        Raises:
            WorkerDied: it is gone.
            what the worker raised.
        """
        process, connection = self._workers[number]
        try:
            kind, content, cpu = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            process.join()
            code = process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            remedy = "" if directory is None else f"; pgkit resume {directory} continues"
            raise WorkerDied(f"the process that trained {self._members[number]} died ({how}){remedy}") from None
        if kind == "failed":
            raise content
        return kind, content, cpu


class _Asked(Exception):
    """To stop."""


class PipeChannel:
    """The outlet of a slice in a worker process."""

    def __init__(self, connection: Connection, recorded: bool) -> None:
        self.recorded = recorded
        self._connection = connection
        self._cpu, self._last, self._asked = 0.0, 0.0, False

    def tell(self, kind: str, content: Any) -> None:
        now = time.monotonic()
        if kind == "steps" and now - self._last < processes.SECONDS_BETWEEN_SIGNS:
            return
        self._last, before, self._cpu = now, self._cpu, cpu_seconds()
        content = plain(content, "state") if kind == "state" else content
        _send(self._connection, (kind, content, self._cpu - before))

    def stop_wanted(self) -> bool:
        if not self._asked and self._connection.poll():
            self._connection.recv_bytes()
            self._asked = True
        return self._asked

    def stop_here(self) -> None:
        if self._asked:
            raise _Asked


def _work(connection: Connection, make: Callable[[WorkerTask], Worker]) -> None:
    """The life of a worker process: it ends with its parent, whose pipe breaks."""
    for number in SIGNALS:  # those to a whole group are for the parent, which asks for the last state
        signal.signal(number, signal.SIG_IGN)
    try:
        _do(pickle.loads(connection.recv_bytes()), make, connection)
    except (EOFError, ConnectionError):
        sys.exit(1)  # the parent is gone: there is nobody to tell
    except Exception as error:
        _send(connection, ("failed", _portable(error), 0.0))


def _do(job: WorkerTask, make: Callable[[WorkerTask], Worker], connection: Connection) -> None:
    sender = PipeChannel(connection, job.recorded)
    with closing(make(job)) as slice_:
        _send(connection, ("begun", slice_.inexact, 0.0))
        try:
            result = slice_.train(sender)
        except _Asked:
            sender.tell("stopped", None)
            return
        result.parts.clear()
        sender.tell("result", result)


def _portable(error: Exception) -> Exception:
    """The error, if it can travel; a RuntimeError with its text otherwise. It carries its traceback along."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(format_error(error))
    if not isinstance(error, PgkitError):
        error.add_note(f"in the process of a slice:\n{text}")
    return error


def _send(connection: Connection, message: Any) -> None:
    """Pickled with the numbers of tensors; a connection's own way would share their memory, by a file for each."""
    connection.send_bytes(pickle.dumps(message))
