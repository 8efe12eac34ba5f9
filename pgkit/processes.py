"""Processes that compute with one thread each, and that no signal to the whole group ends before their parent."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from pgkit.interrupt import SIGNALS

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
    process = context.Process(target=work, args=(there, *arguments), daemon=True)
    with _environment(OMP_NUM_THREADS="1"), _without_signals():
        process.start()
    there.close()
    return process, here


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
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
