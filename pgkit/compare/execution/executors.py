"""Where batches of runs are trained: processes on this machine, or a Ray cluster. Both give the same bits."""

import contextlib
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

from pgkit.compare.execution.worker import Part, Trained, run_part
from pgkit.errors import PgkitError, format_error
from pgkit.system import processes

Task = Callable[[Any, Callable[[float], None]], Any]
"""Called with some work, and with what is to be called with the environment steps so far; such as ``run_part``."""


class Event(NamedTuple):
    """Progress of a batch.

    Attributes:
        batch: number of the batch.
        name: "steps", "done" or "failed".
        content: environment steps so far, the result of the batch, or the reason of its failure.
    """

    batch: int
    name: str
    content: Any


class Executor(Protocol):
    """Trains batches of runs, several at a time.

    Attributes:
        workers: number of batches at a time.
    """

    workers: int

    def start(self, batch: int, work: Any) -> None:
        """Start the work of a batch; at most ``workers`` may be running."""

    def events(self, timeout: float) -> list[Event]:
        """Wait at most ``timeout`` seconds and return what has happened."""

    def close(self) -> None:
        """Stop everything that is running."""


class _Worker(NamedTuple):
    """A process that trains one batch after the other, and the parent's end of its connection."""

    process: BaseProcess
    connection: Connection

    def end(self) -> None:
        """Kill the process, unless it has ended."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class LocalExecutor:
    """Processes of one thread each, which keep their compiled code from batch to batch.

    A crash costs the batch and nothing else: where a batch fails, its process is replaced.

    Args:
        workers: how many at a time.
        task: does the work of a batch, a function at the top level of a module.
    """

    def __init__(self, workers: int, task: Task = run_part) -> None:
        self.workers = workers
        self._task = task
        self._running: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []

    def start(self, batch: int, work: Any) -> None:
        self._running[batch] = self._send(work)

    def events(self, timeout: float) -> list[Event]:
        ready = wait([worker.connection for worker in self._running.values()], timeout)
        events = []
        for batch, worker in list(self._running.items()):
            while worker.connection in ready and batch in self._running and worker.connection.poll():
                event = self._receive(batch, worker)
                events.append(event)
                if event.name != "steps":
                    del self._running[batch]
                if event.name == "done":
                    self._idle.append(worker)
                elif event.name == "failed":
                    worker.end()
        return events

    def close(self) -> None:
        for worker in (*self._running.values(), *self._idle):
            worker.end()
        self._running.clear()
        self._idle.clear()

    def pids(self) -> list[int]:
        """Return the ids of the processes that train."""
        return [worker.process.pid for worker in self._running.values() if worker.process.pid]

    def _send(self, work: Any) -> _Worker:
        """Hand work to an idle process, or to a new one."""
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.connection.send(work)
            except OSError:  # somebody has killed it
                worker.end()
            else:
                return worker
        worker = _Worker(*processes.start_process(_work, self._task, preload="pgkit.compare.execution.worker"))
        with contextlib.suppress(OSError):  # if it has ended already, events() says so
            worker.connection.send(work)
        return worker

    def _receive(self, batch: int, worker: _Worker) -> Event:
        try:
            return Event(batch, *worker.connection.recv())
        except (EOFError, OSError):
            worker.process.join()
            return Event(batch, "failed", f"its process ended unexpectedly (exit code {worker.process.exitcode})")


def _work(connection: Connection, task: Task) -> None:
    """Body of a worker process; it ends with its parent, whose pipe breaks."""
    last = time.monotonic()

    def on_steps(steps: float) -> None:
        nonlocal last
        if time.monotonic() - last > processes.SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            connection.send(("steps", steps))

    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            work = connection.recv()
            outcome: tuple[str, Any]
            try:
                outcome = ("done", task(work, on_steps))
            except BrokenPipeError:  # of a report of steps
                raise
            except Exception as error:
                outcome = ("failed", format_error(error))
            connection.send(outcome)


class RayExecutor:
    """Tasks of one core each on a Ray cluster.

    Args:
        workers: how many at a time.
        address: of the cluster; None starts one on this machine.

    Raises:
        PgkitError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise PgkitError("--executor ray needs the package ray: pip install 'pgkit-rl[ray]'") from None
        self.workers = workers
        self._ray = ray
        if address:
            _check_reachable(address)
        options: dict[str, Any] = (
            {"address": address} if address else {"address": "local", "num_cpus": workers, "include_dashboard": False}
        )
        try:
            ray.init(**options, configure_logging=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "if it asks for a token, set RAY_AUTH_MODE=token"
            raise PgkitError(f"cannot reach a Ray cluster at {address}: {error} ({hint})") from None
        variables = {"env_vars": {"OMP_NUM_THREADS": "1"}}
        self._remote: Callable[..., Any] = ray.remote(num_cpus=1, max_retries=0, runtime_env=variables)(
            _ray_work
        ).remote
        self._running: dict[Any, int] = {}

    def start(self, batch: int, work: Any) -> None:
        self._running[self._remote(work)] = batch

    def events(self, timeout: float) -> list[Event]:
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        return [self._receive(reference) for reference in ready]

    def close(self) -> None:
        self._ray.shutdown()

    def _receive(self, reference: Any) -> Event:
        batch = self._running.pop(reference)
        try:
            return Event(batch, "done", self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            return Event(batch, "failed", format_error(error.cause))
        except self._ray.exceptions.RayError as error:
            return Event(batch, "failed", format_error(error))


def _check_reachable(address: str, timeout: float = 5.0) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return  # "auto", or the name of a local cluster
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except (OSError, ValueError) as error:
        raise PgkitError(f"cannot reach a Ray cluster at {address}: {error}") from None


def _ray_work(part: Part) -> Trained:
    return run_part(part)
