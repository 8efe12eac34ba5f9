"""What callbacks get to see: frozen records of plain data, and of tensors that are copies on the CPU.

Members of a run are counted from 0 in the order of its configurations, as in ``TrainResult.table``. Each callback gets
records of its own, so that whatever it writes into them reaches nobody else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.tree import map_tree
from pgkit.types import Params, Rollout


@dataclass(frozen=True, eq=False)
class RunStart:
    """A run begins, or is resumed.

    Attributes:
        configs: one for each member.
        directory: of the run, or None.
        env_steps: ``(P,)``, environment steps of each member so far; 0 in a new run.
        resumed: whether the run is resumed.
    """

    configs: tuple[TrainConfig, ...]
    directory: Path | None
    env_steps: tuple[float, ...]
    resumed: bool

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each member, ``(P,)``."""
        return tuple(config.seed for config in self.configs)


@dataclass(frozen=True, eq=False)
class RolloutView:
    """M members have collected what their next update learns from.

    Attributes:
        members: ``(M,)``, ascending.
        seeds: ``(M,)``, their seeds.
        env_steps: ``(M,)``, environment steps of each of them before the rollout.
        update: the number of the update, from 1.
        rollout: ``(T, M, N, ...)``, observations and rewards as the learner sees them.
        unnormalized: the same as the environments gave them.
    """

    members: tuple[int, ...]
    seeds: tuple[int, ...]
    env_steps: tuple[float, ...]
    update: int
    rollout: Rollout
    unnormalized: Rollout


@dataclass(frozen=True, eq=False)
class UpdateView:
    """M members have made an update.

    Attributes:
        members: ``(M,)``, ascending.
        seeds: ``(M,)``, their seeds.
        env_steps: ``(M,)``, environment steps of each of them so far.
        update: the number of the update, from 1.
        params: the parameters after it, at which members act, leaves ``(M, ...)``.
        metrics: by tag, ``(M,)`` each, see ``pgkit/logging/README.md``; NaN where a member has no such number.
    """

    members: tuple[int, ...]
    seeds: tuple[int, ...]
    env_steps: tuple[float, ...]
    update: int
    params: Params
    metrics: dict[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class LogView:
    """A log row of each of M members, as it goes to TensorBoard and ``metrics.parquet``.

    Attributes:
        members: ``(M,)``, ascending.
        seeds: ``(M,)``, their seeds.
        env_steps: ``(M,)``, environment steps of each of them.
        values: by tag, ``(M,)`` each; NaN where a member has nothing to log.
    """

    members: tuple[int, ...]
    seeds: tuple[int, ...]
    env_steps: tuple[float, ...]
    values: dict[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class EvaluationView:
    """A member has been evaluated while it trains.

    Attributes:
        member: which one.
        seed: its seed.
        env_steps: its environment steps before the evaluation.
        returns: ``(E,)``, the undiscounted return of each episode.
        lengths: ``(E,)``, the length of each episode.
        values: the log row of the evaluation, by tag.
        history: mean returns of all of its evaluations so far, this one last, also those before the run was resumed.
        params: the parameters that were evaluated, leaves ``(1, ...)``.
        obs_stats: statistics of the observation normalizer, leaves ``(1, ...)``.
    """

    member: int
    seed: int
    env_steps: float
    returns: Tensor
    lengths: Tensor
    values: dict[str, float]
    history: tuple[float, ...]
    params: Params
    obs_stats: dict[str, Tensor]

    @property
    def return_mean(self) -> float:
        """The mean return of the episodes."""
        return self.history[-1]


@dataclass(frozen=True, eq=False)
class RunEnd:
    """A run is over, however it has ended.

    Attributes:
        status: ``"finished"``, ``"stopped"`` (by a callback), ``"interrupted"`` (Ctrl-C or SIGTERM) or ``"failed"``.
        error: what an interrupted or failed run ends with, in one line; else None.
        directory: of the run, whose files are complete unless it has failed, or None.
        table: as ``TrainResult.table``, one row for each member; empty for interrupted and failed runs, as all below.
        summary: as ``TrainResult.summary``, the spread of the final mean returns.
        stopped: for each member that a callback has stopped, the reason.
        params: the final parameters, at which policies are evaluated, leaves ``(P, ...)``.
        obs_stats: statistics of the observation normalizer, leaves ``(P, ...)``.
    """

    status: str
    error: str | None
    directory: Path | None
    table: tuple[dict[str, Any], ...]
    summary: dict[str, float]
    stopped: dict[int, str]
    params: Params
    obs_stats: dict[str, Tensor]


def plain_columns(columns: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Columns that cannot be written into."""
    return {tag: tuple(numbers) for tag, numbers in columns.items()}


def copy_tree(tree: Any) -> Any:
    """The tree with tensors in memory of their own, on the CPU."""
    return map_tree(lambda tensor: tensor.detach().to("cpu", copy=True).contiguous(), tree)


def copy_rollout(rollout: Rollout) -> Rollout:
    """The rollout with tensors in memory of their own, on the CPU, without what only networks use."""
    tensors = {field.name: copy_tree(getattr(rollout, field.name)) for field in fields(rollout)[:7]}
    return replace(rollout, **tensors, cache=None, packing=None)
