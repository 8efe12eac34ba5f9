"""The coordinator of a run: it receives what workers send, and alone writes the run directory."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, assert_never

from pgkit.callbacks.protocol import Watch
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.runs import env_errors
from pgkit.runs.writer import ResumeState, RunWriter
from pgkit.system.files import WriteError
from pgkit.system.progress import ProgressBar
from pgkit.system.signals import StopSignals
from pgkit.training.callback_calls import CallbackCalls
from pgkit.training.messages import (
    Evaluated,
    Line,
    Message,
    RolloutCollected,
    RowsLogged,
    StateSaved,
    StepsDone,
    UpdateMade,
)
from pgkit.training.result import TrainResult, join_results
from pgkit.training.train_on import any_steps_left


class ResultNotSaved(PgkitError):
    """Training is over, but the system refuses to write the result.

    Attributes:
        result: what could not be saved.
    """

    result: TrainResult


class Coordinator:
    """Shows progress and writes log rows, checkpoints and results. A context: however it ends, the run can be resumed.

    Args:
        configs: one for each member.
        sizes: how many members each worker has; their members follow each other in ``configs``.
        directory: of the run, locked by this process; None writes nothing.
        inexact: why the run cannot be resumed exactly; None if it can.
        progress: whether to show a progress bar.
        on_steps: called now and then with the environment steps of all members so far.
        resume_state: of a resumed run.
        init_source: of a run that begins with another's parameters, for ``provenance.json``.
        callbacks: objects with methods of :class:`pgkit.callbacks.Callback`.

    Attributes:
        configs: one for each member.
        directory: of the run, or None.
        watch: what callbacks want to see.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        sizes: Sequence[int],
        directory: Path | None,
        inexact: str | None,
        progress: bool,
        on_steps: Callable[[float], None] | None,
        resume_state: ResumeState | None = None,
        init_source: Mapping[str, Any] | None = None,
        callbacks: Sequence[object] = (),
    ) -> None:
        saved = resume_state.saved["workers"] if resume_state else []
        self.configs = configs
        self.directory = directory
        self._offsets = [0, *accumulate(sizes)]
        self._on_steps = on_steps
        self._steps = [steps_in(worker) for worker in saved] or [0.0] * len(sizes)
        self._row_counts = [worker["rows"] for worker in saved] or [0] * len(sizes)
        self._states: list[dict[str, Any] | None] = [None] * len(sizes)
        self._unsaved: set[int] = set()  # workers whose latest state is in no checkpoint
        self._writer = RunWriter(directory, configs, inexact, resume_state, init_source)
        self._bar = ProgressBar(configs[0].steps * len(configs), progress)
        self._signals = StopSignals(f"pgkit resume {directory} continues")
        self._notes = list(resume_state.differences) if resume_state else []
        if resume_state and not any_steps_left(resume_state.saved, configs[0].steps):
            self._notes.append("all steps are trained already: only the final evaluation is repeated")
        if inexact is not None and not self._notes:
            self._notes = [f"this run cannot be resumed exactly: {inexact}"]
        self._write_error: WriteError | None = None  # the first one at the end of the run
        seconds = max((worker["monitor"]["seconds"] for worker in saved), default=0.0)
        self._started = time.perf_counter() - seconds
        self._calls = CallbackCalls(callbacks, configs, self._offsets, directory)
        self._resumed_from = None if resume_state is None else resume_state.saved
        self.watch: Watch = self._calls.watch

    def __enter__(self) -> "Coordinator":
        self._bar.start()
        if self.directory is not None:
            self._signals.__enter__()
        for note in self._notes:
            self._bar.print(f"note: {note}")
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.end_without_result(error)
        env_errors.report(error, self.configs, self.directory)
        with ExitStack() as stack:  # each callback runs, even if another one raises; the last one first
            stack.callback(self._close_writer, error)
            stack.callback(self._save_unsaved, error)
            stack.callback(self._signals.__exit__, None, None, None)
            stack.callback(self._bar.stop)

    def _save_unsaved(self, error: BaseException | None) -> None:
        """After the failure of one worker, keep what the others have done; after Ctrl-C there is no time for that."""
        if isinstance(error, Exception) and self._unsaved and None not in self._states:
            with suppress(WriteError):
                self._save_checkpoint()

    def _close_writer(self, error: BaseException | None) -> None:
        try:
            self._writer.close()
        except WriteError:
            if error is None:  # the user needs to see the first error
                raise

    def start(self) -> None:
        """Say to callbacks that the run begins.

        Raises:
            CallbackError: one has failed.
        """
        self._calls.start(self._resumed_from)

    def handle(self, worker: int, message: Message) -> None:
        """Handle a message of a worker.

        Args:
            worker: its index.
            message: what it sends; members are counted from its first one.

        Raises:
            WriteError: the system refuses to write, and training is not over.
            Stopped: a signal has come, and training is over.
            CallbackError: a callback has failed.
        """
        match message:
            case StepsDone(env_steps):
                self._steps[worker] = env_steps
                total = sum(self._steps)
                self._bar.show(total)
                if self._on_steps is not None:
                    self._on_steps(total)
            case RowsLogged():
                self._steps[worker] = message.total_steps
                speed = sum(self._steps) / (time.perf_counter() - self._started)
                values = {**message.values, "time/env_steps_per_second": [speed] * len(message.members)}
                self._log(worker, message.members, message.env_steps, values)
                self._show_return(message.values["train/episode_return"])
                self._calls.logged(worker, message.members, message.env_steps, values)
            case Evaluated():
                values = {tag: [number] for tag, number in message.values.items()}
                self._log(worker, [message.member], [message.env_steps], values)
                self._calls.logged(worker, [message.member], [message.env_steps], values)
                self._calls.evaluated(worker, message)
            case RolloutCollected():
                self._calls.collected(worker, message)
            case UpdateMade():
                self._calls.updated(worker, message)
            case Line(text):
                self._bar.print(text)
            case StateSaved():
                self._keep_state(worker, message)
            case _:
                assert_never(message)

    def take_stops(self, worker: int) -> dict[int, str]:
        """The members of a worker that callbacks have stopped since the last call, with their reasons."""
        return self._calls.take_stops(worker)

    def stop_requested(self) -> bool:
        """Whether a signal has come."""
        return self._signals.received is not None

    def stop_if_requested(self) -> None:
        """Raise :class:`~pgkit.system.signals.Stopped` if a signal has come; all states must have been handled."""
        self._signals.stop_if_received()

    def is_trained(self, worker: int) -> bool:
        """Whether all members of a worker have left training."""
        state = self._states[worker]
        return state is not None and not len(state["parts"][-1]["members"])

    def add_cpu_seconds(self, seconds: float) -> None:
        """Count CPU time of a worker process."""
        self._writer.add_cpu_seconds(seconds)

    def finish(self, results: Sequence[TrainResult]) -> TrainResult:
        """Join the results of all workers, and save them.

        Raises:
            ResultNotSaved: the system refuses to write.
            CallbackError: a callback has failed.
        """
        result = replace(join_results(results, self._offsets), directory=self.directory)
        notes = (("reason", result.reasons), ("stopped", result.stopped))
        table = [row | {name: texts[k] for name, texts in notes if k in texts} for k, row in enumerate(result.table)]
        self._write(lambda: self._writer.save_result(table, result.summary, result.wall_seconds))
        self._calls.end(result)
        if self._write_error is not None:
            error = ResultNotSaved(str(self._write_error))
            error.result = result
            raise error
        return result

    def _log(
        self, worker: int, members: Sequence[int], env_steps: Sequence[float], values: Mapping[str, Sequence[float]]
    ) -> None:
        """Log a row for each of these members of a worker; all arguments but the first are ``(M,)``."""
        logger = self._writer.logger
        if logger is None or not members:
            return
        positions = [self._offsets[worker] + member for member in members]

        def write() -> None:
            self._writer.check_directory()
            self._row_counts[worker] += logger.log(env_steps, values, positions)

        self._write(write)

    def _show_return(self, returns: Sequence[float]) -> None:
        """Show the last member's return in the progress bar."""
        for latest in [number for number in returns if number == number][-1:]:
            self._bar.note(f"return {latest:.1f}")

    def _keep_state(self, worker: int, state: StateSaved) -> None:
        """Keep a state, and write a checkpoint once every worker in training has sent a new one."""
        self._states[worker] = {"parts": state.parts, "monitor": state.monitor, "rows": self._row_counts[worker]}
        self._unsaved.add(worker)
        if all(k in self._unsaved or self.is_trained(k) for k in range(len(self._states))):
            self._write(self._save_checkpoint)
        if self._training_over():
            self._signals.safe = True
            self._signals.stop_if_received()

    def _save_checkpoint(self) -> None:
        self._unsaved.clear()
        self._writer.save_checkpoint([state for state in self._states if state is not None])

    def _training_over(self) -> bool:
        """Whether all members are trained, so that resuming repeats nothing but the final evaluation."""
        return all(self.is_trained(k) for k in range(len(self._states)))

    def _write(self, action: Callable[[], None]) -> None:
        """Write something. Once training is over, an error waits until the results have been computed."""
        try:
            action()
        except WriteError as error:
            if not self._training_over():
                raise
            self._write_error = self._write_error or error


class LocalChannel:
    """The channel of a run's only worker, in the coordinator's process."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.wants_states = coordinator.directory is not None
        self.watch = coordinator.watch
        self._coordinator = coordinator

    def send(self, message: Message) -> None:
        self._coordinator.handle(0, message)

    def take_stops(self) -> dict[int, str]:
        return self._coordinator.take_stops(0)

    def stop_requested(self) -> bool:
        return self._coordinator.stop_requested()

    def stop_if_requested(self) -> None:
        self._coordinator.stop_if_requested()


def steps_in(saved: Mapping[str, Any]) -> float:
    """Environment steps of all members of a worker, from its state."""
    return sum(float(part["statistics"]["env_steps"].sum()) for part in saved["parts"])
