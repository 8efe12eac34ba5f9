"""Gymnasium environments in worker processes, NEXT_STEP autoreset, any subset at a time.

One process per core runs a slice of the environments in the loop of :mod:`pgkit.envs.sync_envs`, so the numbers are
those
of the synchronous loop to the last bit. It takes POSIX signals and polls: Linux and macOS. (Gymnasium's
``AsyncVectorEnv`` starts one process per environment, hundreds for a population, and steps all or none; it can be had
through ``wrap_vector_env``.)
"""

import multiprocessing
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.envs.base import EnvInfo, Transition, check_seeds
from pgkit.envs.errors import ENV_EXCEPTIONS, EnvError, StepTimeout, env_error
from pgkit.envs.replay import EnvHistory, pack, unpack
from pgkit.envs.spaces import action_shape, check_action
from pgkit.envs.sync_envs import SyncEnvs
from pgkit.errors import PgkitError
from pgkit.system.cpu import available_cpus

if TYPE_CHECKING:
    from gymnasium import Env


PATIENCE = 300.0
"""Seconds that a worker has to step or reset its environments, unless told otherwise."""

START = 60.0
"""Seconds that a worker has at least to start, and to make its environments."""

GRACE = 2.0
"""Seconds that a worker has to say where it hangs, or to end, before it is killed."""


class AsyncEnvs:
    """K instances of a Gymnasium environment, in contiguous slices on ``min(K, cores)`` processes.

    Args:
        create: makes one.
        count: K.
        name: for messages and records.
        device: of the tensors.
        timeout: seconds that a worker has for a step or a reset of all its environments; None for ``PATIENCE``.

    Raises:
        EnvError: here and in all methods, when an environment or its process fails; then no worker is left.
    """

    def __init__(
        self, create: Callable[[], "Env"], count: int, name: str, device: torch.device, timeout: float | None = None
    ) -> None:
        if multiprocessing.current_process().daemon:
            raise PgkitError("env.vectorization 'async' needs processes of its own, which a worker may not start: sync")
        size = min(count, available_cpus())
        self._bounds = [count * w // size for w in range(size + 1)]
        self._name, self._timeout = name, PATIENCE if timeout is None else timeout
        self._pipes: list[Connection] = []
        self._arrivals: list[select.poll] = []  # a call of each costs a tenth of Connection.poll's
        self._processes = []
        context = multiprocessing.get_context()
        for begin, end in zip(self._bounds, self._bounds[1:], strict=False):
            here, there = context.Pipe()
            arguments = (there, [*self._pipes, here], _pickled(create), (begin, end), name)
            process = context.Process(target=_work, args=arguments, daemon=True)
            with warnings.catch_warnings():  # Python 3.12 warns of forking beside torch's threads; workers use none
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            self._pipes.append(here)
            self._arrivals.append(select.poll())
            self._arrivals[-1].register(here, select.POLLIN)
            self._processes.append(process)
        util.Finalize(
            self, _end, (self._pipes, self._processes), exitpriority=10
        )  # else Python would join them for ever
        made: EnvInfo = self._gather(dict.fromkeys(range(size)), max(START, self._timeout))[0]
        self.info = replace(made, num_envs=count, vectorization="async", device=device)
        self._action_shape = action_shape(self.info.action_space, name)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        numbers = check_seeds(seeds, index, self.info.num_envs)
        orders, rows = self._split(index)
        message = {w: ("reset", [numbers[i] for i in rows[w]], local) for w, local in orders.items()}
        (obs,) = self._joined(self._gather(message), rows, len(seeds))
        return obs

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.num_envs if index is None else len(index), self._action_shape)
        orders, rows = self._split(index)
        actions = action.cpu().numpy()
        message = {w: ("step", actions[rows[w]], local) for w, local in orders.items()}
        return Transition(*self._joined(self._gather(message), rows, len(action)))

    def resume_problem(self) -> str | None:
        answer: str | None = self._gather({0: ("resume_problem", None, np.empty(0, np.int64))})[0]
        return answer

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        orders, rows = self._split(index)
        answers = self._gather({w: ("lives", None, local) for w, local in orders.items()})
        by_row: dict[int, EnvHistory] = {}
        for w, lives in answers.items():
            by_row |= zip(rows[w].tolist(), lives, strict=True)
        return pack([by_row[row] for row in range(len(by_row))])

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        orders, rows = self._split(index)
        lives = unpack(state)
        self._gather({w: ("live_again", [lives[i] for i in rows[w]], local) for w, local in orders.items()})

    def close(self) -> None:
        _end(self._pipes, self._processes)

    def _split(self, index: Tensor | None) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """By worker: the numbers of its environments that are meant, and the rows of their data."""
        chosen = np.arange(self.info.num_envs) if index is None else index.cpu().numpy()
        owner = np.searchsorted(self._bounds, chosen, side="right") - 1
        rows = {w: np.flatnonzero(owner == w) for w in np.unique(owner).tolist()}
        return {w: chosen[row] - self._bounds[w] for w, row in rows.items()}, rows

    def _gather(self, messages: dict[int, Any], timeout: float | None = None) -> dict[int, Any]:
        """Send to some workers, then collect all answers (a message of None only collects)."""
        seconds = self._timeout if timeout is None else timeout
        answers, w = {}, 0
        try:
            for w, message in messages.items():
                if message is not None:
                    self._pipes[w].send(message)
            deadline = time.monotonic() + seconds
            for w in messages:
                in_time = self._arrivals[w].poll(max(0.0, deadline - time.monotonic()) * 1000)
                answers[w] = self._pipes[w].recv() if in_time else self._overdue(w, seconds)
                if isinstance(answers[w], Exception):
                    raise answers[w]
        except (EOFError, ConnectionError):
            raise self._death(w) from None
        except BaseException:
            self.close()
            raise
        return answers

    def _overdue(self, w: int, seconds: float) -> EnvError:
        """What to say of a worker that has not answered; if it can, it says where it hangs."""
        pid = self._processes[w].pid
        if pid is not None:
            os.kill(pid, signal.SIGUSR1)
        if self._arrivals[w].poll(GRACE * 1000) and isinstance(answer := self._pipes[w].recv(), EnvError):
            return answer
        return EnvError(f"environment {self._name!r}: {self._slice(w)} gave no answer within {seconds:g} s")

    def _death(self, w: int) -> EnvError:
        """What to say of a worker whose pipe is broken."""
        self._processes[w].join(GRACE)
        code = self._processes[w].exitcode
        self.close()
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        return EnvError(f"environment {self._name!r}: the worker process of {self._slice(w)} died{how}")

    def _slice(self, w: int) -> str:
        first, last = self._bounds[w], self._bounds[w + 1] - 1
        return f"sub-environment {first}" if first == last else f"sub-environments {first} to {last}"

    def _joined(self, answers: dict[int, Any], rows: dict[int, np.ndarray], count: int) -> list[Tensor]:
        """The workers' arrays, field by field, each row where it belongs."""
        fields = []
        for parts in zip(*answers.values(), strict=True):
            whole = np.empty((count, *parts[0].shape[1:]), dtype=parts[0].dtype)
            for w, part in zip(answers, parts, strict=True):
                whole[rows[w]] = part
            fields.append(torch.from_numpy(whole).to(self.info.device))
        return fields


def _end(pipes: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    """Let workers end, and kill those that do not."""
    for pipe in pipes:
        if not pipe.closed:
            with suppress(OSError):
                pipe.send(None)  # workers started later hold a copy of the pipe: closing alone tells nothing
            pipe.close()
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


def _work(pipe: Connection, others: Sequence[Connection], create: bytes, bounds: tuple[int, int], name: str) -> None:
    """The life of a worker: answers ``EnvInfo`` first, then one answer to each message."""
    import pickle

    for other in others:  # the parent's ends, which a fork inherits: open, they would hide the parent's death
        other.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # those to a whole group are for the parent, which saves and ends us
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, _say_where)
    envs, (first, end) = None, bounds
    try:
        envs = SyncEnvs(pickle.loads(create), end - first, name, torch.device("cpu"), first)
        pipe.send(envs.info)
        while (message := pipe.recv()) is not None:
            pipe.send(_answer(envs, *message))
    except (EOFError, BrokenPipeError):
        return  # the parent has closed the pipe, or is gone: there is nothing left to do, and nobody to tell
    except PgkitError as error:
        pipe.send(error)
    except ENV_EXCEPTIONS as error:  # of making the environments, or of pgkit: the parent raises it
        pipe.send(env_error(name, "a worker process", error))
    finally:
        if envs is not None:
            envs.close()


def _say_where(number: int, frame: Any) -> None:
    raise StepTimeout("has taken too long (env.timeout)")


def _answer(envs: SyncEnvs, kind: str, data: Any, local: np.ndarray) -> Any:
    """What a worker's environments, those in ``local``, reply to a message."""
    if kind == "step":
        result = envs.step(torch.from_numpy(data), torch.from_numpy(local))
        return tuple(field.numpy() for field in result[:5])
    if kind == "reset":
        return (envs.reset(data, torch.from_numpy(local)).numpy(),)
    if kind == "lives":
        return envs.lives(local.tolist())
    return envs.live_again(data, local.tolist()) if kind == "live_again" else envs.resume_problem()


def _pickled(create: Callable[[], "Env"]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # Gymnasium depends on it, for the same purpose

    data: bytes = cloudpickle.dumps(create)
    return data
