"""Going on with a run that was stopped, however it was stopped.

A checkpoint holds everything between two updates of each slice of the members: the state of each part of the population
(``Population.state``: parameters, optimizer, normalisers, counters, environments), of the observer (``Observer.state``:
marks, evaluations), and how many rows of ``metrics.parquet`` belong to the slice; slices need not be equally far.
Resuming builds the populations anew, takes these states, drops later rows and writes the TensorBoard files again from
the rows that stay: what follows is what would have followed.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pgkit import optim
from pgkit.config.load import to_toml
from pgkit.config.schema import TrainConfig
from pgkit.envs.replay import NotReproduced
from pgkit.errors import PgkitError, format_value, unknown_name
from pgkit.logging.parquet import write_metrics
from pgkit.optim.partition import single_member_state
from pgkit.runs import checkpoint, provenance
from pgkit.runs.directory import hold, is_finished, new_run
from pgkit.runs.reader import read_settings, rows_until, sizes_of, steps_of
from pgkit.runs.writer import ResumeState, flat, labels, write_settings
from pgkit.system.files import sweep
from pgkit.training.coordinator import Coordinator
from pgkit.training.evaluator import of_member
from pgkit.training.result import TrainResult
from pgkit.training.train import PopulationWorker
from pgkit.training.workers import Workers, WorkerTask, prepare
from pgkit.tree import take_tree

WITHOUT_EFFECT = ("checkpoint_points", "keep_checkpoints")
"""Settings that no number depends on."""


def resume(
    directory: Path | str,
    *,
    member: str | None = None,
    out: Path | str | None = None,
    anyway: bool = False,
    progress: bool = False,
    on_steps: Callable[[float], None] | None = None,
) -> TrainResult | None:
    """Continue a run from its last checkpoint as if it had never stopped.

    Args:
        directory: of the run.
        member: take out this member (``"seed-3"``) and continue it alone, as a run of its own; the first run stays.
        out: directory of that run.
        anyway: go on with another configuration, other code or versions, or environments that begin anew because they
            did not come back; ``provenance.json`` says so.
        progress: show a progress bar.
        on_steps: called with the environment steps of all members so far, now and then.

    Returns:
        What :func:`pgkit.train` would have returned; None if the run is finished already.

    Raises:
        PgkitError: there is no such run or member, another process is at work on it, it could not go on exactly, or its
            files are damaged.
        Stopped: as :func:`pgkit.train`.
    """
    directory = Path(directory)
    if (member is None) != (out is None):
        raise PgkitError("resume: a member to take out and a directory for it (--member, --out) go together")
    if not (directory / "config.toml").is_file():
        raise PgkitError(f"{directory} is not the directory of a run: it has no config.toml")
    if member is not None and out is not None:
        take_out(directory, member, Path(out))
        directory = Path(out)
    with hold(directory):
        if is_finished(directory):
            return None
        for place in (directory, directory / "checkpoints"):
            sweep(place)
        path, saved = read(directory)
        configs = read_settings(directory, saved["labels"])
        slices, past = go_on(configs, saved, anyway)
        with slices:
            checkpoint.forget_after(path)
            inexact: str | None = past.saved["inexact"]
            with Coordinator(configs, sizes_of(saved), directory, inexact, progress, on_steps, past) as whole:
                return whole.finish(slices.train(whole))


def read(directory: Path) -> tuple[Path, dict[str, Any]]:
    """The last whole checkpoint of a run, and its tree.

    Raises:
        PgkitError: there is none that can be resumed.
    """
    if not any((directory / "checkpoints").glob("step-*.pt")):
        raise PgkitError(
            f"{directory} was stopped before its first checkpoint: pgkit train --overwrite starts it again"
        )
    path, saved = checkpoint.load_latest_valid(directory / "checkpoints", device=None)
    if "slices" not in saved:
        raise PgkitError(f"checkpoint {path} has format 1: it can be evaluated, but not resumed")
    return path, saved


def go_on(configs: Sequence[TrainConfig], saved: Mapping[str, Any], anyway: bool) -> tuple[Workers, ResumeState]:
    """The slices of the run as they were, and what is to be said of it.

    Raises:
        PgkitError: it could not go on exactly, and ``anyway`` is False; or not at all.
    """
    found = differences(saved, configs)
    if found and not anyway:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise PgkitError(f"{found[0]}{more}: it could not go on exactly; --anyway goes on all the same")
    training = [own["parts"][-1] for own in saved["slices"]]
    if saved["inexact"] is None or not any(len(state["members"]) for state in training):
        try:
            return prepare(jobs_of(configs, saved), PopulationWorker), ResumeState(saved, saved["restart_count"], found)
        except NotReproduced as error:
            if not anyway:
                raise PgkitError(f"{error}; --anyway lets episodes begin anew") from None
            saved = {**saved, "inexact": str(error)}
    restarted = {
        **saved,
        "restart_count": saved["restart_count"] + 1,
        "slices": [_without_envs(own) for own in saved["slices"]],
    }
    past = ResumeState(saved, restarted["restart_count"], [*found, f"all episodes begin anew: {saved['inexact']}"])
    return prepare(jobs_of(configs, restarted), PopulationWorker), past


def jobs_of(configs: Sequence[TrainConfig], saved: Mapping[str, Any]) -> list[WorkerTask]:
    """What each slice in a checkpoint is to do."""
    own, more = iter(configs), {"inexact": saved["inexact"], "restart_count": saved["restart_count"]}
    pieces = [list(islice(own, size)) for size in sizes_of(saved)]
    return [WorkerTask(piece, True, saved=state, **more) for piece, state in zip(pieces, saved["slices"], strict=True)]


def _without_envs(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A slice in a checkpoint, whose environments begin anew."""
    return {**saved, "parts": [*saved["parts"][:-1], {**saved["parts"][-1], "envs": None}]}


def differences(saved: Mapping[str, Any], configs: Sequence[TrainConfig]) -> list[str]:
    """In what code, versions, machine and configuration are not those of the checkpoint, one line each."""
    here = provenance.origin()
    found = [
        f"{what} was {format_value(before)} when the checkpoint was written, and is {format_value(here.get(what))}"
        for what, before in saved["origin"].items()
        if here.get(what) != before
    ]
    for config, text in zip(configs, saved["configs"], strict=True):
        before, now = (flat(tomllib.loads(toml)) for toml in (text, to_toml(config)))
        found += [
            f"{key} was {format_value(before.get(key))} when the checkpoint was written, "
            f"and is {format_value(now.get(key))}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and key not in WITHOUT_EFFECT
        ]
    return list(dict.fromkeys(found))


def take_out(directory: Path, label: str, out: Path) -> None:
    """Make a run of one member of a population, at the run's last checkpoint, in a directory of its own.

    Raises:
        PgkitError: there is no such run or member, or something is at ``out``.
    """
    path, saved = read(directory)
    if label not in saved["labels"]:
        raise PgkitError(unknown_name("member", label, saved["labels"]))
    member = saved["labels"].index(label)
    configs = read_settings(directory, saved["labels"])
    config, rows = configs[member], rows_until(directory, saved)
    own = rows[rows["member"] == member].assign(label=labels([config])[0])
    own["member"] = own["member"] * 0
    taken = _taken(jobs_of(configs, saved), member) | {"rows": len(own)}
    tree = {**saved, "labels": labels([config]), "configs": [saved["configs"][member]], "slices": [taken]}
    with new_run(out):
        write_settings(out, [config])
        source = {"run": str(directory), "member": label, "checkpoint": path.name}
        more = {"inexact_resume": saved["inexact"], "taken_from": source}
        provenance.write(out / "provenance.json", [config.seed], **more)
        write_metrics(out / "metrics.parquet", own)
        checkpoint.save_step(out / "checkpoints", steps_of(tree), tree)


def _taken(jobs: Sequence[WorkerTask], member: int) -> dict[str, Any]:
    """The only slice of a run that goes on with this member."""
    for job in jobs:
        if member < len(job.configs):
            break
        member -= len(job.configs)
    assert job.saved is not None
    parts = [_alone(job.configs, part, member) for part in job.saved["parts"] if (part["members"] == member).any()]
    return {"parts": parts, "observer": _seen_of(job.saved["observer"], member)}


def _alone(configs: Sequence[TrainConfig], state: Mapping[str, Any], member: int) -> dict[str, Any]:
    """The state of a population's part without the other members."""
    optimizer = optim.from_config([config.optimizer for config in configs])
    row = (state["members"] == member).nonzero().squeeze(1)
    taken: dict[str, Any] = take_tree({k: v for k, v in state.items() if k not in ("opt_state", "envs")}, row)
    opt_state = optimizer.take(optimizer.load(state["opt_state"], state["params"]), row)
    envs, count = state["envs"], state["obs"].shape[1]
    if envs is not None:
        envs = take_tree(envs, row * count + torch.arange(count, device=row.device))
    own = {"members": torch.zeros_like(row), "opt_state": single_member_state(optimizer.dump(opt_state)), "envs": envs}
    return taken | own


def _seen_of(saved: Mapping[str, Any], member: int) -> dict[str, Any]:
    """The state of an observer without the other members."""
    evaluator, (logged, evaluated, written) = saved["evaluator"], saved["marks"]
    return {
        **saved,
        "evaluator": {name: of_member(snapshots, member) for name, snapshots in evaluator.items()},
        "evaluations": of_member(saved["evaluations"], member),
        "reasons": {0: saved["reasons"][member]} if member in saved["reasons"] else {},
        "to_log": [0] if member in saved["to_log"] else [],
        "counts": [saved["counts"][member]],
        "marks": [[logged[member]], [evaluated[member]], written],
    }
