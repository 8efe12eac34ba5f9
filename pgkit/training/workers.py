"""The workers of a run: one in this process, or several in a process each.

Each worker trains some of the members as one population. Members share nothing, so their numbers do not depend on how
they are split. A worker process sends messages, which this process hands to the
:class:`~pgkit.training.coordinator.Coordinator`; only that writes.
"""

import pickle
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice, pairwise
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pgkit.callbacks.protocol import NOTHING, Watch
from pgkit.config.members import check_population
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.runs.reader import sizes_of
from pgkit.system import processes
from pgkit.training.coordinator import Coordinator, LocalChannel
from pgkit.training.messages import (
    Envelope,
    Failed,
    Finished,
    Started,
    StepsDone,
    StopMembers,
    WorkerStopped,
    calls_back,
)
from pgkit.training.result import TrainResult
from pgkit.training.worker_process import Worker, WorkerFactory, WorkerTask, send_pickled, worker_main

SECONDS_BETWEEN_CHECKS = 0.2
"""How long a signal may go unnoticed while no worker sends anything."""


class Workers(AbstractContextManager["Workers"], Protocol):
    """All workers of a run, ready for their first update. A context that ends them."""

    def train(self, coordinator: Coordinator) -> list[TrainResult]:
        """Train until every member has left; returns the result of each worker."""


class WorkerDied(PgkitError):
    """A worker process died."""

    exit_code = 1


def split(configs: Sequence[TrainConfig], workers: int) -> list[Sequence[TrainConfig]]:
    """Split members into at most ``workers`` contiguous groups of nearly the same size, none empty.

    Raises:
        PgkitError: the members do not fit together.
    """
    check_population(configs)
    count = min(workers, len(configs))
    bounds = [len(configs) * k // count for k in range(count + 1)]
    return [configs[begin:end] for begin, end in pairwise(bounds)]


def worker_tasks(configs: Sequence[TrainConfig], saved: Mapping[str, Any], watch: Watch = NOTHING) -> list[WorkerTask]:
    """What each worker in a checkpoint is to train, and what callbacks want to see of it."""
    remaining = iter(configs)
    groups = [list(islice(remaining, size)) for size in sizes_of(saved)]
    return [
        WorkerTask(
            group, True, saved=state, inexact=saved["inexact"], restart_count=saved["restart_count"], watch=watch
        )
        for group, state in zip(groups, saved["workers"], strict=True)
    ]


def start_workers(tasks: Sequence[WorkerTask], make_worker: WorkerFactory) -> Workers:
    """Start the workers of a run: one trains in this process, several have a process each.

    Args:
        tasks: one for each worker.
        make_worker: builds a worker.

    Raises:
        Exception: whatever ``make_worker`` raises.
    """
    return ProcessWorkers(tasks, make_worker) if len(tasks) > 1 else LocalWorker(make_worker(tasks[0]))


class LocalWorker:
    """The only worker of a run, in this process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> "LocalWorker":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()

    def train(self, coordinator: Coordinator) -> list[TrainResult]:
        return [self._worker.train(LocalChannel(coordinator))]


class ProcessWorkers:
    """Several workers, each in a process of its own, with one thread."""

    def __init__(self, tasks: Sequence[WorkerTask], make_worker: WorkerFactory) -> None:
        self._seeds = [describe_seeds(task.configs) for task in tasks]
        self._processes: list[tuple[BaseProcess, Connection]] = []
        self._stopping = False
        self._stopped: set[int] = set()
        try:
            for _ in tasks:
                started = processes.start_process(worker_main, make_worker, preload=make_worker.__module__)
                self._processes.append(started)
            for (_, connection), task in zip(self._processes, tasks, strict=True):
                send_pickled(connection, task)
            for worker in range(len(tasks)):  # each says that it has started
                self._receive(worker)
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> "ProcessWorkers":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._processes:
            process.kill()
            process.join()
            connection.close()

    def train(self, coordinator: Coordinator) -> list[TrainResult]:
        connections = {connection: worker for worker, (_, connection) in enumerate(self._processes)}
        results: dict[int, TrainResult] = {}
        while len(results) < len(connections):
            if coordinator.stop_requested():
                self._stop(coordinator)
            ended = results.keys() | self._stopped
            waiting = [connection for connection, worker in connections.items() if worker not in ended]
            ready = wait(waiting, SECONDS_BETWEEN_CHECKS)
            for worker in [connections[connection] for connection in waiting if connection in ready]:
                envelope = self._receive(worker, coordinator.directory)
                coordinator.add_cpu_seconds(envelope.cpu_seconds)
                match envelope.message:
                    case Finished(result):
                        results[worker] = result
                        steps = float(sum(row["env_steps"] for row in result.table))
                        coordinator.handle(worker, StepsDone(steps))
                    case WorkerStopped():
                        self._stopped.add(worker)
                    case Started() | Failed():
                        raise AssertionError("a worker starts once, and _receive() raises its error")
                    case message:
                        coordinator.handle(worker, message)
                        self._send_stops(coordinator, worker if calls_back(message, coordinator.watch) else None)
        return [results[worker] for worker in range(len(connections))]

    def _send_stops(self, coordinator: Coordinator, waiting: int | None) -> None:
        """Tell workers which of their members callbacks have stopped; one of them may wait for an answer."""
        for worker, (_, connection) in enumerate(self._processes):
            reasons = coordinator.take_stops(worker)
            if reasons or worker == waiting:
                with suppress(OSError):  # this one has ended
                    send_pickled(connection, StopMembers(reasons, worker == waiting))

    def _stop(self, coordinator: Coordinator) -> None:
        """Ask all workers to stop, and raise ``Stopped`` once each has stopped or has nothing left to train."""
        if not self._stopping:
            self._stopping = True
            for _, connection in self._processes:
                with suppress(OSError):  # this one has ended
                    send_pickled(connection, None)
        if all(worker in self._stopped or coordinator.is_trained(worker) for worker in range(len(self._processes))):
            coordinator.stop_if_requested()

    def _receive(self, worker: int, directory: Path | None = None) -> Envelope:
        """Receive a message of a worker process.

        Raises:
            WorkerDied: the process died.
            Exception: what the worker raised.
        """
        process, connection = self._processes[worker]
        try:
            envelope: Envelope = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            process.join()
            code = process.exitcode or 0
            cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            remedy = "" if directory is None else f"; pgkit resume {directory} continues"
            raise WorkerDied(f"the worker process of {self._seeds[worker]} died ({cause}){remedy}") from None
        if isinstance(envelope.message, Failed):
            raise envelope.message.error
        return envelope


def describe_seeds(configs: Sequence[TrainConfig]) -> str:
    """The seeds of some members, in a few words: "seed 3" or "seeds 0 ... 7"."""
    first = configs[0].seed
    last = configs[-1].seed
    return f"seed {first}" if first == last else f"seeds {first} ... {last}"
