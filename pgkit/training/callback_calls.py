"""Make of what workers send what callbacks see, and keep whom they stop."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pgkit.callbacks.dispatch import Callbacks, ended
from pgkit.callbacks.protocol import Watch
from pgkit.callbacks.views import (
    EvaluationView,
    LogView,
    RolloutView,
    RunEnd,
    RunStart,
    UpdateView,
    copy_rollout,
    copy_tree,
    plain_columns,
)
from pgkit.config.schema import TrainConfig
from pgkit.errors import format_error
from pgkit.runs.reader import parts_of
from pgkit.training.messages import Evaluated, RolloutCollected, UpdateMade
from pgkit.training.result import TrainResult


class CallbackCalls:
    """Calls the callbacks of a run, in the process of its coordinator. A run without callbacks does nothing here.

    Args:
        callbacks: in the order in which they are called.
        configs: one for each member of the run.
        offsets: the first member of each worker, and the number of members.
        directory: of the run, or None.

    Attributes:
        watch: what workers have to send.
    """

    def __init__(
        self,
        callbacks: Sequence[object],
        configs: Sequence[TrainConfig],
        offsets: Sequence[int],
        directory: Path | None,
    ) -> None:
        self._callbacks = Callbacks(callbacks, [config.seed for config in configs])
        self.watch: Watch = self._callbacks.watch
        self._configs = tuple(configs)
        self._workers = list(pairwise(offsets))
        self._directory = directory
        self._stops: dict[int, str] = {}  # of members whose worker does not know yet
        self._is_over = False

    def start(self, saved: Mapping[str, Any] | None) -> None:
        """Call ``on_start``.

        Args:
            saved: the content of the checkpoint of a resumed run.
        """
        steps = [0.0] * len(self._configs)
        for part in [] if saved is None else parts_of(saved):
            for member, count in zip(part["members"].tolist(), part["statistics"]["env_steps"].tolist(), strict=True):
                steps[member] = count
        start = RunStart(self._configs, self._directory, tuple(steps), saved is not None)
        self._call("on_start", lambda: start)

    def collected(self, worker: int, message: RolloutCollected) -> None:
        """Call ``on_rollout``."""
        members, seeds = self._members(worker, message.members)
        self._call(
            "on_rollout",
            lambda: RolloutView(
                members,
                seeds,
                tuple(message.env_steps),
                message.update,
                copy_rollout(message.rollout),
                copy_rollout(message.unnormalized),
            ),
        )

    def updated(self, worker: int, message: UpdateMade) -> None:
        """Call ``on_update``."""
        members, seeds = self._members(worker, message.members)
        self._call(
            "on_update",
            lambda: UpdateView(
                members,
                seeds,
                tuple(message.env_steps),
                message.update,
                copy_tree(message.params),
                plain_columns(message.metrics),
            ),
        )

    def logged(
        self, worker: int, rows: Sequence[int], env_steps: Sequence[float], values: Mapping[str, Sequence[float]]
    ) -> None:
        """Call ``on_log`` with a row of each of these members of a worker; all arguments but the first are ``(M,)``."""
        if rows:
            members, seeds = self._members(worker, rows)
            self._call("on_log", lambda: LogView(members, seeds, tuple(env_steps), plain_columns(values)))

    def evaluated(self, worker: int, message: Evaluated) -> None:
        """Call ``on_evaluation``."""
        details = message.details
        if details is None:
            return
        (member,), (seed,) = self._members(worker, [message.member])
        self._call(
            "on_evaluation",
            lambda: EvaluationView(
                member,
                seed,
                message.env_steps,
                copy_tree(details.episodes.returns),
                copy_tree(details.episodes.lengths),
                dict(message.values),
                tuple(details.history),
                copy_tree(details.params),
                copy_tree(dict(details.obs_stats)),
            ),
        )

    def end(self, result: TrainResult) -> None:
        """Call ``on_end`` of a run that has its result.

        Raises:
            CallbackError: what the first of them has raised.
        """
        self._is_over = True
        errors = self._callbacks.end(
            lambda: RunEnd(
                "stopped" if result.stopped else "finished",
                None,
                self._directory,
                tuple(dict(row) for row in result.table),
                result.summary,
                dict(result.stopped),
                copy_tree(result.params),
                copy_tree(result.obs_stats),
            )
        )
        for error in errors:
            raise error

    def end_without_result(self, error: BaseException | None) -> None:
        """Call ``on_end`` of a run that ends with an error, unless it has been called; theirs become notes of it."""
        if error is None or self._is_over:
            return
        self._is_over = True
        interrupted = isinstance(error, KeyboardInterrupt)
        text = format_error(error) if isinstance(error, Exception) else str(error) or "interrupted"
        for other in self._callbacks.end(
            lambda: ended("interrupted" if interrupted else "failed", text, self._directory)
        ):
            error.add_note(str(other))

    def take_stops(self, worker: int) -> dict[int, str]:
        """The members of a worker, counted from its first one, that have been stopped since the last call."""
        if not self._stops:
            return {}
        first, end = self._workers[worker]
        members = [member for member in self._stops if first <= member < end]
        return {member - first: self._stops.pop(member) for member in members}

    def _call(self, moment: str, make_view: Any) -> None:
        if moment in self.watch.moments:
            self._stops = {**self._callbacks.call(moment, make_view), **self._stops}

    def _members(self, worker: int, rows: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Positions in the run, and seeds, of members of a worker."""
        first = self._workers[worker][0]
        members = tuple(first + row for row in rows)
        return members, tuple(self._configs[member].seed for member in members)
