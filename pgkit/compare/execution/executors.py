"""Where batches of runs are trained: processes on this machine, or a Ray cluster. Both give the same bits."""

import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

from pgkit.compare.execution.worker import Row, run_batch
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, format_error
from pgkit.system import processes


class Event(NamedTuple):
    """Progress of a batch.

    Attributes:
        batch: number of the batch.
        name: "steps", "done" or "failed".
        content: environment steps so far, the rows of the batch, or the reason of its failure.
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

    def start(self, batch: int, configs: Sequence[TrainConfig]) -> None:
        """Start to train a batch; at most ``workers`` may be running."""

    def events(self, timeout: float) -> list[Event]:
        """Wait at most ``timeout`` seconds and return what has happened."""

    def close(self) -> None:
        """Stop everything that is running."""


class LocalExecutor:
    """Runs every batch in a process with one thread: a crash costs that batch and nothing else."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._running: dict[int, tuple[BaseProcess, Connection]] = {}

    def start(self, batch: int, configs: Sequence[TrainConfig]) -> None:
        self._running[batch] = processes.start_process(_work, list(configs), preload="pgkit.compare.execution.worker")

    def events(self, timeout: float) -> list[Event]:
        ready = wait([connection for _, connection in self._running.values()], timeout)
        events = []
        for batch, (process, connection) in list(self._running.items()):
            while connection in ready and batch in self._running and connection.poll():
                event = self._receive(batch, process, connection)
                events.append(event)
                if event.name != "steps":
                    self._end(batch)
        return events

    def close(self) -> None:
        for process, _ in self._running.values():
            process.kill()
        for batch in list(self._running):
            self._end(batch)

    def pids(self) -> list[int]:
        """Return the ids of the running processes."""
        return [process.pid for process, _ in self._running.values() if process.pid]

    def _receive(self, batch: int, process: Any, connection: Connection) -> Event:
        try:
            return Event(batch, *connection.recv())
        except (EOFError, OSError):
            process.join()
            return Event(batch, "failed", f"its process ended unexpectedly (exit code {process.exitcode})")

    def _end(self, batch: int) -> None:
        process, connection = self._running.pop(batch)
        process.join()
        connection.close()


def _work(connection: Connection, configs: Sequence[TrainConfig]) -> None:
    """Body of a worker process; it ends with its parent, whose pipe breaks."""
    last = time.monotonic()

    def on_steps(steps: float) -> None:
        nonlocal last
        if time.monotonic() - last > processes.SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            connection.send(("steps", steps))

    try:
        connection.send(("done", run_batch(configs, on_steps)))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        connection.send(("failed", format_error(error)))


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

    def start(self, batch: int, configs: Sequence[TrainConfig]) -> None:
        self._running[self._remote(list(configs))] = batch

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


def _ray_work(configs: Sequence[TrainConfig]) -> list[Row]:
    return run_batch(configs)
