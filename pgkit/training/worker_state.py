"""The state of a worker in a checkpoint, with some of its members only."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit import optim
from pgkit.config.schema import TrainConfig
from pgkit.optim.partition import take_groups
from pgkit.training.evaluator import take_members
from pgkit.tree import take_tree


def take_worker_state(
    configs: Sequence[TrainConfig], saved: Mapping[str, Any], members: Sequence[int]
) -> dict[str, Any]:
    """The state of a worker that trains these members alone.

    Args:
        configs: one for each member of the worker.
        saved: the worker's ``"parts"`` and ``"monitor"``, as in a checkpoint.
        members: positions in ``configs``, ascending; they are counted anew.
    """
    wanted = torch.tensor(members)
    parts = [
        take_part_state(configs, part, members)
        for part in saved["parts"]
        if torch.isin(part["members"].cpu(), wanted).any()
    ]
    return {"parts": parts, "monitor": _monitor_state(saved["monitor"], members)}


def take_part_state(configs: Sequence[TrainConfig], state: Mapping[str, Any], members: Sequence[int]) -> dict[str, Any]:
    """The state of a population with those of these members only that are in it.

    Args:
        configs: one for each member of the worker.
        state: as :meth:`pgkit.training.population.Population.state` gives it.
        members: positions in ``configs``, ascending; they are counted anew.
    """
    rows, taken_members = _rows(state["members"], members)
    taken: dict[str, Any] = take_tree({k: v for k, v in state.items() if k not in ("opt_state", "envs")}, rows)
    envs = state["envs"]
    count = state["obs"].shape[1]
    if envs is not None:
        index = rows[:, None] * count + torch.arange(count, device=rows.device)
        envs = take_tree(envs, index.flatten())
    taken["members"] = taken_members
    taken["opt_state"] = take_opt_state(configs, state, members)
    taken["envs"] = envs
    return taken


def take_opt_state(configs: Sequence[TrainConfig], state: Mapping[str, Any], members: Sequence[int]) -> Any:
    """The dumped optimizer state of some members of a population, as an optimizer made for these members loads it.

    Args:
        configs: one for each member of the worker.
        state: of a population of some of them, as in checkpoints.
        members: positions in ``configs``, ascending.
    """
    tables = [config.optimizer for config in configs]
    optimizer = optim.from_config(tables)
    rows, _ = _rows(state["members"], members)
    opt_state = optimizer.take(optimizer.load(state["opt_state"], state["params"]), rows)
    groups = optim.groups_of(tables)
    return take_groups(optimizer.dump(opt_state), [groups[member] for member in members])


def _rows(present: Tensor, members: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where these members are in a population, and how they are counted among themselves, int64 ``(M,)`` each."""
    wanted = torch.tensor(members, device=present.device)
    rows = torch.isin(present, wanted).nonzero().squeeze(1)
    return rows, torch.searchsorted(wanted, present[rows])


def _monitor_state(saved: Mapping[str, Any], members: Sequence[int]) -> dict[str, Any]:
    """The state of a monitor with these members only."""
    log, evaluation, checkpoints = saved["schedules"]
    return {
        **saved,
        "evaluator": {name: take_members(snapshots, members) for name, snapshots in saved["evaluator"].items()},
        "evaluations": take_members(saved["evaluations"], members),
        "reasons": {new: saved["reasons"][old] for new, old in enumerate(members) if old in saved["reasons"]},
        "stopped": {},
        "to_log": [new for new, old in enumerate(members) if old in saved["to_log"]],
        "logged_statistics": [saved["logged_statistics"][old] for old in members],
        "schedules": [[log[old] for old in members], [evaluation[old] for old in members], checkpoints],
    }
