"""Read run directories, and the content of their checkpoints."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.config.load import parse_config, read_table
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, unknown_name
from pgkit.logging import read_metrics
from pgkit.runs import checkpoint
from pgkit.tree import concat_members
from pgkit.types import Params

if TYPE_CHECKING:
    import pandas as pd

SHOWN_LABELS = 20
"""How many members of a run a message lists."""


def read_settings(directory: Path, names: Sequence[str]) -> list[TrainConfig]:
    """The configurations of a run's members.

    Args:
        directory: of the run.
        names: the labels of its members.

    Raises:
        PgkitError: the configurations cannot be read, or are not one for each member.
    """
    paths = [directory / name / "config.toml" for name in names]
    if len(paths) > 1 and paths[0].exists():
        return [stored_config(path) for path in paths]
    configs = expand_seeds(stored_config(directory / "config.toml"))
    if len(configs) != len(names):
        raise PgkitError(f"{directory / 'config.toml'} has {len(configs)} seeds, the checkpoint {len(names)} members")
    return configs


def stored_config(path: Path) -> TrainConfig:
    """The configuration in a run's ``config.toml``, whose seeds may be many."""
    return parse_config(read_table(path), str(path))


def rows_until(directory: Path, saved: Mapping[str, Any]) -> "pd.DataFrame":
    """The rows of a run's metrics that were logged before a checkpoint.

    Args:
        directory: of the run.
        saved: the content of the checkpoint, which says how many rows each worker had logged.

    Raises:
        PgkitError: the metrics cannot be read, or are fewer.
    """
    path = directory / "metrics.parquet"
    rows = read_metrics(path)
    counts = np.array([worker["rows"] for worker in saved["workers"]])
    worker_of_row = np.searchsorted(np.cumsum(sizes_of(saved)), rows["member"], side="right")
    kept = rows[rows.groupby(worker_of_row).cumcount() < counts[worker_of_row]]
    if len(kept) < counts.sum():
        raise PgkitError(f"{path} has {len(rows)} rows, but the checkpoint was written after {counts.sum()}")
    return kept.reset_index(drop=True)


def sizes_of(saved: Mapping[str, Any]) -> list[int]:
    """How many members each worker in a checkpoint has."""
    return [sum(len(part["members"]) for part in worker["parts"]) for worker in _workers_of(saved)]


def parts_of(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The states of all populations in a checkpoint; their ``"members"`` are positions in the whole run."""
    offsets = accumulate(sizes_of(saved), initial=0)
    workers = zip(_workers_of(saved), offsets, strict=False)
    return [{**part, "members": part["members"] + offset} for worker, offset in workers for part in worker["parts"]]


def _workers_of(saved: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The workers in a checkpoint; format 2 calls them slices, and format 1 has only one, whose state it is."""
    workers: Sequence[Mapping[str, Any]] = saved.get("workers") or saved.get("slices") or [saved]
    return workers


def steps_of(saved: Mapping[str, Any]) -> int:
    """Mean environment steps of all members in a checkpoint; it grows while any of them trains."""
    return int(torch.cat([part["statistics"]["env_steps"] for part in parts_of(saved)]).mean())


def find_member(run: Path, labels: Sequence[str], seeds: Sequence[int], member: str | int | None) -> int:
    """The position of one member of a run.

    Args:
        run: its directory, for messages.
        labels: of its members.
        seeds: of its members.
        member: a label such as ``"seed-3"``, or a seed; None for the only member.

    Raises:
        PgkitError: there is no such member, or there are several and none is named.
    """
    shown = ", ".join(labels) if len(labels) <= SHOWN_LABELS else f"{labels[0]} ... {labels[-1]}"
    if member is None:
        if len(labels) > 1:
            raise PgkitError(f"{run} has {len(labels)} members, and member names none of them: {shown}")
        return 0
    if str(member) in labels:
        return labels.index(str(member))
    matching = [index for index, seed in enumerate(seeds) if str(seed) == str(member)]
    if len(matching) > 1:
        raise PgkitError(f"{run} has {len(matching)} members of seed {member}: name one by its label, of {shown}")
    if not matching:
        raise PgkitError(unknown_name("member", str(member), labels, or_else="a seed"))
    return matching[0]


def saved_members(directory: Path, best: bool = False) -> tuple[list[TrainConfig], Params, dict[str, Tensor]]:
    """Configurations, parameters and observation statistics (leaves ``(P, ...)``) of a run's members.

    Args:
        directory: of the run.
        best: whether to take each member as it was at its best evaluation, instead of the latest checkpoint.

    Raises:
        PgkitError: there are none, or they cannot be read.
    """
    if best:
        return members_in(directory, read_best(directory)[1])
    return members_in(directory, checkpoint.load_latest(directory / "checkpoints"))


def read_best(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Path and content of the checkpoint with each member of a run at its best evaluation.

    Raises:
        PgkitError: there is none, or it cannot be read.
    """
    path = directory / "checkpoints" / checkpoint.BEST
    if not path.is_file():
        raise PgkitError(
            f"{directory} has no {checkpoint.BEST}: it was not evaluated during training (evaluation.points)"
        )
    return path, checkpoint.load(path)


def members_in(
    directory: Path, saved: Mapping[str, Any], acting: bool = False
) -> tuple[list[TrainConfig], Params, dict[str, Tensor]]:
    """What :func:`saved_members` returns, from the content of a checkpoint.

    Args:
        directory: of the run.
        saved: the content.
        acting: the parameters at which members act and train on, in place of those that are evaluated; they differ for
            optimizers with evaluation parameters.
    """
    configs = read_settings(directory, saved["labels"])
    key = "params" if acting else "eval_params"
    trees = [(part.get(key, part["params"]), part["obs_stats"]) for part in parts_of(saved)]
    params, obs_stats = concat_members(trees, [part["members"] for part in parts_of(saved)])
    return configs, params, obs_stats
