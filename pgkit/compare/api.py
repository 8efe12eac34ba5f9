"""Run a comparison, load one, report it: what the command line and notebooks call."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.analysis.pool import Stored, pool, read_stored
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.executors import Executor, LocalExecutor, RayExecutor
from pgkit.compare.execution.forecast import Forecast, forecast
from pgkit.compare.execution.scheduler import execute
from pgkit.compare.execution.store import Store
from pgkit.compare.plan.baselines import scales
from pgkit.compare.plan.plan import Plan, read_plan
from pgkit.compare.report.html import draw, write_report
from pgkit.compare.report.tensorboard import write_tensorboard
from pgkit.compare.tables import Analysis
from pgkit.config.overrides import Overrides
from pgkit.errors import PgkitError, format_value
from pgkit.system.files import absolute

COMPARISONS = Path("comparisons")
"""Parent directory of comparisons, relative to the working directory."""


def compare(
    name_or_path: str | Path,
    overrides: Overrides = (),
    directory: str | Path | None = None,
    workers: int = 2,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    progress: bool = False,
    figures: bool = True,
) -> Analysis:
    """Run a comparison, or what is missing of it, and write its report.

    In a script, call it below ``if __name__ == "__main__":``, because worker processes import the script.

    >>> from pgkit import compare
    >>> analysis = compare.compare("compare-cartpole", {"steps": 100_000}, workers=2)  # doctest: +SKIP
    >>> analysis.tables["arms"][["agent", "optimizer", "mean", "learnt_rate"]]  # doctest: +SKIP

    Args:
        name_or_path: name of a shipped comparison, or path of a TOML file.
        overrides: ``{"tier": "standard"}`` or ``["tier=standard"]``.
        directory: where the comparison is stored; default: ``comparisons/<name>``.
        workers: populations that train at the same time, one core each.
        executor: processes on this machine, or Ray.
        ray_address: address of a Ray cluster; None starts one on this machine.
        progress: show the progress in the terminal.
        figures: draw the figures of the report, which takes seconds.

    Raises:
        PgkitError: a mistake in the comparison, results of another one in the directory, or runs that crashed.
    """
    parent = _path(COMPARISONS)
    chosen = None if directory is None else _path(directory)
    plan = read_plan(name_or_path, overrides)
    place = chosen or parent / plan.config.name
    with Display(progress) as display, closing(make_executor(executor, workers, ray_address)) as running:
        execute(plan, Store(place), running, display)
    return build_report(place, figures)


def dry_run(name_or_path: str | Path, overrides: Overrides, workers: int) -> tuple[Plan, Forecast]:
    """Return the plan and its cost, estimated from short trials on this machine; write nothing.

    Raises:
        PgkitError: a mistake in the comparison.
    """
    plan = read_plan(name_or_path, overrides)
    return plan, forecast(plan, workers)


def make_executor(name: str, workers: int, ray_address: str | None = None) -> Executor:
    """Return the executor called ``"local"`` or ``"ray"``.

    Raises:
        PgkitError: there is no such executor.
    """
    if name not in ("local", "ray"):
        raise PgkitError(f'executor must be "local" or "ray", got {format_value(name)}')
    return RayExecutor(workers, ray_address) if name == "ray" else LocalExecutor(workers)


def load_analysis(directory: str | Path) -> Analysis:
    """Analyse what a comparison has stored, finished or not.

    Raises:
        PgkitError: there is no comparison, or it cannot be read.
    """
    return _analysed(read_stored(_path(directory)))


def load_pooled_analysis(directories: Sequence[str | Path], name: str = "pooled") -> Analysis:
    """Analyse several comparisons as one.

    They may differ either in their environments and agents, or in their arms (optimizers).

    Raises:
        PgkitError: as :func:`load_analysis`, or naming the first other difference between two of them.
    """
    places = [_path(directory) for directory in directories]
    return _analysed(pool([read_stored(place) for place in places], name))


def build_report(directory: str | Path, figures: bool = True) -> Analysis:
    """Analyse a stored comparison again, and write its report, figures, tables and TensorBoard runs.

    Args:
        directory: of the comparison.
        figures: draw figures; without, those of an earlier report stay as they are.

    Raises:
        PgkitError: as :func:`load_analysis`, or the directory cannot be written.
    """
    place = _path(directory)
    return _write(load_analysis(place), place, figures, [place])


def build_pooled_report(directories: Sequence[str | Path], out: str | Path, figures: bool = True) -> Analysis:
    """Write the report of several comparisons as one, see :func:`load_pooled_analysis`.

    Args:
        directories: of the comparisons.
        out: directory of the report; not the directory of a comparison.
        figures: draw figures.

    Raises:
        PgkitError: as :func:`load_pooled_analysis`, or ``out`` holds something else; then nothing is written.
    """
    out = _path(out)
    if out.exists() and not out.is_dir():
        raise PgkitError(f"{out} is a file: --out must be a directory")
    if (out / "plan.json").exists():
        raise PgkitError(f"{out} holds a comparison: --out must be another directory")
    pooled = load_pooled_analysis(directories, out.name)
    return _write(pooled, out, figures, [_path(directory) for directory in directories])


def _path(directory: str | Path) -> Path:
    if not isinstance(directory, str | Path):
        raise PgkitError(f"the directory of a comparison must be text or a path, got {format_value(directory)}")
    return absolute(Path(directory))


def _analysed(stored: Stored) -> Analysis:
    _, plan, baselines, runs, provenance = stored
    return analyse(plan, scales(plan, baselines), baselines, runs, provenance)


def _write(analysis: Analysis, directory: Path, figures: bool, diagnosed: Sequence[Path]) -> Analysis:
    """Write the report of an analysis, with what diagnoses in these directories say."""
    drawings = draw(analysis) if figures else []
    write_report(analysis, directory, drawings, diagnosed)
    write_tensorboard(analysis, directory / "tensorboard", drawings)
    return analysis
