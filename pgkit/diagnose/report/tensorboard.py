"""A diagnosis in TensorBoard: each member's quantities at the environment steps of its points, and its figures."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgkit.diagnose.report.figures import members
from pgkit.diagnose.results import Diagnosis, PointResult, is_measured
from pgkit.logging.tensorboard import TensorBoardWriter
from pgkit.plots.page import Drawing

PREFIX = "diagnosis"


def write_tensorboard(diagnosis: Diagnosis, directory: Path, drawings: Sequence[Drawing]) -> None:
    """Write a TensorBoard run for each member: ``<directory>/<label>/``, with tags ``diagnosis/<section>/<quantity>``.

    Runs have no hyperparameters, so TensorBoard's HParams tab stays that of the training. Values that are not finite
    are left out.

    Args:
        diagnosis: the results.
        directory: without event files of an earlier diagnosis.
        drawings: figures, shown as images of the member that they are about.

    Raises:
        WriteError: the system refuses to write.
    """
    now = time.time()
    for label in members(diagnosis):
        writer = TensorBoardWriter(directory / label)
        for point in diagnosis.points:
            if point.member == label:
                writer.scalars(round(point.env_steps), scalars(point), now)
        for drawing in drawings:
            if drawing.where == label:
                writer.image(f"{PREFIX}/{drawing.figure}", drawing.png)
        writer.close()


def scalars(point: PointResult) -> Mapping[str, float]:
    """Return the finite values of a point by tag."""
    measured = {name: quantity.value for name, quantity in point.quantities.items() if is_measured(quantity)}
    return {f"{PREFIX}/{name}": value for name, value in measured.items()}
