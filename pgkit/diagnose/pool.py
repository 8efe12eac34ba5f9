"""Independent measurements, several at a time."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from pgkit.errors import PgkitError
from pgkit.system.cpu import configure_cpu
from pgkit.system.process_state import isolated_process
from pgkit.system.processes import end_with_parent, start_process

Task = TypeVar("Task")
Result = TypeVar("Result")


def results_of(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[tuple[int, Result]]:
    """Call a function with each task, and give the number of each task and its result as soon as there is one.

    Args:
        function: at the top level of a module.
        tasks: pickled for workers.
        workers: how many processes; with one, this process works.

    Raises:
        PgkitError: what the function raised, or a process died.
    """
    if workers == 1 or len(tasks) < 2:
        with isolated_process():
            configure_cpu()
            yield from ((number, function(task)) for number, task in enumerate(tasks))
        return
    waiting = list(enumerate(tasks))[::-1]
    started = [start_process(_work, function, preload=function.__module__) for _ in range(min(workers, len(tasks)))]
    try:
        busy: dict[Connection, int] = {}
        for _, connection in started:
            _send_next(connection, waiting, busy)
        while busy:
            for connection in [connection for connection in wait(list(busy)) if isinstance(connection, Connection)]:
                number = busy.pop(connection)
                result = _receive(connection)
                _send_next(connection, waiting, busy)
                yield number, result
    finally:
        for process, connection in started:
            process.kill()
            process.join()
            connection.close()


def _send_next(connection: Connection, waiting: list[tuple[int, Any]], busy: dict[Connection, int]) -> None:
    """Give a process its next task, if there is one."""
    if waiting:
        number, task = waiting.pop()
        connection.send(task)
        busy[connection] = number


def _receive(connection: Connection) -> Any:
    try:
        error, result = connection.recv()
    except (EOFError, OSError):
        raise PgkitError("a process that measured died; what was finished is kept: start again to go on") from None
    if error is not None:
        raise error
    return result


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Body of a worker process; it ends with its parent."""
    end_with_parent()
    configure_cpu()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task = connection.recv()
            answer: tuple[Exception | None, Any]
            try:
                answer = (None, function(task))
            except Exception as error:
                answer = (error, None)
            connection.send(answer)
