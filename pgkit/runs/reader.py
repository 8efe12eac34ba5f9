"""Read run directories."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.config.load import load_config
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.runs import checkpoint
from pgkit.tree import concat_members
from pgkit.types import Params

if TYPE_CHECKING:
    import pandas as pd


def read_settings(directory: Path, names: Sequence[str]) -> list[TrainConfig]:
    """The configurations of a run's members, which have these labels.

    Raises:
        PgkitError: they cannot be read, or are not as many.
    """
    own = [directory / name / "config.toml" for name in names]
    if len(own) > 1 and own[0].exists():
        return [load_config(path) for path in own]
    configs = expand_seeds(load_config(directory / "config.toml"))
    if len(configs) != len(names):
        raise PgkitError(f"{directory / 'config.toml'} has {len(configs)} seeds, the checkpoint {len(names)} members")
    return configs


def rows_until(directory: Path, saved: Mapping[str, Any]) -> "pd.DataFrame":
    """The rows of a run's metrics that a checkpoint knows of: the first ones of each of its slices.

    Raises:
        PgkitError: they cannot be read, or there are fewer.
    """
    path = directory / "metrics.parquet"
    rows = read_metrics(path)
    known = np.array([own["rows"] for own in saved["slices"]])
    owner = np.searchsorted(np.cumsum(sizes_of(saved)), rows["member"], side="right")
    kept = rows[rows.groupby(owner).cumcount() < known[owner]]
    if len(kept) < known.sum():
        raise PgkitError(f"{path} has {len(rows)} rows, but the checkpoint was written after {known.sum()}")
    return kept.reset_index(drop=True)


def sizes_of(saved: Mapping[str, Any]) -> list[int]:
    """Members of each slice in a checkpoint."""
    return [sum(len(part["members"]) for part in own["parts"]) for own in _slices_of(saved)]


def parts_of(saved: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the population in a checkpoint, of all slices; their ``"members"`` counted through."""
    offsets = accumulate(sizes_of(saved), initial=0)
    slices = zip(_slices_of(saved), offsets, strict=False)
    return [{**part, "members": part["members"] + offset} for own, offset in slices for part in own["parts"]]


def _slices_of(saved: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [saved] if "parts" in saved else saved["slices"]  # the first format had one, and no name for it


def steps_of(saved: Mapping[str, Any]) -> int:
    """Mean environment steps of the members in a checkpoint: it grows as long as one of them trains."""
    return int(torch.cat([part["statistics"]["env_steps"] for part in parts_of(saved)]).mean())


def saved_members(directory: Path, best: bool = False) -> tuple[list[TrainConfig], Params, dict[str, Tensor]]:
    """Configurations, parameters ``(P, ...)`` and observation statistics of a run's members.

    Args:
        directory: of the run.
        best: of each member's best evaluation while training, instead of the latest checkpoint.

    Raises:
        PgkitError: there are none, or they cannot be read.
    """
    place = directory / "checkpoints"
    if best and not (place / checkpoint.BEST).is_file():
        raise PgkitError(
            f"{directory} has no {checkpoint.BEST}: it was not evaluated while training (evaluation.points)"
        )
    saved = checkpoint.load(place / checkpoint.BEST) if best else checkpoint.load_latest(place)
    configs = read_settings(directory, saved["labels"])
    trees = [(part["params"], part["obs_stats"]) for part in parts_of(saved)]
    params, obs_stats = concat_members(trees, [part["members"] for part in parts_of(saved)])
    return configs, params, obs_stats
