"""Gymnasium environments in worker processes, NEXT_STEP autoreset, any subset at a time.

One process per core runs a slice of the environments in the loop of :mod:`pgkit.envs.sync`, so the numbers are those
of the synchronous loop to the last bit. (Gymnasium's ``AsyncVectorEnv`` starts one process per environment, hundreds
for a population, and steps all or none; it can be had through ``wrap_vector_env``.)
"""

import multiprocessing
import os
import signal
import time
import traceback
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
from pgkit.envs.replay import Life, pack, unpack
from pgkit.envs.spaces import action_shape, check_action
from pgkit.envs.sync import SyncEnvs
from pgkit.types import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env


GRACE = 2.0
"""Seconds that a worker has to end, before it is killed."""


class AsyncEnvs:
    """K instances of a Gymnasium environment, in contiguous slices on ``min(K, cores)`` processes."""

    def __init__(self, create: Callable[[], "Env"], count: int, name: str, device: torch.device) -> None:
        size = min(count, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        self._bounds = [count * w // size for w in range(size + 1)]
        self._name = name
        self._pipes: list[Connection] = []
        self._processes = []
        context = multiprocessing.get_context()
        for begin, end in zip(self._bounds, self._bounds[1:], strict=False):
            here, there = context.Pipe()
            arguments = (there, here, _pickled(create), end - begin, name)
            process = context.Process(target=_work, args=arguments, daemon=True)
            with warnings.catch_warnings():  # Python 3.12 warns of forking beside torch's threads; workers use none
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        util.Finalize(
            self, _end, (self._pipes, self._processes), exitpriority=10
        )  # else Python would join them for ever
        self.info: EnvInfo = replace(
            self._gather(dict.fromkeys(range(size)))[0], count=count, vectorization="async", device=device
        )
        self._action_shape = action_shape(self.info.action_space, name)

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        numbers = check_seeds(seeds, index, self.info.count)
        orders, rows = self._split(index)
        message = {w: ("reset", [numbers[i] for i in rows[w]], local) for w, local in orders.items()}
        (obs,) = self._joined(self._gather(message), rows, len(seeds))
        return obs

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        check_action(action, self.info.count if index is None else len(index), self._action_shape)
        orders, rows = self._split(index)
        actions = action.cpu().numpy()
        message = {w: ("step", actions[rows[w]], local) for w, local in orders.items()}
        return Transition(*self._joined(self._gather(message), rows, len(action)))

    def why_inexact(self) -> str | None:
        answer: str | None = self._gather({0: ("why_inexact", None, np.empty(0, np.int64))})[0]
        return answer

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        orders, rows = self._split(index)
        answers = self._gather({w: ("lives", None, local) for w, local in orders.items()})
        by_row: dict[int, Life] = {}
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
        chosen = np.arange(self.info.count) if index is None else index.cpu().numpy()
        owner = np.searchsorted(self._bounds, chosen, side="right") - 1
        rows = {w: np.flatnonzero(owner == w) for w in np.unique(owner).tolist()}
        return {w: chosen[row] - self._bounds[w] for w, row in rows.items()}, rows

    def _gather(self, messages: dict[int, Any]) -> dict[int, Any]:
        """Send to some workers, then collect all answers (a message of None only collects)."""
        try:
            for w, message in messages.items():
                if message is not None:
                    self._pipes[w].send(message)
            answers = {w: self._pipes[w].recv() for w in messages}
        except (EOFError, ConnectionError):
            self.close()
            raise RuntimeError(f"a worker process of environment {self._name!r} died") from None
        for answer in answers.values():
            if isinstance(answer, Exception):
                self.close()
                raise answer
        return answers

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


def _work(pipe: Connection, other_end: Connection, create: bytes, count: int, name: str) -> None:
    """The life of a worker: answers ``EnvInfo`` first, then one answer to each message."""
    import pickle

    other_end.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # those to a whole group are for the parent, which saves and ends us
        signal.signal(number, signal.SIG_IGN)
    envs = None
    try:
        envs = SyncEnvs(pickle.loads(create), count, name, torch.device("cpu"))
        pipe.send(envs.info)
        while (message := pipe.recv()) is not None:
            pipe.send(_answer(envs, *message))
    except (EOFError, BrokenPipeError):
        pass  # the parent has closed the pipe, or is gone: there is nothing left to do, and nobody to tell
    except PgkitError as error:
        pipe.send(error)
    except Exception:  # whatever it is, the parent raises it
        pipe.send(RuntimeError(f"environment {name!r} failed in a worker:\n{traceback.format_exc()}"))
    finally:
        if envs is not None:
            envs.close()


def _answer(envs: SyncEnvs, kind: str, data: Any, local: np.ndarray) -> Any:
    """What a worker's environments, those in ``local``, reply to a message."""
    if kind == "step":
        result = envs.step(torch.from_numpy(data), torch.from_numpy(local))
        return tuple(field.numpy() for field in result[:5])
    if kind == "reset":
        return (envs.reset(data, torch.from_numpy(local)).numpy(),)
    if kind == "lives":
        return envs.lives(local.tolist())
    return envs.live_again(data, local.tolist()) if kind == "live_again" else envs.why_inexact()


def _pickled(create: Callable[[], "Env"]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # Gymnasium depends on it, for the same purpose

    data: bytes = cloudpickle.dumps(create)
    return data
