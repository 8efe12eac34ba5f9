"""Processes that compute with one thread each, and that no signal to the whole group ends before their parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from pgkit.system.signals import SIGNALS

SECONDS_BETWEEN_SIGNS = 0.5
"""A process that computes says so often how far it is."""


def start(work: Callable[..., None], *arguments: object, preload: str) -> tuple[BaseProcess, Connection]:
    """A process that does ``work(connection, *arguments)``, and this end of its connection.

    Args:
        work: a function of a module.
        arguments: are pickled.
        preload: the module that the first process of all imports, for all of them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    here, there = context.Pipe()
    # Left alone, that first process looks for modules in the working directory before all others: in a clone of pgkit
    # it would import the sources that lie there, not what is installed.
    path = os.pathsep.join(place or os.getcwd() for place in sys.path)
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    process = context.Process(target=_enter, args=(before, work, there, *arguments), daemon=True)
    with _environment(OMP_NUM_THREADS="1", PYTHONPATH=path, PYTHONSAFEPATH="1"), _without_signals():
        process.start()
    there.close()
    return process, here


def _enter(variables: Mapping[str, str | None], work: Callable[..., None], *arguments: object) -> None:
    """The beginning of a process: what it starts itself gets the environment variables of its parent."""
    _set(variables)
    work(*arguments)


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """What is started inside never gets Ctrl-C or SIGTERM, not even while it imports; this process gets them later."""
    resource_tracker.ensure_running()  # its start inside would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    """Set these environment variables, or remove those that are None."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
