"""One member's update as a program: captured once, repeated for every member that has the same optimizer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.graph import Capture, Graph, GraphStatus, MemberBuffers
from pgkit.compiler.graph_ops import NotCaptured
from pgkit.envs.base import CompiledEnvs
from pgkit.rollouts.collector import CompiledSteps
from pgkit.rollouts.episodes import EpisodesToHorizon
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training.captured_outputs import Outputs, changed, constants, flatten
from pgkit.training.optimizer_groups import OptimizerGroup
from pgkit.training.population import Population
from pgkit.types import Rollout

ComputeUpdate = Callable[[Population, list[MemberRollout], Sequence[int]], Any]
"""See :func:`pgkit.training.loop.compute_update`."""


class _Member(NamedTuple):
    """A single member in memory that is its alone.

    Attributes:
        population: the member, P = 1.
        envs: its environments, if its updates act.
        inputs: what else its updates read, ``(1, ...)`` each, see :class:`Outputs`.
    """

    population: Population
    envs: CompiledEnvs | None
    inputs: list[Tensor]

    @classmethod
    def first_of(cls, group: OptimizerGroup, outputs: Outputs) -> "_Member":
        """The first member of a group."""
        row = group.rows[:1]
        population = outputs.population.take(row)
        population.optimizer = group.optimizer
        population.opt_state = group.optimizer.take(group.state, torch.zeros(1, dtype=torch.int64))
        envs = _copy_envs(outputs.envs, population)
        return cls(population, envs, [tensor[row] for tensor in outputs.inputs])

    def copy(self) -> "_Member":
        """The same member in other memory."""
        population = self.population.take(torch.zeros(1, dtype=torch.int64))
        return _Member(population, _copy_envs(self.envs, population), [tensor.clone() for tensor in self.inputs])

    def update(self, compute_update: ComputeUpdate, diagnose: bool) -> Any:
        """Compute an update, and take its parameters and optimizer state."""
        result = compute_update(self.population, self._collect(), [0] * diagnose)
        self.population.params = result.params
        self.population.opt_state = result.opt_state
        return result

    def state(self) -> list[Tensor]:
        """Everything that an update changes; the environments last."""
        tensors = flatten((changed(self.population, self.envs is not None), self.population.opt_state))
        return tensors if self.envs is None else [*tensors, *self.envs.state]

    def _collect(self) -> list[MemberRollout]:
        """Act, or take the rollout from the inputs."""
        population = self.population
        if self.envs is None:
            steps_before, *tensors = self.inputs
            rollout = Rollout(*(tensor.transpose(0, 1) for tensor in tensors))
            return [MemberRollout(None, rollout, rollout, steps_before)]
        if population.rollout_steps is not None:
            return population.collect(CompiledSteps(self.envs, population.rollout_steps))
        horizon = population.collector.envs.info.max_episode_steps
        assert horizon is not None  # or whole episodes would not be captured
        return population.collect(EpisodesToHorizon(self.envs, horizon))


class CapturedUpdate(NamedTuple):
    """Updates of one member at a time.

    Attributes:
        member: the member in whose memory they happen; held, so that the memory stays.
        graph: computes one update of it.
        tensors: what the graph reads and writes there, in the order of :meth:`Outputs.transfers`, but for the metrics.
        snapshot: environment steps, and the parameters that are evaluated.
        metrics: float64 ``(1,)`` by tag, which the graph writes, too.
    """

    member: Any
    graph: Graph
    tensors: list[Tensor]
    snapshot: list[Tensor]
    metrics: dict[str, Tensor]

    def run(self, outputs: Outputs, group: OptimizerGroup, max_updates: int) -> GraphStatus:
        """Update each member of the group, one after the other; returns what :meth:`Graph.run` does."""
        transfers = outputs.transfers(group, self.metrics)
        sources = [transfer.source.contiguous() for transfer in transfers]
        targets = [transfer.target for transfer in transfers]
        rows = [transfer.rows for transfer in transfers]
        buffers = MemberBuffers(sources, targets, rows, [*self.tensors, *self.metrics.values()])
        to = [outputs.snapshots.env_steps, *outputs.snapshots.params.values()] if outputs.snapshots.params else []
        snapshots = MemberBuffers(to, to, [group.rows] * len(to), self.snapshot[: len(to)])
        return self.graph.run(len(group.rows), max_updates, buffers, snapshots)


def capture_update(outputs: Outputs, group: OptimizerGroup, compute_update: ComputeUpdate) -> CapturedUpdate | None:
    """Trace one update of the group's first member.

    Returns:
        None if it does something that cannot be captured.
    """
    member = _Member.first_of(group, outputs)
    population, envs, inputs = member
    before = member.state()
    params = population.params
    snapshot_due = torch.zeros(1, dtype=torch.bool)
    keep_going = torch.ones(1, dtype=torch.bool)
    env_steps = torch.zeros(1, dtype=torch.float64)
    shown = params
    try:
        with Capture() as capture:
            result = member.update(compute_update, outputs.diagnose)
            metrics = {}
            if outputs.diagnose:
                metrics = {tag: metric.to(torch.float64, copy=True) for tag, metric in result.metrics.items()}
            # The graph repeats itself in the same memory: each update has to begin where the last one has ended.
            for old, new in zip(before, member.state(), strict=True):
                if new is not old:
                    old.copy_(new)
            if envs is not None:
                snapshot_at, stop_at = inputs
                env_steps.copy_(population.env_steps)
                snapshot_due.copy_(env_steps >= snapshot_at)
                snapshot_at.copy_(torch.where(snapshot_due, torch.inf, snapshot_at))  # once
                keep_going.copy_(env_steps < stop_at)
                if population.optimizer.eval_params is not None:
                    shown = population.optimizer.eval_params(params, population.opt_state)
    except NotCaptured:
        return None
    graph = Graph(capture.instructions, result.finite, snapshot_due, keep_going)
    if not _repeats(graph, before, metrics, member, compute_update):
        return None
    env_state = [] if envs is None else list(envs.state)
    changing = before[: len(before) - len(env_state)]
    env_constants = [] if envs is None else list(envs.constants)
    tensors = [*changing, *inputs, *constants(population, envs is not None), *env_state, *env_constants]
    return CapturedUpdate(member, graph, tensors, [env_steps, *shown.values()], metrics)


def _repeats(
    graph: Graph, state: list[Tensor], metrics: dict[str, Tensor], member: _Member, compute_update: ComputeUpdate
) -> bool:
    """Whether the graph computes the member's next update with the same bits as Python.

    Tracing does not see numbers that Python reads past PyTorch (``tolist``, ``numpy``): they would be constants of the
    graph, for ever those of the update that was traced. The next update tells.
    """
    other = member.copy()
    result = other.update(compute_update, bool(metrics))
    nothing = MemberBuffers([], [], [], [])
    graph.run(1, 1, nothing, nothing)
    expected = [*other.state(), *(result.metrics[tag].double() for tag in metrics)]
    return all(_same(*pair) for pair in zip([*state, *metrics.values()], expected, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal numbers; NaN equals NaN."""
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _copy_envs(envs: CompiledEnvs | None, population: Population) -> CompiledEnvs | None:
    """A copy of the first environments, which become those of this single member.

    It does not matter whose environments they were: their state is replaced by that of the member whose turn it is.
    """
    if envs is None:
        return None
    collector = population.collector
    population.collector = replace(collector, members=torch.zeros(1, dtype=torch.int64))
    count = collector.envs_per_member
    state, columns = ([column[:count].clone() for column in part] for part in (envs.state, envs.constants))
    return envs._replace(state=state, constants=columns)
