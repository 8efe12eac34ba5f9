"""What same_bits.py compares of a run directory, read without pgkit: any version can have written it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

RENAMED: dict[str, str] = {}
"""Metric tags, and keys of parameters and of optimizer states, that have another name now: old to new."""

CLOCKS = ("time/env_steps_per_second",)
"""Metrics that a clock decides, which are not compared (neither is the column ``wall_time``)."""

PARAMS_KEYS = ("params",)
OPT_STATE_KEYS = ("opt_state",)
"""Keys of a checkpoint, old and new names."""

Values = dict[str, bytes]


class Contents(NamedTuple):
    """What is compared of a run.

    Attributes:
        members: how many were trained.
        params: final parameters by name, the parts of a population in their order; type, shape and bytes of each.
        opt_state: the same of the optimizers' states, numbers included.
        metrics: value of each logged number by member, tag, step and count of rows of these.
    """

    members: int
    params: Values
    opt_state: Values
    metrics: Values


def read_run(directory: Path) -> Contents:
    """Read the last checkpoint and the metrics.

    Raises:
        SystemExit: the checkpoint holds no parameters and optimizer states where they are expected.
    """
    checkpoints = directory / "checkpoints"
    latest = checkpoints / (checkpoints / "latest").read_text().strip()
    params: Values = {}
    opt_state: Values = {}
    for index, (part_params, part_state) in enumerate(parts(torch.load(latest, weights_only=True))):
        params.update(leaves(part_params, f"part {index}"))
        opt_state.update(leaves(part_state, f"part {index}"))
    if not params or not opt_state:
        raise SystemExit(f"{latest}: no parameters or no optimizer states under {PARAMS_KEYS} and {OPT_STATE_KEYS}")
    rows = pd.read_parquet(directory / "metrics.parquet")
    return Contents(rows["member"].nunique(), params, opt_state, metric_values(rows))


def parts(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Parameters and optimizer state of each part of a population, wherever in the checkpoint they stand together."""
    if isinstance(tree, dict):
        params = next((tree[key] for key in PARAMS_KEYS if key in tree), None)
        state = next((tree[key] for key in OPT_STATE_KEYS if key in tree), None)
        if params is not None and state is not None:
            yield params, state
            return
    for child in children(tree).values():
        yield from parts(child)


def leaves(tree: Any, path: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of everything in a tree that is not empty."""
    if isinstance(tree, torch.Tensor):
        if tree.numel():
            yield path, f"{tree.dtype} {tuple(tree.shape)} ".encode() + tree.contiguous().numpy().tobytes()
    elif isinstance(tree, dict | list | tuple):
        for key, child in children(tree).items():
            yield from leaves(child, f"{path}/{RENAMED.get(key, key)}")
    else:
        yield path, repr(tree).encode()


def children(tree: Any) -> dict[Any, Any]:
    """The entries of a dict, list or tuple by key or position; nothing has none."""
    if isinstance(tree, dict):
        return tree
    return dict(enumerate(tree)) if isinstance(tree, list | tuple) else {}


def metric_values(rows: pd.DataFrame) -> Values:
    """The bits of each number, by what it is; rows of different members may have come in another order."""
    rows = rows[~rows["tag"].isin(CLOCKS)]
    count = rows.groupby(["label", "tag", "step"]).cumcount()
    values = rows["value"].to_numpy(np.float64)
    bits = np.where(np.isnan(values), np.nan, values)  # one NaN for all
    keys = zip(rows["label"], rows["tag"], rows["step"], count, strict=True)
    names = [f"{label}: {RENAMED.get(tag, tag)} at step {step}, row {number}" for label, tag, step, number in keys]
    return {name: value.tobytes() for name, value in zip(names, bits, strict=True)}


class Verdict(NamedTuple):
    """Whether two runs are equal, and that in words: the first difference, if there is one."""

    equal: bool
    text: str


def judge(before: Contents, after: Contents) -> Verdict:
    """Compare all values by name.

    Where names in optimizer states differ in other ways than RENAMED says, their values are compared as a multiset.
    """
    if before.members != after.members:
        return Verdict(False, f"different: {before.members} members before, {after.members} after")
    state = first_difference(before.opt_state, after.opt_state)
    same_values = Counter(before.opt_state.values()) == Counter(after.opt_state.values())
    renamed = before.opt_state.keys() != after.opt_state.keys() and same_values
    differences = {
        "parameters": first_difference(before.params, after.params),
        "optimizer states": None if renamed else state,
        "metrics": first_difference(before.metrics, after.metrics),
    }
    for what, text in differences.items():
        if text is not None:
            return Verdict(False, f"different: {what}, {text}")
    return Verdict(True, "equal, under other names in the optimizer states" if renamed else "equal")


def first_difference(before: Values, after: Values) -> str | None:
    """The first name whose value differs, or that is on one side only, or None."""
    names = {**before, **after}
    different = [name for name in names if before.get(name) != after.get(name)]
    if not different:
        return None
    first = different[0]
    where = "" if first in before and first in after else " (only before)" if first in before else " (only after)"
    return f"{first}{where} ({len(different):,} of {len(names):,})"
