"""A run as a whole: what its slices tell comes together here, and only from here is its directory written."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.rollouts.evaluate import Episodes
from pgkit.runs import env_errors
from pgkit.runs.writer import ResumeState, RunWriter
from pgkit.system.files import WriteError
from pgkit.system.progress import ProgressBar
from pgkit.system.signals import StopSignals
from pgkit.training.result import TrainResult

MemberRows = Mapping[int, tuple[float, Mapping[str, float]]]
"""(environment steps, number by tag) by member."""


class ResultNotSaved(PgkitError):
    """Training is over, but the system refuses to write its end.

    Attributes:
        result: what came out.
    """

    def __init__(self, message: str, result: TrainResult) -> None:
        super().__init__(message)
        self.result = result


class Coordinator:
    """A context: what happens inside is recorded, and can be resumed from the last checkpoint however it ends.

    Args:
        configs: of all members.
        sizes: how many of them are in each slice, one slice after the other.
        directory: of the run, which this process holds; None records nothing.
        inexact: why the run cannot be resumed exactly, if so.
        progress: show a progress bar.
        on_steps: called with the environment steps of all members so far, when they are known.
        past: of a run that goes on.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        sizes: Sequence[int],
        directory: Path | None,
        inexact: str | None,
        progress: bool,
        on_steps: Callable[[float], None] | None,
        past: ResumeState | None = None,
    ) -> None:
        saved = past.saved["slices"] if past else []
        self.configs, self.directory = configs, directory
        self._offsets, self._on_steps = [0, *accumulate(sizes)], on_steps
        self._steps = [steps_in(own) for own in saved] or [0.0] * len(sizes)
        self._states: list[dict[str, Any] | None] = [None] * len(sizes)
        self._unwritten: set[int] = set()  # slices with a state that is in no checkpoint
        self._record = RunWriter(directory, configs, inexact, past)
        self._bar = ProgressBar(configs[0].steps * len(configs), progress)
        self._signals = StopSignals(f"pgkit resume {directory} continues")
        self._notes = list(past.differences) if past else []
        if inexact is not None and not self._notes:
            self._notes = [f"this run cannot be resumed exactly: {inexact}"]
        self._refusal: WriteError | None = None  # of the system to write, at the end of the run
        self._started = time.perf_counter() - max((own["observer"]["seconds"] for own in saved), default=0.0)

    def __enter__(self) -> "Coordinator":
        self._bar.start()
        if self.directory is not None:
            self._signals.__enter__()
        for line in self._notes:
            self._bar.say(f"note: {line}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        env_errors.report(error, self.configs, self.directory)
        with ExitStack() as stack:  # each of these happens, whatever happens to the others
            stack.callback(self._close_record, error)
            stack.callback(self._save_before, error)
            stack.callback(self._signals.__exit__, None, None, None)
            stack.callback(self._bar.stop)

    def _save_before(self, error: BaseException | None) -> None:
        """A slice that fails shall not cost what the others have done; Ctrl-C does not wait for it."""
        if isinstance(error, Exception) and self._unwritten and None not in self._states:
            with suppress(WriteError):
                self._checkpoint()

    def _close_record(self, error: BaseException | None) -> None:
        try:
            self._record.close()
        except WriteError:
            if error is None:  # else that one is to be told
                raise

    def hear(self, number: int, kind: str, content: Any) -> None:
        """Take notice of what a slice tells.

        Args:
            number: of the slice.
            kind: "steps" (environment steps of the slice so far), "trained" (these, and rows), "evaluated" (rows),
                "line" (to be shown) or "state" (between two updates); members are counted from the slice's first.
            content: as the kind says.

        Raises:
            Unwritable: the system refuses to write, and it is not the end of the run.
            Stopped: on a signal, if that state was the last.
        """
        match kind:
            case "steps":
                self._steps[number] = content
                done = sum(self._steps)
                self._bar.show(done)
                if self._on_steps is not None:
                    self._on_steps(done)
            case "trained":
                self._steps[number], rows = content
                self._log(number, self._with_speed(rows))
            case "evaluated":
                self._log(number, content)
            case "line":
                self._bar.say(content)
            case "state":
                self._keep(number, content)

    def stop_wanted(self) -> bool:
        """Whether a signal has come."""
        return self._signals.received is not None

    def stop_here(self) -> None:
        """Nothing would be lost now: raises :class:`Stopped` if a signal has come."""
        self._signals.stop_here()

    def is_trained(self, number: int) -> bool:
        """Whether no update of this slice is to come."""
        state = self._states[number]
        return state is not None and not len(state["parts"][-1]["members"])

    def spend(self, seconds: float) -> None:
        """Count CPU time of a slice's own process."""
        self._record.spend(seconds)

    def finish(self, results: Sequence[TrainResult]) -> TrainResult:
        """What came out of all slices, as one, and recorded.

        Raises:
            Unrecorded: the system refuses to write.
        """
        result = replace(joined(results, self._offsets), directory=self.directory)
        reasons = [{"reason": result.reasons[k]} if k in result.reasons else {} for k in range(len(result.table))]
        told = [row | reason for row, reason in zip(result.table, reasons, strict=True)]
        self._write(lambda: self._record.result(told, result.summary, result.wall_seconds))
        if self._refusal is not None:
            raise ResultNotSaved(str(self._refusal), result)
        return result

    def _log(self, number: int, rows: MemberRows) -> None:
        first = self._offsets[number]
        self._write(partial(self._record.rows, number, {first + member: row for member, row in rows.items()}))
        returns = [numbers.get("train/episode_return", float("nan")) for _, numbers in rows.values()]
        for latest in [number for number in returns if number == number][-1:]:
            self._bar.note(f"return {latest:.1f}")

    def _with_speed(self, rows: MemberRows) -> MemberRows:
        speed = {"time/env_steps_per_second": sum(self._steps) / (time.perf_counter() - self._started)}
        return {member: (steps, {**numbers, **speed}) for member, (steps, numbers) in rows.items()}

    def _keep(self, number: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint as soon as there is a new state of every slice in training."""
        self._states[number] = {**state, "rows": self._record.count(number)}
        self._unwritten.add(number)
        numbers = range(len(self._states))
        if all(k in self._unwritten or self.is_trained(k) for k in numbers):
            self._write(self._checkpoint)
        if self._ending():
            self._signals.safe = True
            self._signals.stop_here()

    def _checkpoint(self) -> None:
        self._unwritten.clear()
        self._record.checkpoint([state for state in self._states if state is not None])

    def _ending(self) -> bool:
        """Whether all members are trained: what is left can be done again."""
        return all(self.is_trained(k) for k in range(len(self._states)))

    def _write(self, action: Callable[[], None]) -> None:
        """Do it; at the end of a run, a refusal of the system waits until the results are known."""
        try:
            action()
        except WriteError as error:
            if not self._ending():
                raise
            self._refusal = self._refusal or error


class LocalChannel:
    """The outlet of a run's only slice, which trains in the process that writes."""

    def __init__(self, whole: Coordinator) -> None:
        self.recorded = whole.directory is not None
        self.tell, self.stop_wanted, self.stop_here = partial(whole.hear, 0), whole.stop_wanted, whole.stop_here


def steps_in(saved: Mapping[str, Any]) -> float:
    """Environment steps of all members of a saved slice."""
    return sum(float(part["statistics"]["env_steps"].sum()) for part in saved["parts"])


def joined(results: Sequence[TrainResult], offsets: Sequence[int]) -> TrainResult:
    """The results of slices, whose members begin at these positions, as one."""
    pairs = list(zip(results, offsets, strict=False))
    first = results[0]
    return TrainResult(
        table=[row for own in results for row in own.table],
        evaluations=[e._replace(member=e.member + offset) for own, offset in pairs for e in own.evaluations],
        final=Episodes(*(torch.cat(leaves) for leaves in zip(*(own.final for own in results), strict=True))),
        params={name: torch.cat([own.params[name] for own in results]) for name in first.params},
        obs_stats={name: torch.cat([own.obs_stats[name] for own in results]) for name in first.obs_stats},
        parts=[part for own in results for part in own.parts],
        directory=first.directory,
        reasons={member + offset: reason for own, offset in pairs for member, reason in own.reasons.items()},
        wall_seconds=max(own.wall_seconds for own in results),
    )
