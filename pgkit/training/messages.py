"""What a worker sends to the coordinator of its run, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pgkit.callbacks.protocol import Watch
from pgkit.rollouts.evaluate import Episodes
from pgkit.training.result import TrainResult
from pgkit.types import Params, Rollout


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
class EvaluationDetails:
    """What callbacks see of an evaluation beside its log row.

    Attributes:
        episodes: returns and lengths, ``(E,)`` each.
        history: mean returns of all evaluations of the member so far, this one last.
        params: what was evaluated, leaves ``(1, ...)``.
        obs_stats: statistics of the observation normalizer, leaves ``(1, ...)``.
    """

    episodes: Episodes
    history: Sequence[float]
    params: Params
    obs_stats: Mapping[str, Tensor]


@dataclass(frozen=True)
class Evaluated:
    """The log row of an evaluation.

    Attributes:
        member: counted from the worker's first member.
        env_steps: environment steps of the member before the evaluation.
        values: by tag.
        details: for callbacks that define ``on_evaluation``, else None.
    """

    member: int
    env_steps: float
    values: Mapping[str, float]
    details: EvaluationDetails | None = None


@dataclass(frozen=True)
class RolloutCollected:
    """Members have acted, for callbacks that define ``on_rollout``.

    Attributes:
        members: ``(M,)``, counted from the worker's first member.
        env_steps: ``(M,)``, environment steps of each of them before the rollout.
        update: the number of the update, from 1.
        rollout: ``(T, M, N, ...)``, as the learner sees it.
        unnormalized: the same as the environments gave it.
    """

    members: Sequence[int]
    env_steps: Sequence[float]
    update: int
    rollout: Rollout
    unnormalized: Rollout


@dataclass(frozen=True)
class UpdateMade:
    """Members have learnt, for callbacks that define ``on_update``.

    Attributes:
        members: ``(M,)``, counted from the worker's first member.
        env_steps: ``(M,)``, environment steps of each of them so far.
        update: the number of the update, from 1.
        params: the parameters after it, leaves ``(M, ...)``.
        metrics: by tag, ``(M,)`` each.
    """

    members: Sequence[int]
    env_steps: Sequence[float]
    update: int
    params: Params
    metrics: Mapping[str, Sequence[float]]


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


Message = StepsDone | RowsLogged | Evaluated | RolloutCollected | UpdateMade | Line | StateSaved
"""What a :class:`Channel` carries while a worker trains."""

_MOMENTS: Mapping[type, frozenset[str]] = {
    RolloutCollected: frozenset(["on_rollout"]),
    UpdateMade: frozenset(["on_update"]),
    RowsLogged: frozenset(["on_log"]),
    Evaluated: frozenset(["on_log", "on_evaluation"]),
}


def calls_back(message: object, watch: Watch) -> bool:
    """Whether callbacks are called with a message, so that its worker waits for what they say."""
    return not watch.moments.isdisjoint(_MOMENTS.get(type(message), frozenset()))


@dataclass(frozen=True)
class StopMembers:
    """What the coordinator tells a worker process: callbacks stop these members.

    Attributes:
        reasons: by member, counted from the worker's first one; empty if there are none.
        is_reply: whether the worker waits for this, because it has sent a message that callbacks were called with.
    """

    reasons: Mapping[int, str]
    is_reply: bool


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
        watch: what callbacks want to see.
    """

    wants_states: bool
    watch: Watch

    def send(self, message: Message) -> None:
        """Send a message to the coordinator."""

    def take_stops(self) -> Mapping[int, str]:
        """The members that callbacks have stopped since the last call, with their reasons."""

    def stop_requested(self) -> bool:
        """Whether the worker is to send its state and to call :meth:`stop_if_requested`."""

    def stop_if_requested(self) -> None:
        """Raise an exception that ends the training, if that is requested; the state has been sent."""
