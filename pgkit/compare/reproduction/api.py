"""Run a published study again, or what is missing of it, and judge its claims."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgkit.compare import api
from pgkit.compare.execution.forecast import Forecast
from pgkit.compare.plan.plan import Plan, read_plan
from pgkit.compare.reproduction.catalogue import find_study
from pgkit.compare.reproduction.page import write_study
from pgkit.compare.reproduction.results import LINEAR, LOG, Reproduction, judge
from pgkit.compare.reproduction.studies import Study
from pgkit.config.load import flatten, read_table
from pgkit.config.overrides import Overrides, parse_overrides
from pgkit.errors import PgkitError, format_value, unknown_name
from pgkit.system.files import absolute

FIXED = ("name", "question", "tier", "track", "optimizers", "learning_rates", "extensions", "screen")
"""Keys of a comparison that make the two plans of a study what they are."""


def reproduce(
    name: str,
    overrides: Overrides = (),
    directory: str | Path | None = None,
    workers: int = 2,
    environments: str | None = None,
    progress: bool = False,
    figures: bool = True,
) -> Reproduction:
    """Run both plans of a study, or what is missing of them, and write its page.

    In a script, call it below ``if __name__ == "__main__":``, because worker processes import the script.

    >>> from pgkit import compare
    >>> reproduction = compare.reproduce("henderson2018", {"steps": 20_000}, workers=2)  # doctest: +SKIP
    >>> reproduction.tables["claims"][["claim", "grid", "verdict"]]  # doctest: +SKIP

    Args:
        name: of the study, such as "henderson2018".
        overrides: settings of both plans, ``{"steps": 100_000}`` or ``["steps=100_000"]``; what makes the plans
            those of the study, such as its learning rates, cannot be changed.
        directory: where both comparisons and the page are stored; default: ``comparisons/<name>``.
        workers: populations that train at the same time, one core each.
        environments: name of environments of the study that replace those of the plans, such as "mujoco".
        progress: show the progress in the terminal.
        figures: draw figures, which takes seconds.

    Raises:
        PgkitError: there is no such study, a mistake in the overrides, or as :func:`pgkit.compare.compare`.
    """
    study = find_study(name)
    settings = _settings(study, overrides, environments)
    place = study_directory(study, directory)
    for source in _sources(study).values():
        read_plan(source, settings)  # a mistake in the second plan is told before the first one runs
    for grid, source in _sources(study).items():
        api.compare(source, settings, place / grid, workers, progress=progress, figures=figures)
    return _write(study, place, figures)


def report_study(name: str, directory: str | Path | None = None, figures: bool = True) -> Reproduction:
    """Write the page of what is stored of a study, finished or not; nothing is run.

    Raises:
        PgkitError: there is no such study, or nothing of it is stored.
    """
    study = find_study(name)
    place = study_directory(study, directory)
    begun = [grid for grid in (LINEAR, LOG) if _has_begun(place / grid)]
    if not begun:
        raise PgkitError(f"{place} has no results of {study.name} yet: pgkit reproduce {study.name}")
    for grid in begun:
        api.build_report(place / grid, figures)
    return _write(study, place, figures)


def dry_run(
    name: str, overrides: Overrides, workers: int, environments: str | None = None
) -> list[tuple[Plan, Forecast]]:
    """Return both plans of a study and their costs, estimated from short trials on this machine; write nothing.

    Raises:
        PgkitError: there is no such study, or a mistake in the overrides.
    """
    study = find_study(name)
    settings = _settings(study, overrides, environments)
    return [api.dry_run(source, settings, workers) for source in _sources(study).values()]


def study_directory(study: Study, directory: str | Path | None) -> Path:
    """Return the directory of a study."""
    return absolute(Path(api.COMPARISONS / study.name if directory is None else directory))


def _sources(study: Study) -> dict[str, str | Path]:
    """Return the plans of a study by their directories, in the order in which they run."""
    return {LINEAR: study.linear, LOG: study.log}


def _settings(study: Study, overrides: Overrides, environments: str | None) -> dict[str, Any]:
    """Return the overrides of both plans.

    Raises:
        PgkitError: an override of what makes the plans those of the study, or unknown environments.
    """
    parsed = parse_overrides(overrides)
    for path, _ in parsed:
        if path[0] in FIXED:
            raise PgkitError(
                f"{path[0]} is what {study.name} fixes: pgkit compare {study.log} {path[0]}=... changes it"
            )
    settings = {".".join(map(json.dumps, path)): value for path, value in parsed}
    if environments is None:
        return settings
    if environments not in study.suites:
        raise PgkitError(unknown_name("environments", environments, study.suites))
    return {"environments": study.suites[environments](), **settings}


def _has_begun(place: Path) -> bool:
    """Whether a plan is stored, and what its scores are measured by."""
    return (place / "plan.json").is_file() and (place / "baselines.parquet").is_file()


def _write(study: Study, place: Path, figures: bool) -> Reproduction:
    """Judge what is stored of a study, and write its page."""
    begun = [grid for grid in (LINEAR, LOG) if _has_begun(place / grid)]
    analyses = {grid: api.load_analysis(place / grid) for grid in begun}
    changed = dict.fromkeys(each for grid, of in analyses.items() for each in _changes(_sources(study)[grid], of.plan))
    reproduction = judge(study, analyses, tuple(changed))
    write_study(reproduction, place, figures)
    return reproduction


def _changes(source: str | Path, plan: Mapping[str, Any]) -> list[str]:
    """Return the settings in which a stored plan differs from its file, as ``key = value``."""
    declared, shipped = plan["declared"], read_table(source)
    changed = {key: value for key, value in declared["table"].items() if shipped.get(key) != value}
    if "environments" in changed:
        changed["environments"] = ", ".join(changed["environments"])
    return [f"{key} = {format_value(value)}" for key, value in (changed | flatten(declared["last"])).items()]
