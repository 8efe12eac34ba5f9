"""What a worker sends to the coordinator of its run, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pgkit.training.result import TrainResult


@dataclass(frozen=True)
class StepsDone:
    """Progress.

    Attributes:
        env_steps: environment steps of all members of the worker so far.
    """

    env_steps: float


@dataclass(frozen=True)
class RowsLogged:
    """Log rows of an update, one for each of M members.

    Attributes:
        members: ``(M,)``, counted from the worker's first member, in ascending order.
        env_steps: ``(M,)``, environment steps of each of these members.
        values: by tag, ``(M,)`` each; NaN where a member has nothing to log.
        total_steps: environment steps of all members of the worker so far.
    """

    members: Sequence[int]
    env_steps: Sequence[float]
    values: Mapping[str, Sequence[float]]
    total_steps: float


@dataclass(frozen=True)
class Evaluated:
    """The log row of an evaluation.

    Attributes:
        member: counted from the worker's first member.
        env_steps: environment steps of the member before the evaluation.
        values: by tag.
    """

    member: int
    env_steps: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Line:
    """A line of text for the user."""

    text: str


@dataclass(frozen=True)
class StateSaved:
    """The state of the worker between two updates.

    Attributes:
        parts: states of its populations, the one in training last (:meth:`pgkit.training.population.Population.state`).
        monitor: the state of its monitor (:meth:`pgkit.training.monitor.Monitor.state`).
    """

    parts: Sequence[Mapping[str, Any]]
    monitor: Mapping[str, Any]


Message = StepsDone | RowsLogged | Evaluated | Line | StateSaved
"""What a :class:`Channel` carries while a worker trains."""


@dataclass(frozen=True)
class Started:
    """A worker process is ready for its first update."""


@dataclass(frozen=True)
class Finished:
    """A worker process is done."""

    result: TrainResult


@dataclass(frozen=True)
class WorkerStopped:
    """A worker process has stopped on request, after its last state."""


@dataclass(frozen=True)
class Failed:
    """A worker process has failed with this error."""

    error: Exception


ProcessMessage = Message | Started | Finished | WorkerStopped | Failed
"""What a worker process sends."""


@dataclass(frozen=True)
class Envelope:
    """A message of a worker process.

    Attributes:
        message: what it sends.
        cpu_seconds: CPU time that it spent since its last message.
    """

    message: ProcessMessage
    cpu_seconds: float


class Channel(Protocol):
    """How the monitor of a worker reaches the coordinator: directly, or from another process.

    Attributes:
        wants_states: whether the run has a directory, so that states are to be sent.
    """

    wants_states: bool

    def send(self, message: Message) -> None:
        """Send a message to the coordinator."""

    def stop_requested(self) -> bool:
        """Whether the worker is to send its state and to call :meth:`stop_if_requested`."""

    def stop_if_requested(self) -> None:
        """Raise an exception that ends the training, if that is requested; the state has been sent."""
