"""The cheap part of a diagnosis while a run trains: noise of gradients and health of networks, in TensorBoard."""

import time
from pathlib import Path

import torch

from pgkit.callbacks.views import EvaluationView, RunEnd, RunStart
from pgkit.diagnose.copies import copies_of
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Measured, is_measured
from pgkit.diagnose.scan import measure_gradient
from pgkit.diagnose.settings import Settings
from pgkit.logging.tensorboard import TensorBoardWriter
from pgkit.runs.writer import labels


class DiagnoseWhileTraining:
    """A callback that measures sections A and E of the README at evaluations; ``diagnose.every`` of a configuration.

    Copies of the policy act in environments of their own, so that training has the bits that it has without. What the
    optimizer would do needs its state, which ``pgkit diagnose`` reads from checkpoints.

    Args:
        every: environment steps of a member between two measurements; they are made at the next evaluation.
        copies: M, batches whose gradients are compared.
    """

    def __init__(self, every: int, copies: int = 32) -> None:
        self._every = every
        self._settings = Settings(copies=copies)
        self._due: dict[int, float] = {}
        self._start: RunStart | None = None
        self._labels: list[str] = []
        self._writers: dict[int, TensorBoardWriter] = {}

    def on_start(self, start: RunStart) -> None:
        """Remember whom there is to measure."""
        self._start = start
        self._labels = labels(start.configs)

    def on_evaluation(self, evaluation: EvaluationView) -> None:
        """Measure the policy that was evaluated, if it is time, and write what is known of it."""
        member = evaluation.member
        if self._start is None or evaluation.env_steps < self._due.get(member, 0.0):
            return
        self._due[member] = (evaluation.env_steps // self._every + 1) * self._every
        point = Point(
            config=self._start.configs[member],
            label=self._labels[member],
            env_steps=evaluation.env_steps,
            updates=0,
            params=evaluation.params,
            opt_state=None,
            obs_stats=evaluation.obs_stats,
            return_stats=None,
            kl=torch.full((1,), torch.nan),
        )
        measured = Measured()
        with copies_of(point, self._settings.copies, self._settings.seed, fresh_optimizer=True) as population:
            measure_gradient(point, population, self._settings, measured)
        numbers = {
            f"diagnosis/{name}": quantity.value
            for name, quantity in measured.quantities.items()
            if is_measured(quantity) and not name.endswith("update_snr")
        }
        if self._start.directory is not None:
            self._writer(member, self._start.directory).scalars(int(evaluation.env_steps), numbers, time.time())
            self._writers[member].flush()

    def on_end(self, end: RunEnd) -> None:
        """Close the event files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, member: int, directory: Path) -> TensorBoardWriter:
        """The event file of a member, a run of its own in TensorBoard, beside that of its training."""
        if member not in self._writers:
            assert self._start is not None
            place = directory if len(self._labels) == 1 else directory / self._labels[member]
            self._writers[member] = TensorBoardWriter(place / "while-training", resumed=self._start.resumed)
        return self._writers[member]
