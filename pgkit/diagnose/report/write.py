"""Write all outputs of a diagnosis."""

from pathlib import Path

from pgkit.diagnose.report.figures import draw_all
from pgkit.diagnose.report.html import diagnosis_page
from pgkit.diagnose.report.json_file import NAME, write_diagnosis
from pgkit.diagnose.report.tables import write_tables
from pgkit.diagnose.report.tensorboard import write_tensorboard
from pgkit.diagnose.results import Diagnosis
from pgkit.plots.page import write_drawings
from pgkit.system.files import replace_entries, write_text


def write_report(diagnosis: Diagnosis, directory: Path, run_logs: Path | None = None, workers: int = 1) -> Path:
    """Write ``report.html``, ``diagnosis.json``, ``tables/``, ``figures/`` and ``tensorboard/``.

    All is written into a hidden directory first, so that a killed process leaves the report before whole. What else is
    in the directory stays as it is.

    Args:
        diagnosis: the results.
        directory: created when missing.
        run_logs: directory of a TensorBoard run for each member, replaced; None for ``tensorboard/`` in ``directory``,
            which ``tensorboard --logdir`` finds below the run.
        workers: how many processes draw figures.

    Returns:
        The path of the page.

    Raises:
        WriteError: the system refuses to write.
    """
    drawings = draw_all(diagnosis, workers)
    with replace_entries(directory) as new:
        write_tables(diagnosis, new / "tables")
        write_drawings(drawings, new / "figures")
        if run_logs is None:
            write_tensorboard(diagnosis, new / "tensorboard", drawings)
        write_diagnosis(diagnosis, new / NAME)
        write_text(new / "report.html", diagnosis_page(diagnosis, drawings))
    if run_logs is not None:
        with replace_entries(run_logs) as new:
            write_tensorboard(diagnosis, new, drawings)
    return directory / "report.html"
