"""Diagnose a run: scan its points, look closely at the critical ones, and say what they show."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.episodes import critic_rows
from pgkit.diagnose.forecast import Forecast, fit_budget, forecast, run_trial
from pgkit.diagnose.parts import Parts
from pgkit.diagnose.points import Point, RunPoints, estimator_of, open_run
from pgkit.diagnose.pool import results_of
from pgkit.diagnose.report.write import write_report
from pgkit.diagnose.results import Diagnosis, Measured, PointResult, Row
from pgkit.diagnose.settings import Settings, usual_settings
from pgkit.diagnose.tasks import Task, close_looks, measure
from pgkit.diagnose.verdicts import summary, verdicts
from pgkit.runs import provenance
from pgkit.runs.directory import as_directory
from pgkit.runs.reader import find_member, stored_config
from pgkit.system.cpu import configure_cpu
from pgkit.system.process_state import isolated_process
from pgkit.system.progress import track


def diagnose(
    directory: str | Path,
    settings: Settings | None = None,
    *,
    member: str | int | None = None,
    out: str | Path | None = None,
    again: bool = False,
    workers: int = 1,
    budget: float | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Measure a finished run at frozen policies, and say why it learnt, stalled or collapsed.

    Finished measurements are kept in the directory, so a diagnosis that was stopped goes on when it is started again.

    >>> from pgkit.diagnose import Settings, diagnose
    >>> diagnosis = diagnose("runs/cartpole-actor-critic", Settings(copies=32))  # doctest: +SKIP
    >>> print(diagnosis.verdicts[0].words)  # doctest: +SKIP

    Args:
        directory: of the run; nothing in it changes but ``diagnosis/``.
        settings: how much is measured; by default as the README says.
        member: only this one, by its label or seed; None for all.
        out: where the report goes; by default ``diagnosis/`` in the run.
        again: measure anew what is already there.
        workers: how many processes measure.
        budget: about how many seconds it may take: curvature, other optimizers' directions, interventions and half of
            the copies are left out, in this order, until it fits.
        progress: whether to show a progress bar.

    Raises:
        PgkitError: there is no such run or member, it is not finished, it cannot be read, or copies are to begin in
            environments that cannot be saved exactly.
    """
    run_place = as_directory(directory)
    settings = settings or usual_settings_of(run_place)
    place = run_place / "diagnosis" if out is None else as_directory(out)
    with open_run(run_place, settings.shares, settings.from_saved) as run:
        members = _members(run, run_place, member)
        left_out: list[tuple[str, str]] = []
        if budget is not None:
            settings, left_out = fit_budget(run_trial(run, settings), members, settings, workers, budget)
        parts = Parts(place / "parts", None if again else identity(run, settings))
        diagnosis = measure_run(run, members, settings, parts, workers, progress)
        diagnosis = replace(diagnosis, not_done=[*left_out, *diagnosis.not_done])
    write_report(diagnosis, place, workers=workers)
    parts.remove()
    return diagnosis


def usual_settings_of(directory: Path) -> Settings:
    """:func:`~pgkit.diagnose.settings.usual_settings` of a run's environment."""
    path = directory / "config.toml"
    return usual_settings(stored_config(path).env) if path.is_file() else Settings()


def forecast_run(
    directory: str | Path, settings: Settings, member: str | int | None = None, workers: int = 1
) -> Forecast:
    """About what :func:`diagnose` would cost, from a trial that takes seconds; nothing is written. Raises likewise."""
    place = as_directory(directory)
    with open_run(place, settings.shares, settings.from_saved) as run, isolated_process():
        configure_cpu()
        return forecast(run_trial(run, settings), _members(run, place, member), settings, workers)


def _members(run: RunPoints, place: Path, member: str | int | None) -> list[int]:
    """The positions of the members that are diagnosed."""
    if member is None:
        return list(range(len(run.labels)))
    return [find_member(place, run.labels, [config.seed for config in run.configs], member)]


def measure_run(
    run: RunPoints, members: Sequence[int], settings: Settings, parts: Parts, workers: int, progress: bool
) -> Diagnosis:
    """All measurements of some members of a run, and what they show."""
    started = time.perf_counter()
    points = [points_then[k] for points_then in run.at(settings.shares) for k in members]
    scans = _measure_all([Task(point, settings) for point in points], parts, workers, progress)
    critical = _critical(points, scans, settings)
    tasks = [(k, task) for k in critical for task in close_looks(points[k], scans[k], settings)]
    looks = _measure_all([task for _, task in tasks], parts, workers, progress)
    for (k, _), measured in zip(tasks, looks, strict=True):
        scans[k].merge(measured)
    results = [
        PointResult(point.label, point.env_steps, point.share, k in critical, measured.quantities)
        for k, (point, measured) in enumerate(zip(points, scans, strict=True))
    ]
    by_member = {run.labels[k]: [result for result in results if result.member == run.labels[k]] for k in members}
    reference = reference_return(run.configs[0])
    estimator = estimator_of(run.configs[0])
    spoken = {label: verdicts(of_member, reference, estimator) for label, of_member in by_member.items()}
    return Diagnosis(
        run=str(run.final.parent.parent),
        settings={**asdict(settings), "reference_return": reference, "trained_again": run.trained_again},
        points=[result for of_member in by_member.values() for result in of_member],
        verdicts=[verdict for of_member in spoken.values() for verdict in of_member],
        summary={label: summary(spoken[label], of_member) for label, of_member in by_member.items()},
        tables=_tables(points, scans),
        not_done=_not_done(run, scans),
        cost={"env_steps": sum(m.env_steps for m in scans), "seconds": time.perf_counter() - started},
        versions={name: str(value) for name, value in provenance.collect([])["versions"].items()},
    )


def _measure_all(tasks: Sequence[Task], parts: Parts, workers: int, progress: bool) -> list[Measured]:
    """The results of all tasks; those on disk are taken from there, others are kept there."""
    results = [parts.load(task.name) for task in tasks]
    missing = sorted((k for k, result in enumerate(results) if result is None), key=lambda k: tasks[k].rank)
    running = results_of(measure, [tasks[k] for k in missing], workers)
    for number, measured in track(running, len(missing), "points", progress):
        results[missing[number]] = measured
        parts.save(tasks[missing[number]].name, measured)
    return [result for result in results if result is not None]


def reference_return(config: TrainConfig) -> float | None:
    """The return at which the environment counts as solved, as Gymnasium's registry says; None if it does not."""
    from gymnasium.envs.registration import registry

    spec = registry.get(config.env.id)
    return None if spec is None or spec.reward_threshold is None else float(spec.reward_threshold)


def identity(run: RunPoints, settings: Settings) -> str:
    """What stored measurements depend on: the run's end, and the sizes but for what is measured where."""
    sizes = {name: value for name, value in asdict(settings).items() if name not in ("shares", "critical")}
    return hashlib.sha256(run.final.read_bytes() + repr(sizes).encode() + provenance.code_digest().encode()).hexdigest()


def _critical(points: Sequence[Point], scans: Sequence[Measured], settings: Settings) -> list[int]:
    """Positions of the points to look at closely: of the members that end worst, in the middle and best."""
    by_member: dict[str, list[int]] = {}
    for k, point in enumerate(points):
        by_member.setdefault(point.label, []).append(k)
    ends = sorted(by_member.values(), key=lambda of_member: scans[of_member[-1]].value("return/mean"))
    looked_at = {0, len(ends) // 2, len(ends) - 1}
    return sorted(
        k for rank in looked_at for k in critical_points([scans[k] for k in ends[rank]], ends[rank], settings)
    )


def critical_points(scans: Sequence[Measured], positions: Sequence[int], settings: Settings) -> list[int]:
    """The points of a member before the largest drop of J, at the largest P_K(half), and at the end."""
    returns = np.array([scan.value("return/mean") for scan in scans])
    fragile = np.nan_to_num([scan.value("post_update/K/half_share") for scan in scans], nan=-1.0)
    order = [len(scans) - 1]
    if len(scans) > 1:
        order.append(int(np.argmax(returns[:-1] - returns[1:])))
    order += np.argsort(-fragile, kind="stable").tolist()
    return [positions[k] for k in list(dict.fromkeys(order))[: settings.critical]]


def _tables(points: Sequence[Point], scans: Sequence[Measured]) -> dict[str, list[Row]]:
    """The rows of all points, with the columns that name the point."""
    tables: dict[str, list[Row]] = {}
    for point, measured in zip(points, scans, strict=True):
        place = {"member": point.config.seed, "label": point.label, "env_steps": point.env_steps}
        for name, rows in {**measured.tables, "critic": critic_rows(measured)}.items():
            if rows:
                tables.setdefault(name, []).extend({**place, **row} for row in rows)
    return tables


def _not_done(run: RunPoints, scans: Sequence[Measured]) -> list[tuple[str, str]]:
    missing = [("points between those on disk", run.missing)] if run.missing else []
    return [*missing, *dict.fromkeys(entry for measured in scans for entry in measured.not_done)]
