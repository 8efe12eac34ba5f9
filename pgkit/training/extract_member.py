"""Make one member of a population a run of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, unknown_name
from pgkit.logging.parquet import write_frame
from pgkit.runs import checkpoint, provenance
from pgkit.runs.directory import new_run
from pgkit.runs.reader import read_settings, rows_until, steps_of
from pgkit.runs.writer import labels, write_settings
from pgkit.training.worker_process import WorkerTask
from pgkit.training.worker_state import take_part_state, take_worker_state
from pgkit.training.workers import worker_tasks


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
    assert task.saved is not None
    worker = take_worker_state(task.configs, task.saved, [position]) | {"rows": len(member_rows)}
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
    return take_part_state(task.configs, part, [position])


def _find_task(tasks: Sequence[WorkerTask], member: int) -> tuple[WorkerTask, int]:
    """The worker that trains this member of a run, and the member's position there."""
    for task in tasks:
        if member < len(task.configs):
            return task, member
        member -= len(task.configs)
    raise IndexError(f"a run of {sum(len(task.configs) for task in tasks)} members has none at {member}")
