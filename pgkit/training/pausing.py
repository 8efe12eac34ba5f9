"""Train members for a share of their steps, and some of them on later, with the bits of a run without a pause.

:func:`pgkit.train` and :func:`pgkit.resume` do this with a run directory and for all members. Here nothing is written:
where members paused is returned as bytes, and who trains on is up to the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from pgkit.callbacks.protocol import NOTHING
from pgkit.config.schema import TrainConfig
from pgkit.runs import checkpoint
from pgkit.system.process_state import isolated_process
from pgkit.training.arguments import why_inexact
from pgkit.training.evaluator import Evaluation, evaluations_from_state
from pgkit.training.messages import Message, StepsDone
from pgkit.training.read_initial import read_initial
from pgkit.training.result import TrainResult
from pgkit.training.train import PopulationWorker
from pgkit.training.worker_process import WorkerTask
from pgkit.training.worker_state import take_worker_state


class Paused(NamedTuple):
    """Members that have trained for a share of their steps.

    Attributes:
        evaluations: so far.
        failed: whether each member has failed, ``(P,)``.
        env_steps: of each member, ``(P,)``.
        saved: where they paused, as the content of a checkpoint; None if they cannot be continued exactly.
    """

    evaluations: list[Evaluation]
    failed: list[bool]
    env_steps: list[int]
    saved: bytes | None


def train_until(
    configs: Sequence[TrainConfig],
    share: float,
    saved: bytes | None = None,
    on_steps: Callable[[float], None] | None = None,
) -> Paused:
    """Train members until each of them has used a share of its steps, or has failed.

    Members pause between two updates, so some have trained a little longer.

    Args:
        configs: one for each member; callbacks of a configuration are not called.
        share: of the steps.
        saved: where these members paused before; None starts them.
        on_steps: called now and then with the environment steps of all members so far.

    Raises:
        CorruptCheckpoint: ``saved`` is damaged.
        PgkitError: the configurations do not fit together, or cannot run on this machine.
    """
    with isolated_process(), closing(_worker(configs, saved)) as worker:
        state = worker.train_until(_Steps(on_steps), share * configs[0].steps)
        failed = [False] * len(configs)
        env_steps = [0] * len(configs)
        for part in state.parts:
            columns = (part["members"], part["alive"], part["statistics"]["env_steps"])
            for member, alive, steps in zip(*(column.tolist() for column in columns), strict=True):
                failed[member] = not alive
                env_steps[member] = int(steps)
        exact = why_inexact(configs[0]) is None
        content = checkpoint.to_bytes({"parts": list(state.parts), "monitor": dict(state.monitor)}) if exact else None
        return Paused(evaluations_from_state(state.monitor["evaluations"]), failed, env_steps, content)


def train_on(
    configs: Sequence[TrainConfig], saved: bytes, on_steps: Callable[[float], None] | None = None
) -> TrainResult:
    """Train paused members to the end; arguments and errors as of :func:`train_until`."""
    with isolated_process(), closing(_worker(configs, saved)) as worker:
        return worker.train(_Steps(on_steps))


def keep_members(configs: Sequence[TrainConfig], saved: bytes, members: Sequence[int]) -> bytes:
    """Where some of the members that paused together have paused.

    Args:
        configs: one for each member that paused.
        saved: of :class:`Paused`.
        members: positions in ``configs``, ascending.

    Raises:
        CorruptCheckpoint: ``saved`` is damaged.
    """
    return checkpoint.to_bytes(take_worker_state(configs, _read(saved), members))


class _Steps:
    """The channel of members that nobody watches: it passes on how far they are."""

    wants_states = False
    watch = NOTHING

    def __init__(self, on_steps: Callable[[float], None] | None) -> None:
        self._on_steps = on_steps

    def send(self, message: Message) -> None:
        if isinstance(message, StepsDone) and self._on_steps is not None:
            self._on_steps(message.env_steps)

    def take_stops(self) -> Mapping[int, str]:
        return {}

    def stop_requested(self) -> bool:
        return False

    def stop_if_requested(self) -> None:
        """Nobody asks for a stop."""


def _worker(configs: Sequence[TrainConfig], saved: bytes | None) -> PopulationWorker:
    inexact = why_inexact(configs[0])
    if saved is not None:
        return PopulationWorker(WorkerTask(configs, recorded=False, saved=_read(saved), inexact=inexact))
    initial, _ = read_initial(configs)
    return PopulationWorker(WorkerTask(configs, recorded=False, inexact=inexact, initial=initial))


def _read(saved: bytes) -> dict[str, Any]:
    content: dict[str, Any] = checkpoint.from_bytes(saved, "of paused members", device=None)
    return content
