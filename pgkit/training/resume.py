"""Resume a run that was stopped, however it was stopped.

A checkpoint holds, for each worker, everything between two updates: the states of its populations (parameters,
optimizer, normalizers, counters, environments), the state of its monitor (schedules, evaluations), and how many rows
of ``metrics.parquet`` are its own. Workers need not be equally far. Resuming builds the populations again, gives them
these states, drops later rows, and writes the TensorBoard files again from the rows that stay. What follows has the
same bits as in a run that was never stopped.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgkit.callbacks.protocol import NOTHING, Watch, watch_of
from pgkit.config.load import flatten, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.envs.replay import NotReproduced
from pgkit.errors import PgkitError, format_value
from pgkit.runs import checkpoint, own_code, provenance
from pgkit.runs.directory import as_directory, is_finished, lock_run, reopen
from pgkit.runs.reader import read_settings, sizes_of
from pgkit.runs.writer import ResumeState, write_settings
from pgkit.system.files import remove_temporary_files
from pgkit.system.process_state import isolated_process
from pgkit.training.coordinator import Coordinator
from pgkit.training.extract_member import extract_member
from pgkit.training.make_callbacks import make_callbacks
from pgkit.training.result import TrainResult
from pgkit.training.train import PopulationWorker
from pgkit.training.train_on import (
    SPACED,
    any_steps_left,
    check_not_raised,
    raise_steps,
    stretched_schedules,
    trained_steps,
)
from pgkit.training.workers import Workers, start_workers, worker_tasks

WITHOUT_EFFECT = (
    "checkpoint_points",
    "keep_checkpoints",
    "evaluation.envs",
    "callbacks",
    "logger",
    "diagnose.every",
    "diagnose.copies",
)
"""Settings that change no number, so they may differ from those of the checkpoint."""


def resume(
    directory: str | Path,
    *,
    steps: int | None = None,
    member: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    progress: bool = False,
    on_steps: Callable[[float], None] | None = None,
    callbacks: Sequence[object] = (),
) -> TrainResult | None:
    """Continue a run from its last checkpoint as if it had never stopped, or train it on with more steps.

    >>> import pgkit
    >>> result = pgkit.resume("runs/cartpole-actor-critic")  # doctest: +SKIP
    >>> result = pgkit.resume("runs/cartpole-actor-critic", steps=1_000_000)  # doctest: +SKIP

    Args:
        directory: of the run.
        steps: environment steps of each member, all in all, if they are to be more than the run was given; written to
            ``config.toml``. The result is that of a run that was given them at the start, unless the optimizer follows
            a schedule, which is stretched.
        member: continue only this member (``"seed-3"``), as a run of its own in ``out``; the first run stays as it is.
        out: directory of that run.
        force: continue even if the configuration, the code or versions differ from those of the checkpoint, or if
            environments have to be restarted; ``provenance.json`` lists the differences.
        progress: whether to show a progress bar.
        on_steps: called now and then with the environment steps of all members so far.
        callbacks: as for :func:`pgkit.train`, beside those of the configuration. Of a run that is over, those members
            train on that a callback has stopped.

    Returns:
        What :func:`pgkit.train` would have returned; None if the run is already finished.

    Raises:
        PgkitError: there is no such run or member, another process is writing to it, it cannot be continued exactly,
            its files are damaged, or an argument is wrong.
        Stopped: Ctrl-C or SIGTERM; the run can be resumed again.
    """
    place = _run_to_continue(directory, member, out, steps)
    with isolated_process(), lock_run(place):
        was_finished = is_finished(place)
        if was_finished and steps is None and not _goes_on(place):
            return None
        path, saved = _load(place, was_finished)
        configs = _settings(place, saved, steps)
        all_callbacks = make_callbacks(configs[0], callbacks)
        workers, resume_state = restore_workers(configs, saved, force, watch_of(all_callbacks))
        with workers:
            if steps is not None:
                resume_state = _write_more_steps(place, configs, resume_state)
            reopen(place)
            checkpoint.delete_later(path)
            why = resume_state.saved["inexact"]
            sizes = sizes_of(saved)
            with Coordinator(
                configs, sizes, place, why, progress, on_steps, resume_state, callbacks=all_callbacks
            ) as coordinator:
                coordinator.start()
                return coordinator.finish(workers.train(coordinator))


def _run_to_continue(directory: str | Path, member: str | None, out: str | Path | None, steps: int | None) -> Path:
    """The directory of the run, or of the new run of one of its members."""
    place = as_directory(directory)
    target = None if out is None else as_directory(out)
    if (member is None) != (target is None):
        raise PgkitError("resume: a member and a directory for its run (--member, --out) must be given together")
    if not (place / "config.toml").is_file():
        raise PgkitError(f"{place} is not the directory of a run: it has no config.toml")
    if member is None or target is None:
        return place
    if steps is not None:  # before anything is written
        saved = checkpoint.load_resumable(place)[1]
        raise_steps(place, saved, read_settings(place, saved["labels"]), steps)
    extract_member(place, member, target)
    return target


def _settings(place: Path, saved: Mapping[str, Any], steps: int | None) -> list[TrainConfig]:
    """The configurations of the members, with more steps if there are to be more."""
    configs = read_settings(place, saved["labels"])
    if steps is not None:
        return raise_steps(place, saved, configs, steps)
    check_not_raised(place, saved, configs)
    return configs


def _write_more_steps(place: Path, configs: Sequence[TrainConfig], resume_state: ResumeState) -> ResumeState:
    """Write the settings of a run with more steps; returns from what it starts, and what the steps change."""
    differences = [*stretched_schedules(resume_state.saved, configs), *resume_state.differences]
    write_settings(place, configs)
    return replace(resume_state, differences=differences)


def _load(place: Path, was_finished: bool) -> tuple[Path, dict[str, Any]]:
    """Path and content of the last checkpoint; members that callbacks have stopped train on if the run was over."""
    remove_temporary_files(place)
    remove_temporary_files(place / "checkpoints")
    path, saved = checkpoint.load_resumable(place)
    return path, without_stops(saved) if was_finished else saved


def _goes_on(place: Path) -> bool:
    """Whether a finished run has something left: callbacks have stopped it, or it now asks for more steps."""
    try:
        saved = checkpoint.load_resumable(place)[1]
    except PgkitError:  # of an earlier pgkit, or its checkpoints are gone: it is finished all the same
        return False
    steps = read_settings(place, saved["labels"])[0].steps
    return steps > trained_steps(saved) or any(worker["monitor"].get("stopped") for worker in saved["workers"])


def restore_workers(
    configs: Sequence[TrainConfig], saved: Mapping[str, Any], force: bool, watch: Watch = NOTHING
) -> tuple[Workers, ResumeState]:
    """Start the workers of a run from their states in a checkpoint.

    Args:
        configs: one for each member.
        saved: the content of the checkpoint.
        force: whether to start them even if they do not continue exactly.
        watch: what callbacks want to see.

    Raises:
        PgkitError: they would not continue exactly, and ``force`` is False; or they cannot continue at all.
    """
    changes = differences(saved, configs)
    if changes and not force:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise PgkitError(f"{changes[0]}{more}: the run would not continue exactly; --force continues anyway")
    if saved["inexact"] is None or not any_steps_left(saved, configs[0].steps):
        try:
            workers = start_workers(worker_tasks(configs, saved, watch), PopulationWorker)
            return workers, ResumeState(saved, saved["restart_count"], changes)
        except NotReproduced as error:
            if not force:
                raise PgkitError(f"{error}; --force restarts all episodes") from None
            saved = {**saved, "inexact": str(error)}
    restarted = {
        **saved,
        "restart_count": saved["restart_count"] + 1,
        "workers": [_without_envs(worker) for worker in saved["workers"]],
    }
    changes = [*changes, f"all episodes restart: {saved['inexact']}"]
    workers = start_workers(worker_tasks(configs, restarted, watch), PopulationWorker)
    return workers, ResumeState(saved, restarted["restart_count"], changes)


def without_stops(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint as if no callback had stopped any member."""
    workers = [{**worker, "monitor": {**worker["monitor"], "stopped": {}}} for worker in saved["workers"]]
    return {**saved, "workers": workers}


def _without_envs(worker: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a worker without that of its environments, which restart then."""
    return {**worker, "parts": [{**part, "envs": None} for part in worker["parts"]]}


def differences(saved: Mapping[str, Any], configs: Sequence[TrainConfig]) -> list[str]:
    """How code, versions, machine and configuration differ from those of the checkpoint, one line each."""
    origin = provenance.origin() | own_code.describe(configs)
    lines = [_difference(name, before, origin.get(name)) for name, before in saved["origin"].items()]
    for config, text in zip(configs, saved["configs"], strict=True):
        before = flatten(tomllib.loads(text))
        now = flatten(tomllib.loads(to_toml(config)))
        expected = WITHOUT_EFFECT + (SPACED if now["steps"] > before["steps"] else ())
        keys = [key for key in sorted(before.keys() | now.keys()) if key not in expected]
        lines += [_difference(key, before.get(key), now.get(key)) for key in keys]
    return list(dict.fromkeys(line for line in lines if line is not None))


def _difference(name: str, before: Any, now: Any) -> str | None:
    if before == now:
        return None
    return f"{name} was {format_value(before)} when the checkpoint was written, and is {format_value(now)}"
