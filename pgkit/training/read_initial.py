"""Read what a run begins with from another run (``init``), and check that it fits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgkit.config.load import flatten
from pgkit.config.schema import TrainConfig
from pgkit.config.tables import InitConfig
from pgkit.errors import PgkitError, format_value
from pgkit.nn.distributions import head_for
from pgkit.runs import checkpoint
from pgkit.runs.directory import as_directory, find_run
from pgkit.runs.reader import find_member, members_in, read_best
from pgkit.runs.writer import labels
from pgkit.training.available import action_space
from pgkit.training.initial_state import InitialState, concat_opt_states
from pgkit.training.worker_state import take_opt_state
from pgkit.training.workers import worker_tasks
from pgkit.tree import take_tree
from pgkit.types import Params

DRAWN = ("orthogonal", "log_std", "gains", "critic_gains")
"""Settings of the policy that only say how parameters are drawn."""


def read_initial(configs: Sequence[TrainConfig]) -> tuple[InitialState | None, dict[str, Any] | None]:
    """What the members of a run begin with, and what ``provenance.json`` says about it; None if they begin anew.

    Args:
        configs: one for each member.

    Raises:
        PgkitError: there is no such run, or it does not fit; one line about the first mismatch.
    """
    first = configs[0]
    init = first.init
    if init is None:
        return None, None
    directory = as_directory(_find(init.run))
    path, saved = _read(directory, init)
    sources, params, obs_stats = members_in(directory, saved, acting=init.optimizer_state)
    names = labels(sources)
    rows = _source_rows(init, names, [source.seed for source in sources], len(configs))
    check_settings(sources[rows[0]], first, init.run)
    opt_state = None
    if init.optimizer_state:
        single = [_opt_state(sources, saved, row, init.run) for row in dict.fromkeys(rows)]
        by_row = dict(zip(dict.fromkeys(rows), single, strict=True))
        opt_state = concat_opt_states([by_row[row] for row in rows], init.run)
    taken: tuple[Params, dict[str, Tensor]] = take_tree((params, obs_stats), torch.tensor(rows))
    source = {"run": str(directory), "checkpoint": path.name, "members": [names[row] for row in rows]}
    return InitialState(init.run, taken[0], taken[1], opt_state), source | {"optimizer_state": init.optimizer_state}


def check_settings(source: TrainConfig, config: TrainConfig, run: str) -> None:
    """Check that two configurations describe the same policy, as far as settings say.

    Raises:
        PgkitError: naming the first setting that differs, or the action spaces.
    """
    pairs = [(f"policy.{key}", each) for key, each in flatten(config.policy.model_dump()).items() if key not in DRAWN]
    pairs.append(("env.normalize_observations", config.env.normalize_observations))
    others = flatten({"policy": source.policy.model_dump(), "env": source.env.model_dump()})
    for key, value in pairs:
        if others.get(key) != value:
            raise PgkitError(
                f"init.run: {key} is {format_value(others.get(key))} in {run} and {format_value(value)} in this run"
            )
    if (source.env.id, source.env.kwargs) == (config.env.id, config.env.kwargs):
        return
    space, other = action_space(config), action_space(source)
    if space is None or other is None:
        return  # of EnvPool: the shapes of parameters decide
    head, other_head = head_for(space), head_for(other)
    if (head.name, head.width, head.noise) != (other_head.name, other_head.width, other_head.noise):
        raise PgkitError(
            f"init.run: the actions of {run} ({source.env.id}) are {other}, those of this run ({config.env.id}) {space}"
        )


def _find(run: str) -> Path:
    try:
        return find_run(run)
    except PgkitError as error:
        raise PgkitError(f"init.run: {error}") from None


def _read(directory: Path, init: InitConfig) -> tuple[Path, Mapping[str, Any]]:
    """The checkpoint of a run that it is begun with."""
    if init.best:
        return read_best(directory)
    path, saved = checkpoint.load_latest_valid(directory / "checkpoints")
    if init.optimizer_state and "workers" not in saved:
        raise PgkitError(f"init.optimizer_state: checkpoint {path} was written by an earlier pgkit")
    return path, saved


def _source_rows(init: InitConfig, names: Sequence[str], seeds: Sequence[int], members: int) -> list[int]:
    """Which member of the other run each member begins with: one for all, or one for each in their order."""
    if init.member is not None or len(names) == 1:
        try:
            return [find_member(Path(init.run), names, seeds, init.member)] * members
        except PgkitError as error:
            raise PgkitError(f"init.member: {error}") from None
    if len(names) == members:
        return list(range(members))
    raise PgkitError(
        f"init.run: {init.run} has {len(names)} members, this run has {members}: "
        f"init.member names one for all of them, such as init.member={names[0]}"
    )


def _opt_state(sources: Sequence[TrainConfig], saved: Mapping[str, Any], member: int, run: str) -> Any:
    """The dumped optimizer state of one member, as of a run of this member alone."""
    offset = 0
    for task in worker_tasks(sources, saved):
        size = len(task.configs)
        if member < offset + size:
            assert task.saved is not None
            parts = [part for part in task.saved["parts"] if (part["members"] == member - offset).any()]
            return take_opt_state(task.configs, parts[0], [member - offset])
        offset += size
    raise PgkitError(f"init.optimizer_state: the checkpoint of {run} has no member {member}")
