"""Comparisons from Python: run one, load one, look at it."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.analysis.pool import Stored, pool, read_stored
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.executors import Executor, LocalExecutor, RayExecutor
from pgkit.compare.execution.scheduler import execute, forecast
from pgkit.compare.execution.store import Store
from pgkit.compare.plan.baselines import scales
from pgkit.compare.plan.plan import Plan, read_plan
from pgkit.compare.report.html import draw, write_report
from pgkit.compare.report.tensorboard import write_tensorboard
from pgkit.compare.tables import Analysis
from pgkit.errors import PgkitError

COMPARISONS = Path("comparisons")
"""Where comparisons go below the working directory."""


def compare(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    directory: Path | None = None,
    workers: int = 2,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    progress: bool = False,
) -> Analysis:
    """Run a comparison, or what is missing of it, and write its report.

    In a script, call it below ``if __name__ == "__main__":``, because worker processes import the script.

    Args:
        name_or_path: a shipped comparison, or the path of a TOML file.
        overrides: ``"tier=standard"`` and the like.
        directory: of the comparison; ``comparisons/<name>`` unless given.
        workers: populations that train at the same time, one core each.
        executor: processes on this machine, or Ray.
        ray_address: of a Ray cluster; None starts one on this machine.
        progress: show it.

    Raises:
        PgkitError: a mistake in the comparison, results of another one in the directory, or runs that crashed.
    """
    plan = read_plan(name_or_path, overrides)
    directory = directory or COMPARISONS / plan.config.name
    with Display(progress) as display, closing(make_executor(executor, workers, ray_address)) as where:
        execute(plan, Store(directory), where, display)
    return report(directory)


def dry_run(name_or_path: str | Path, overrides: Sequence[str], workers: int) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan, and a row of cost for each stage and case, measured here; writes nothing.

    Raises:
        PgkitError: a mistake in the comparison.
    """
    plan = read_plan(name_or_path, overrides)
    return plan, forecast(plan, workers)


def make_executor(kind: str, workers: int, ray_address: str | None = None) -> Executor:
    """The executor of that kind."""
    return RayExecutor(workers, ray_address) if kind == "ray" else LocalExecutor(workers)


def load(directory: Path | str) -> Analysis:
    """The analysis of what a comparison has stored, complete or not.

    Raises:
        PgkitError: no comparison is there, or it cannot be read.
    """
    return _analysed(read_stored(Path(directory)))


def load_pooled(directories: Sequence[Path | str], name: str = "pooled") -> Analysis:
    """One analysis of comparisons that differ in their environments and agents only, or in their arms only.

    Raises:
        PgkitError: as :func:`load`, or two of them differ in anything else; names it.
    """
    return _analysed(pool([read_stored(Path(directory)) for directory in directories], name))


def _analysed(stored: Stored) -> Analysis:
    _, plan, baselines, runs, provenance = stored
    return analyse(plan, scales(plan, baselines), baselines, runs, provenance)


def report(directory: Path) -> Analysis:
    """Analyse a stored comparison again, and write its report, figures, tables and TensorBoard runs.

    Raises:
        PgkitError: as :func:`load`, or the system refuses to write.
    """
    return _write(load(directory), directory)


def report_pooled(directories: Sequence[Path], out: Path) -> Analysis:
    """Write the report of several comparisons as one, see :func:`load_pooled`.

    Args:
        directories: of the comparisons.
        out: where the report goes; no comparison's directory.

    Raises:
        PgkitError: as :func:`load_pooled`, or ``out`` holds something else; then nothing is written.
    """
    if out.exists() and not out.is_dir():
        raise PgkitError(f"{out} is a file: --out must be a directory")
    if (out / "plan.json").exists():
        raise PgkitError(f"{out} holds a comparison: --out must be another directory")
    return _write(load_pooled(directories, out.name), out)


def _write(analysis: Analysis, directory: Path) -> Analysis:
    drawings = draw(analysis)
    write_report(analysis, directory, drawings)
    write_tensorboard(analysis, directory / "tensorboard", drawings)
    return analysis
