"""Where captured updates write, so that the population stays as it was until all members have succeeded."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.envs.base import CompiledEnvs
from pgkit.training.optimizer_groups import OptimizerGroup
from pgkit.training.population import Population, tensors_of
from pgkit.tree import map_tree
from pgkit.types import Params


class Snapshots(NamedTuple):
    """Evaluation parameters that members had after the update in which they reached the step that was asked for.

    Attributes:
        env_steps: float64 ``(P,)``, environment steps of a member by then; NaN if it has not reached its step.
        params: leaves ``(P, ...)``; undefined for members that have not reached their step.
    """

    env_steps: Tensor
    params: Params

    @classmethod
    def of(cls, population: Population) -> "Snapshots":
        """All members as they are now."""
        return cls(population.env_steps, population.eval_params)


class Transfer(NamedTuple):
    """A tensor of many members: where a captured update of one of them reads it, and where the result goes.

    Attributes:
        source: ``(K, ...)``.
        target: ``(K, ...)``, may be the source.
        rows: int64 ``(M,)``, the row of each member.
    """

    source: Tensor
    target: Tensor
    rows: Tensor


class Outputs:
    """New tensors for everything that updates change in a population.

    Args:
        population: the members.
        envs: their environments, if the updates act; None if they begin with given rollouts.
        inputs: what else differs between members, ``(P, ...)`` each. If the updates act: environment steps from which
            on a member is to be snapshot, and from which on it stops. Otherwise: steps before the rollouts, and their
            tensors.
        diagnose: whether the updates give ``metrics``.

    Attributes:
        metrics: float64 ``(P,)`` by tag; NaN where a member has no such number.
        snapshots: parameters on the way; without parameters if nobody asks for them.
    """

    def __init__(
        self, population: Population, envs: CompiledEnvs | None, inputs: Sequence[Tensor], diagnose: bool
    ) -> None:
        self.population = population
        self.envs = envs
        self.inputs = inputs
        self.diagnose = diagnose
        self.metrics: dict[str, Tensor] = {}
        self._changed = map_tree(_blank, changed(population, envs is not None))
        self._opt_states: dict[int, Any] = {}
        self._env_state = [] if envs is None else [column.clone() for column in envs.state]
        asked = envs is not None and bool((inputs[0] < torch.inf).any())
        params = map_tree(_blank, population.params) if asked else {}
        self.snapshots = Snapshots(torch.full((population.size,), torch.nan, dtype=torch.float64), params)

    def transfers(self, group: OptimizerGroup, tags: Iterable[str]) -> list[Transfer]:
        """Every tensor that goes to a member of this group and comes back; the order is that of ``Workspace.tensors``.

        Args:
            group: members that share an optimizer.
            tags: of the metrics that an update gives.
        """
        population = self.population
        state_rows = torch.arange(len(group.rows))
        self._opt_states[group.number] = map_tree(_blank, group.state)
        changing = zip(flatten(changed(population, self.envs is not None)), flatten(self._changed), strict=True)
        transfers = [Transfer(source, target, group.rows) for source, target in changing]
        states = zip(flatten(group.state), flatten(self._opt_states[group.number]), strict=True)
        transfers += [Transfer(source, target, state_rows) for source, target in states]
        # Every tensor is written back; of inputs and constants, nobody reads the result.
        read_only = (*self.inputs, *constants(population, self.envs is not None))
        transfers += [Transfer(tensor, _blank(tensor), group.rows) for tensor in read_only]
        if self.envs is not None:
            env_rows = population.collector.members[group.rows]
            columns = zip(self.envs.state, self._env_state, strict=True)
            transfers += [Transfer(source, target, env_rows) for source, target in columns]
            transfers += [Transfer(column, column, env_rows) for column in self.envs.constants]
        for tag in tags:
            unknown = torch.full((population.size,), torch.nan, dtype=torch.float64)
            metric = self.metrics.setdefault(tag, unknown)
            transfers.append(Transfer(metric, metric, group.rows))
        return transfers

    def commit(self, updates: int) -> None:
        """Put the results into the population, which has made at most so many updates."""
        population = self.population
        collector = population.collector
        population.params = self._changed[0]
        if self.envs is not None:
            obs, counters, counts = self._changed[1:]
            collector.state = replace(collector.state, obs=obs, counters=counters, counts=counts)
            for column, new in zip(self.envs.state, self._env_state, strict=True):
                column.copy_(new)
        old = population.opt_state
        if "group" in old:
            states = [self._opt_states.get(index, state) for index, state in enumerate(old["states"])]
            population.opt_state = {"group": old["group"], "states": states}
        else:
            population.opt_state = self._opt_states[0]
        population.updates += updates
        population.trace = None


def changed(population: Population, acts: bool) -> tuple[Any, ...]:
    """What an update changes beside the states of optimizer and environments: the parameters, and where members act."""
    state = population.collector.state
    return (population.params, state.obs, state.counters, state.counts) if acts else (population.params,)


def constants(population: Population, acts: bool) -> list[Tensor]:
    """What differs between members and does not change; if they do not act, they stay where they are, too."""
    numbers = [population.collector.keys, population.shuffle_keys, *tensors_of(population.agent_config).values()]
    return numbers if acts else [*numbers, population.collector.state.counters]


def flatten(tree: Any) -> list[Tensor]:
    """All tensors of a tree, in order."""
    tensors: list[Tensor] = []
    map_tree(tensors.append, tree)
    return tensors


def _blank(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
