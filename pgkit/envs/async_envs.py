"""Gymnasium environments in worker processes, with "next_step" autoreset.

One process per core steps a slice of the environments with :class:`pgkit.envs.sync_envs.SyncEnvs`, so all numbers are
those of the synchronous loop to the last bit. POSIX signals and ``poll`` are used: Linux and macOS only.

Gymnasium's ``AsyncVectorEnv`` differs: it starts one process per environment (hundreds for a population), and all
environments step together. It can be used through :func:`pgkit.envs.wrap_vector_env`.
"""

import multiprocessing
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.envs import env_worker
from pgkit.envs.actions import action_shape, check_action
from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.env_worker import GetHistories, Request, Reset, RestoreHistories, Step
from pgkit.envs.errors import EnvError
from pgkit.envs.replay import EnvHistory, pack_histories, unpack_histories
from pgkit.errors import PgkitError
from pgkit.system.cpu import available_cpus

if TYPE_CHECKING:
    from gymnasium import Env

REQUEST_TIMEOUT_SECONDS = 300.0
"""Time that a worker has to step or reset its environments, unless ``timeout`` says otherwise."""

START_TIMEOUT_SECONDS = 60.0
"""Time that a worker has at least to start and to create its environments."""

EXIT_TIMEOUT_SECONDS = 2.0
"""Time that a worker has to report where it hangs, or to exit, before it is killed."""


class AsyncEnvs:
    """K instances of a Gymnasium environment in ``min(K, cores)`` processes; see :class:`pgkit.envs.Environments`.

    Any subset of the environments can step. When an environment or its process fails, all workers are stopped and
    :class:`pgkit.envs.errors.EnvError` is raised.

    Args:
        create: makes one instance; it is pickled with cloudpickle.
        num_envs: K.
        name: name of the environment, for messages and records.
        device: device of the tensors.
        timeout: seconds that a worker has to step or reset all its environments; None for 300.
        action_mask: as of :class:`pgkit.envs.sync_envs.SyncEnvs`.

    Raises:
        PgkitError: unsupported spaces, or this process is itself a worker, which may not start processes.
        EnvError: an environment cannot be created.
    """

    def __init__(
        self,
        create: Callable[[], "Env"],
        num_envs: int,
        name: str,
        device: torch.device,
        timeout: float | None = None,
        action_mask: bool = True,
    ) -> None:
        if multiprocessing.current_process().daemon:
            raise PgkitError(
                "env.vectorization 'async' needs processes of its own, which a worker process may not start: "
                "use env.vectorization 'sync'"
            )
        num_workers = min(num_envs, available_cpus())
        self._name = name
        self._timeout = REQUEST_TIMEOUT_SECONDS if timeout is None else timeout
        self._bounds = [num_envs * w // num_workers for w in range(num_workers + 1)]
        self._pipes: list[Connection] = []
        self._polls: list[select.poll] = []  # waiting with these costs a tenth of Connection.poll
        self._processes: list[BaseProcess] = []
        self._start_workers(_pickle(create), action_mask)
        # Python joins child processes when it exits, which would wait for ever for workers that were not stopped.
        util.Finalize(self, _stop_workers, (self._pipes, self._processes), exitpriority=10)
        infos = self._exchange({}, range(num_workers), max(START_TIMEOUT_SECONDS, self._timeout))
        self.info: EnvInfo = replace(infos[0], num_envs=num_envs, vectorization="async", device=device)
        self._action_shape = action_shape(self.info.action_space, name)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        integers = check_seeds(seeds, index, self.info.num_envs)
        local, rows = self._split(index)
        requests = {w: Reset(local[w], [integers[i] for i in rows[w]]) for w in local}
        answers = self._request(requests)
        if len({obs.shape[1] for (obs,) in answers.values()}) > 1:
            raise EnvError(f"environment {self._name!r}: some of its instances give action masks, others do not")
        (obs,) = self._merge(answers, rows, len(seeds))
        return obs

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.num_envs if index is None else len(index), self._action_shape)
        local, rows = self._split(index)
        actions = action.cpu().numpy()
        answers = self._request({w: Step(local[w], actions[rows[w]]) for w in local})
        return Transition(*self._merge(answers, rows, len(action)))

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        local, rows = self._split(index)
        answers = self._request({w: GetHistories(local[w]) for w in local})
        by_row: dict[int, EnvHistory] = {}
        for w, histories in answers.items():
            by_row |= zip(rows[w].tolist(), histories, strict=True)
        return pack_histories([by_row[row] for row in range(len(by_row))])

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        local, rows = self._split(index)
        histories = unpack_histories(state)
        self._request({w: RestoreHistories(local[w], [histories[i] for i in rows[w]]) for w in local})

    def close(self) -> None:
        _stop_workers(self._pipes, self._processes)

    def _start_workers(self, pickled_create: bytes, action_mask: bool) -> None:
        context = multiprocessing.get_context()
        for bounds in zip(self._bounds, self._bounds[1:], strict=False):
            parent_end, worker_end = context.Pipe()
            arguments = (worker_end, [*self._pipes, parent_end], pickled_create, bounds, self._name, action_mask)
            process = context.Process(target=env_worker.run_worker, args=arguments, daemon=True)
            with warnings.catch_warnings():  # Python 3.12 warns of forking beside torch's threads; workers use none
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            worker_end.close()
            poll = select.poll()
            poll.register(parent_end, select.POLLIN)
            self._pipes.append(parent_end)
            self._polls.append(poll)
            self._processes.append(process)

    def _split(self, index: Tensor | None) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """By worker: the numbers of the chosen environments within its slice, and the rows of their data."""
        chosen = np.arange(self.info.num_envs) if index is None else index.cpu().numpy()
        workers = np.searchsorted(self._bounds, chosen, side="right") - 1
        rows = {w: np.flatnonzero(workers == w) for w in np.unique(workers).tolist()}
        local = {w: chosen[row] - self._bounds[w] for w, row in rows.items()}
        return local, rows

    def _merge(self, answers: dict[int, Any], rows: dict[int, np.ndarray], count: int) -> list[Tensor]:
        """The workers' arrays joined, field by field, in the caller's order of rows."""
        fields = []
        for parts in zip(*answers.values(), strict=True):
            merged = np.empty((count, *parts[0].shape[1:]), dtype=parts[0].dtype)
            for w, part in zip(answers, parts, strict=True):
                merged[rows[w]] = part
            fields.append(torch.from_numpy(merged).to(self.info.device))
        return fields

    def _request(self, requests: Mapping[int, Request]) -> dict[int, Any]:
        """Send requests to workers, and collect the answer of each."""
        return self._exchange(requests, requests, self._timeout)

    def _exchange(self, requests: Mapping[int, Request], workers: Iterable[int], seconds: float) -> dict[int, Any]:
        """Send requests, then collect one answer from each of ``workers``, within so many seconds from then on.

        On any error, Ctrl-C included, all workers are stopped.
        """
        answers: dict[int, Any] = {}
        w = 0
        try:
            for w, request in requests.items():
                self._pipes[w].send(request)
            deadline = time.monotonic() + seconds
            for w in workers:
                in_time = self._polls[w].poll(max(0.0, deadline - time.monotonic()) * 1000)
                answers[w] = self._pipes[w].recv() if in_time else self._timeout_error(w, seconds)
                if isinstance(answers[w], Exception):
                    raise answers[w]
        except (EOFError, ConnectionError):
            raise self._death_error(w) from None
        except BaseException:
            self.close()
            raise
        return answers

    def _timeout_error(self, w: int, seconds: float) -> EnvError:
        """The error of a worker that has not answered in time; if it still can, it reports where it hangs."""
        pid = self._processes[w].pid
        if pid is not None:
            os.kill(pid, signal.SIGUSR1)
        if self._polls[w].poll(EXIT_TIMEOUT_SECONDS * 1000):
            answer = self._pipes[w].recv()
            if isinstance(answer, EnvError):
                return answer
        return EnvError(
            f"environment {self._name!r}: {self._slice_name(w)} did not answer within {seconds:g} s (env.timeout)"
        )

    def _death_error(self, w: int) -> EnvError:
        """The error of a worker whose pipe is broken."""
        self._processes[w].join(EXIT_TIMEOUT_SECONDS)
        code = self._processes[w].exitcode
        self.close()
        return EnvError(
            f"environment {self._name!r}: the worker process of {self._slice_name(w)} died{_describe_exit(code)}"
        )

    def _slice_name(self, w: int) -> str:
        first = self._bounds[w]
        last = self._bounds[w + 1] - 1
        return f"sub-environment {first}" if first == last else f"sub-environments {first} to {last}"


def _describe_exit(code: int | None) -> str:
    if code is None:
        return ""
    return f" (signal {-code})" if code < 0 else f" (exit code {code})"


def _stop_workers(pipes: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    """Ask workers to exit, and kill those that do not."""
    for pipe in pipes:
        if not pipe.closed:
            with suppress(OSError):
                pipe.send(None)  # closing is not enough: workers that started later hold a copy of the pipe's end
            pipe.close()
    deadline = time.monotonic() + EXIT_TIMEOUT_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


def _pickle(create: Callable[[], "Env"]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # Gymnasium depends on it, for the same purpose

    data: bytes = cloudpickle.dumps(create)
    return data
