"""What runs in a worker process of :class:`pgkit.envs.async_envs.AsyncEnvs`, and the requests that it answers.

A worker holds a contiguous slice of the environments. Its first answer is their ``EnvInfo``; then it answers each
request in turn, with a result or with an exception, until it receives None or its parent is gone.
"""

import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from pgkit.envs.errors import StepTimeout, env_error
from pgkit.envs.generators import seed_global_generators
from pgkit.envs.replay import EnvHistory
from pgkit.envs.sync_envs import SyncEnvs
from pgkit.errors import PgkitError
from pgkit.system.signals import SIGNALS


class Request(Protocol):
    """A message from the parent. ``local`` always are numbers of environments within the worker's slice."""

    def run(self, envs: SyncEnvs) -> Any:
        """Do what is asked; the answer is sent to the parent."""
        ...


class Reset(NamedTuple):
    """Reset environments; answers with their observations."""

    local: np.ndarray
    seeds: list[int]

    def run(self, envs: SyncEnvs) -> tuple[np.ndarray]:
        return (envs.reset(self.seeds, torch.from_numpy(self.local)).numpy(),)


class Step(NamedTuple):
    """Step environments; answers with the five arrays of a transition."""

    local: np.ndarray
    actions: np.ndarray

    def run(self, envs: SyncEnvs) -> tuple[np.ndarray, ...]:
        transition = envs.step(torch.from_numpy(self.actions), torch.from_numpy(self.local))
        return tuple(field.numpy() for field in transition[:5])


class GetHistories(NamedTuple):
    """Answer with what environments have done since their last resets."""

    local: np.ndarray

    def run(self, envs: SyncEnvs) -> list[EnvHistory]:
        return envs.histories(self.local.tolist())


class RestoreHistories(NamedTuple):
    """Bring environments to where histories end."""

    local: np.ndarray
    histories: list[EnvHistory]

    def run(self, envs: SyncEnvs) -> None:
        envs.restore_histories(self.histories, self.local.tolist())


def run_worker(
    pipe: Connection,
    inherited: Sequence[Connection],
    pickled_create: bytes,
    bounds: tuple[int, int],
    name: str,
    action_mask: bool,
) -> None:
    """Answer requests until the parent asks to stop.

    Args:
        pipe: connection to the parent.
        inherited: the parent's ends of pipes that a forked process inherits; they are closed.
        pickled_create: pickled function that makes one environment.
        bounds: the first environment of the slice, and the first one after it.
        name: name of the environment, for messages.
        action_mask: as of :class:`SyncEnvs`.
    """
    import pickle

    for connection in inherited:  # an open copy of the parent's end would hide the parent's death
        connection.close()
    # Signals reach the whole process group, but only the parent acts on them: it saves, then stops the workers.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, _raise_timeout)
    first, end = bounds
    envs = None
    seed_global_generators(first)  # forked workers would draw the same numbers
    try:
        envs = SyncEnvs(pickle.loads(pickled_create), end - first, name, torch.device("cpu"), first, action_mask)
        pipe.send(envs.info)
        while (request := pipe.recv()) is not None:
            pipe.send(request.run(envs))
    except (EOFError, BrokenPipeError):
        return  # the parent has closed the pipe or is gone
    except PgkitError as error:
        pipe.send(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # raised while environments are created, or by a mistake of pgkit's
        pipe.send(env_error(name, "a worker process", error))
    finally:
        if envs is not None:
            envs.close()


def _raise_timeout(number: int, frame: Any) -> None:
    """Answer the parent's signal that time is up: the traceback then shows where the environment hangs."""
    raise StepTimeout("(env.timeout)")
