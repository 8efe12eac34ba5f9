"""Make one member of a population a run of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pgkit import optim
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, unknown_name
from pgkit.logging.parquet import write_frame
from pgkit.optim.partition import single_member_state
from pgkit.runs import checkpoint, provenance
from pgkit.runs.directory import new_run
from pgkit.runs.reader import read_settings, rows_until, steps_of
from pgkit.runs.writer import labels, write_settings
from pgkit.training.evaluator import take_member
from pgkit.training.worker_process import WorkerTask
from pgkit.training.workers import worker_tasks
from pgkit.tree import take_tree


def extract_member(directory: Path, label: str, out: Path) -> None:
    """Write a run of one member, at the last checkpoint of its population's run.

    Args:
        directory: of the population's run, which stays as it is.
        label: name of the member, such as ``"seed-3"``.
        out: directory of the new run.

    Raises:
        PgkitError: there is no such member, or ``out`` is not empty.
    """
    path, saved = checkpoint.load_resumable(directory)
    if label not in saved["labels"]:
        raise PgkitError(unknown_name("member", label, saved["labels"]))
    member = saved["labels"].index(label)
    configs = read_settings(directory, saved["labels"])
    config = configs[member]
    rows = rows_until(directory, saved)
    member_rows = rows[rows["member"] == member].assign(label=labels([config])[0])
    member_rows["member"] = member_rows["member"] * 0
    task, position = _find_task(worker_tasks(configs, saved), member)
    worker = _worker_state(task, position) | {"rows": len(member_rows)}
    content = {**saved, "labels": labels([config]), "configs": [saved["configs"][member]], "workers": [worker]}
    with new_run(out):
        write_settings(out, [config])
        source = {"run": str(directory), "member": label, "checkpoint": path.name}
        provenance.write(out / "provenance.json", [config.seed], inexact_resume=saved["inexact"], taken_from=source)
        write_frame(out / "metrics.parquet", member_rows)
        checkpoint.save_step(out / "checkpoints", steps_of(content), content)


def member_state(configs: Sequence[TrainConfig], saved: Mapping[str, Any], member: int) -> dict[str, Any]:
    """The state of one member in a checkpoint, as :meth:`Population.state` gives it for a population of it alone.

    Args:
        configs: of all members.
        saved: the content of the checkpoint.
        member: position in the run.
    """
    task, position = _find_task(worker_tasks(configs, saved), member)
    assert task.saved is not None
    (part,) = (part for part in task.saved["parts"] if (part["members"] == position).any())
    return _part_state(task.configs, part, position)


def _find_task(tasks: Sequence[WorkerTask], member: int) -> tuple[WorkerTask, int]:
    """The worker that trains this member of a run, and the member's position there."""
    for task in tasks:
        if member < len(task.configs):
            return task, member
        member -= len(task.configs)
    raise IndexError(f"a run of {sum(len(task.configs) for task in tasks)} members has none at {member}")


def _worker_state(task: WorkerTask, member: int) -> dict[str, Any]:
    """The state of a worker that trains this member alone."""
    assert task.saved is not None
    parts = [part for part in task.saved["parts"] if (part["members"] == member).any()]
    states = [_part_state(task.configs, part, member) for part in parts]
    return {"parts": states, "monitor": _monitor_state(task.saved["monitor"], member)}


def _part_state(configs: Sequence[TrainConfig], state: Mapping[str, Any], member: int) -> dict[str, Any]:
    """The state of a population with this member only."""
    row = (state["members"] == member).nonzero().squeeze(1)
    taken: dict[str, Any] = take_tree({k: v for k, v in state.items() if k not in ("opt_state", "envs")}, row)
    envs = state["envs"]
    count = state["obs"].shape[1]
    if envs is not None:
        envs = take_tree(envs, row * count + torch.arange(count, device=row.device))
    taken["members"] = torch.zeros_like(row)
    taken["opt_state"] = member_opt_state(configs, state, member)
    taken["envs"] = envs
    return taken


def member_opt_state(configs: Sequence[TrainConfig], state: Mapping[str, Any], member: int) -> Any:
    """The dumped optimizer state of one member of a population, as an optimizer made for it alone loads it.

    Args:
        configs: of the worker's members.
        state: of a population of some of them, as in checkpoints.
        member: position among the worker's members.
    """
    optimizer = optim.from_config([config.optimizer for config in configs])
    row = (state["members"] == member).nonzero().squeeze(1)
    opt_state = optimizer.take(optimizer.load(state["opt_state"], state["params"]), row)
    return single_member_state(optimizer.dump(opt_state))


def _monitor_state(saved: Mapping[str, Any], member: int) -> dict[str, Any]:
    """The state of a monitor with this member only."""
    log, evaluation, checkpoints = saved["schedules"]
    return {
        **saved,
        "evaluator": {name: take_member(snapshots, member) for name, snapshots in saved["evaluator"].items()},
        "evaluations": take_member(saved["evaluations"], member),
        "reasons": {0: saved["reasons"][member]} if member in saved["reasons"] else {},
        "stopped": {},
        "to_log": [0] if member in saved["to_log"] else [],
        "logged_statistics": [saved["logged_statistics"][member]],
        "schedules": [[log[member]], [evaluation[member]], checkpoints],
    }
