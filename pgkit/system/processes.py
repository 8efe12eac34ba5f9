"""Worker processes: they compute with one thread each, and Ctrl-C does not reach them before their parent is done."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NoReturn, TypeVar

from pgkit.system.garbage import collect_rarely
from pgkit.system.output import tolerant_output
from pgkit.system.signals import SIGNALS

SECONDS_BETWEEN_REPORTS = 0.5
"""How often a worker process reports its progress."""

SECONDS_BESIDE_JAX = 20.0
"""How long a copy of a process in which JAX has been used may take: if it uses JAX, too, it waits for ever for threads
that it does not have."""

Result = TypeVar("Result")


class CopyFailed(Exception):
    """A copy of this process gave no result; the message says why."""


def start_fork_server(preload: str) -> None:
    """Start the process that workers are copied from, which imports a module meanwhile; one that runs is left alone.

    Whoever knows early that there will be workers calls this first, and imports what it needs itself at the same time.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([preload])
    # By default the fork server looks for modules in the working directory first: in a clone of pgkit it would import
    # the sources that lie there, and not the installed package that this process runs.
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    with _environment(OMP_NUM_THREADS="1", PYTHONPATH=path, PYTHONSAFEPATH="1"), _signals_blocked():
        forkserver.ensure_running()


def start_process(work: Callable[..., None], *arguments: object, preload: str) -> tuple[BaseProcess, Connection]:
    """Start a process that calls ``work(connection, *arguments)``; returns it and the parent's end of the connection.

    Args:
        work: a function at the top level of a module.
        arguments: pickled and sent along.
        preload: name of a module that the fork server imports once, so that each process starts with it.
    """
    start_fork_server(preload)
    context = multiprocessing.get_context("forkserver")
    parent_end, child_end = context.Pipe()
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    process = context.Process(target=_enter, args=(before, work, child_end, *arguments), daemon=True)
    with _signals_blocked():
        process.start()
    child_end.close()
    return process, parent_end


def end_with_parent() -> None:
    """Let this process end as soon as its parent has ended, also in the middle of a computation."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def call_in_copy(function: Callable[[], Result], seconds: float) -> Result:
    """Call a function in a copy of this process, which is killed afterwards: nothing that it does can be seen here.

    Args:
        function: its result is pickled. What it prints is lost.
        seconds: how long it may take; no longer than ``SECONDS_BESIDE_JAX`` if JAX has been used in this process.

    Raises:
        CopyFailed: the function raised or ended the process, or took longer.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a copy would print again what has not been written yet
            stream.flush()
    with warnings.catch_warnings(record=True) as caught:  # Python 3.12 warns of the threads of torch: copies use none
        warnings.simplefilter("always")
        pid = os.fork()
    jax_runs = any("JAX" in str(warning.message) for warning in caught)  # it says so itself
    if jax_runs:
        seconds = min(seconds, SECONDS_BESIDE_JAX)
    if pid == 0:
        _send_result(function, sender)
    sender.close()
    try:
        if not receiver.poll(seconds):
            hint = ": JAX has been used in this process, and cannot be used in a copy of it" if jax_runs else ""
            raise CopyFailed(f"no result within {seconds:g} s{hint}")
        result: Result = pickle.loads(receiver.recv_bytes())
        return result
    except EOFError:
        raise CopyFailed("its process ended unexpectedly") from None
    finally:
        receiver.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _send_result(function: Callable[[], object], sender: Connection) -> NoReturn:
    """Send the result of a function, and end this process without anything that Python does at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sender.send_bytes(pickle.dumps(function()))
    finally:
        os._exit(0)


def _enter(variables: Mapping[str, str | None], work: Callable[..., None], *arguments: object) -> None:
    """Restore the parent's environment variables in the new process, for processes that it starts, then work."""
    _set_variables(variables)
    collect_rarely()
    with tolerant_output():
        work(*arguments)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM: processes started inside never get them; this process gets them after the block."""
    resource_tracker.ensure_running()  # it unblocks signals when it starts, so it has to run before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes that are started inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(variables: Mapping[str, str | None]) -> None:
    """Set environment variables, and remove those whose value is None."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
