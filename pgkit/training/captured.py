"""Updates without Python: captured once for one member, and run for each.

A member's updates have the same bits alone and among others, so here each is trained alone, in memory that stays in the
cache, before the next one's turn: for a whole stretch of updates where environments are compiled, else for the part of
an update that follows its rollout. What cannot be captured (:mod:`pgkit.compiler.graph_ops`), and the update in which
a member
breaks, are left to :func:`pgkit.training.loop.update`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.graph import Capture, Graph, GraphStatus, MemberBuffers
from pgkit.compiler.graph_ops import NotCaptured
from pgkit.envs.base import Elementwise
from pgkit.rollouts.compiled import elementwise
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.system.cpu import use_graphs
from pgkit.training.optimizer_groups import OptimizerGroup, group_by_optimizer
from pgkit.training.population import Population, tensors_of
from pgkit.tree import map_tree
from pgkit.types import Params, Rollout

SECONDS = 0.2
"""About so long nobody hears of a stretch, nor stops it."""

ComputeUpdate = Callable[[Population, Sequence[int]], Any]
"""See :func:`pgkit.training.loop.compute_update`."""

Learn = Callable[[Population, list[MemberRollout], Tensor, Sequence[int]], Any]
"""See :func:`pgkit.training.loop.learn`."""


class Snapshots(NamedTuple):
    """Parameters that members had after the update in which they passed their marks.

    Attributes:
        env_steps: float64 ``(P,)``, environment steps of a member by then; NaN where it has passed none.
        params: leaves ``(P, ...)``; of members that have passed none, anything.
    """

    env_steps: Tensor
    params: Params


class UpdateOutput(NamedTuple):
    """What there is to see of updates.

    Attributes:
        metrics: ``(P,)`` each, of an update by itself; NaN where a member has no such number.
        aside: what was put aside on the way.
    """

    metrics: dict[str, Tensor]
    aside: Snapshots | None = None


class CapturedUpdates:
    """What of the updates of a population needs no Python, also when members have left it.

    Args:
        attempt: what an update makes.
        learn: what it makes of rollouts.

    Attributes:
        most: how many updates take about ``SECONDS``, by the last stretch; at least 2.
    """

    def __init__(self, compute_update: ComputeUpdate, learn: Learn) -> None:
        self._attempt, self._learn = compute_update, learn
        self.most = 2
        self._captured: dict[_Form, _Captured | None] = {}  # None: cannot be

    def go(
        self,
        population: Population,
        times: int,
        marks: Tensor,
        until: Tensor | None = None,
        diagnose: bool = False,
    ) -> UpdateOutput | None:
        """So many updates of every member, or fewer: until each has enough steps, or before one breaks.

        Args:
            population: is changed.
            times: no member may have used its budget before.
            marks: float64 ``(P,)``, environment steps from which on parameters are to be put aside, once.
            until: float64 ``(P,)``, environment steps from which on a member makes no more of them; by default none.
            diagnose: with the metrics of the last update.

        Returns:
            None if nothing has happened, because that needs Python.
        """
        collector = population.collector
        envs = elementwise(collector.envs, population.policy, population.params)
        plain = not collector.scaling.observations and not collector.scaling.returns
        kinds = self._kinds(population, True, diagnose) if envs is not None and plain and times else []
        if not kinds:
            return None
        until = torch.full_like(marks, torch.inf) if until is None else until
        started = time.perf_counter()
        while times:
            trial = _Outputs(population, envs, [marks, until], diagnose)
            done = self._run(trial, kinds, lambda one, given: self._attempt(one, [0] * diagnose), times)
            if done.ok.all():
                trial.take_effect(int(done.updates.max()))
                if not diagnose:
                    self.most = max(2, int(times * SECONDS / (time.perf_counter() - started)))
                return UpdateOutput(trial.metrics, trial.aside if trial.aside.params else None)
            times = int(done.updates[~done.ok].min())
        return None

    def learn(
        self, population: Population, pieces: Sequence[MemberRollout], env_steps: Tensor, diagnose: bool = False
    ) -> dict[str, Tensor] | None:
        """The rest of an update, after its rollouts.

        Args:
            population: is changed.
            pieces: the rollouts.
            env_steps: ``(P,)``, those before them.
            diagnose: with metrics.

        Returns:
            Metrics ``(P,)``; None if nothing has happened, because that needs Python.
        """
        kinds = self._kinds(population, False, diagnose)
        if not kinds or not population.collector.sound(population.alive).all():
            return None
        trial = _Outputs(population, None, [env_steps, *_member_first(pieces[0].rollout)], diagnose)
        if not self._run(trial, kinds, partial(self._learn_alone, diagnose), 1).ok.all():
            return None
        trial.take_effect(1)
        return trial.metrics

    def _learn_alone(self, diagnose: bool, one: Population, given: Sequence[Tensor]) -> Any:
        env_steps, *rollout = given
        own = Rollout(*(tensor.transpose(0, 1) for tensor in rollout))
        return self._learn(one, [MemberRollout(None, own, own)], env_steps, [0] * diagnose)

    def _kinds(self, population: Population, acts: bool, diagnose: bool) -> list[OptimizerGroup]:
        """The kinds that have members; none if one is known not to be captured."""
        if not use_graphs():
            return []
        kinds = group_by_optimizer(population, acts)
        forms = [_Form(acts, diagnose, kind.number) for kind in kinds]
        return [] if None in [self._captured.get(form, ...) for form in forms] else kinds

    def _run(self, trial: "_Outputs", kinds: Sequence[OptimizerGroup], work: "Work", times: int) -> GraphStatus:
        """Status of all members, group by group; a group that cannot be captured is not ok after no update."""
        done = []
        for kind in kinds:
            form = _Form(trial.envs is not None, trial.diagnose, kind.number)
            if form not in self._captured:
                self._captured[form] = _captured(trial, kind, work)
            captured = self._captured[form]
            refused = GraphStatus(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
            done.append(refused if captured is None else captured.run(trial, kind, times))
        return GraphStatus(*(torch.cat(parts) for parts in zip(*done, strict=True)))


class _Form(NamedTuple):
    """Of what a program does.

    Attributes:
        acts: rollouts, too.
        diagnoses: gives metrics.
        kind: of which optimizer.
    """

    acts: bool
    diagnoses: bool
    kind: int


class _Outputs:
    """What becomes of members, beside what they are, until it is clear that none has broken.

    Args:
        population: they.
        envs: their environments, if these are stepped.
        given: what else differs between members, ``(P, ...)`` each; with environments, marks and ends alone.
        diagnose: there will be ``metrics``.
    """

    def __init__(self, population: Population, envs: Elementwise | None, given: list[Tensor], diagnose: bool) -> None:
        self.population, self.envs, self.given, self.diagnose = population, envs, given, diagnose
        self.metrics: dict[str, Tensor] = {}
        self.changing = map_tree(_blank, _changing(population, envs is not None))
        self.opt_states: dict[int, Any] = {}
        self.env_state = [] if envs is None else [column.clone() for column in envs.state]
        wanted = envs is not None and bool((given[0] < torch.inf).any())
        params = map_tree(_blank, population.params) if wanted else {}
        self.aside = Snapshots(torch.full((population.size,), torch.nan, dtype=torch.float64), params)

    def moves(
        self, kind: OptimizerGroup, metrics: Iterable[str]
    ) -> list[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]]:
        """Where tensors come from and go to, and rows of them, in the order of :attr:`_Captured.here`."""
        population, own = self.population, torch.arange(len(kind.rows))
        self.opt_states[kind.number] = map_tree(_blank, kind.state)
        changing = _tensors(_changing(population, self.envs is not None))
        given = [tensor.contiguous() for tensor in (*self.given, *_given(population))]
        found: list[tuple[Sequence[Tensor], Sequence[Tensor], Tensor]] = [
            (changing, _tensors(self.changing), kind.rows),
            (_tensors(kind.state), _tensors(self.opt_states[kind.number]), own),
            (given, [_blank(tensor) for tensor in given], kind.rows),  # as they were, or marks that are passed
        ]
        if self.envs is not None:
            places = population.collector.members[kind.rows]
            constants = self.envs.constants
            found += [(self.envs.state, self.env_state, places), (constants, constants, places)]
        for tag in metrics:
            unknown = torch.full((population.size,), torch.nan, dtype=torch.float64)
            whole = [self.metrics.setdefault(tag, unknown)]
            found.append((whole, whole, kind.rows))
        return found

    def take_effect(self, times: int) -> None:
        """The population after so many updates."""
        population, collector, old = self.population, self.population.collector, self.population.opt_state
        population.params = self.changing[0]
        if self.envs is not None:
            collector.obs, collector.counters, collector.counts = self.changing[1:]
            for column, new in zip(self.envs.state, self.env_state, strict=True):
                column.copy_(new)
        if "group" in old:
            states = [self.opt_states.get(number, state) for number, state in enumerate(old["states"])]
            population.opt_state = {"group": old["group"], "states": states}
        else:
            population.opt_state = self.opt_states[0]
        population.updates += times
        population.evidence = None


Work = Callable[[Population, Sequence[Tensor]], Any]
"""What an update of one member makes, by the member and what else is given of it."""


class _Captured(NamedTuple):
    """Updates of one member of a kind, by itself.

    Attributes:
        member: it, in whose memory that happens.
        program: does one of them.
        here: what it reads and writes.
        aside: of that, environment steps and parameters.
        metrics: what it writes, too, float64 ``(1,)`` each.
    """

    member: Population
    program: Graph
    here: list[Tensor]
    aside: list[Tensor]
    metrics: dict[str, Tensor]

    def run(self, trial: _Outputs, kind: OptimizerGroup, times: int) -> GraphStatus:
        """For the members of the kind; returns what :meth:`pgkit.compiler.graph.Graph.run` does."""
        rows = [
            (source.contiguous(), target, places)
            for sources, targets, places in trial.moves(kind, self.metrics)
            for source, target in zip(sources, targets, strict=True)
        ]
        sources, targets, places = (list(column) for column in zip(*rows, strict=True))
        to = [trial.aside.env_steps, *trial.aside.params.values()] if trial.aside.params else []
        aside = MemberBuffers(to, to, [kind.rows] * len(to), self.aside[: len(to)])
        moves = MemberBuffers(sources, targets, places, [*self.here, *self.metrics.values()])
        return self.program.run(len(kind.rows), times, moves, aside)


def _captured(trial: _Outputs, kind: OptimizerGroup, work: Work) -> _Captured | None:
    """None if an update does what cannot be captured."""
    acts, one = trial.envs is not None, trial.population.take(kind.rows[:1])
    one.optimizer, one.opt_state = kind.optimizer, kind.optimizer.take(kind.state, torch.zeros(1, dtype=torch.int64))
    if trial.envs is not None:
        _step_alone(one, trial.envs)
    given, before, params = [tensor[kind.rows[:1]] for tensor in trial.given], _state(one, acts), one.params
    constants = _elementwise(one).constants if acts else []
    due, more = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    env_steps = due.double()
    try:
        with Capture() as capture:
            made = work(one, given)
            wanted = made.metrics if trial.diagnose else {}
            metrics = {tag: number.to(torch.float64, copy=True) for tag, number in wanted.items()}
            one.params = made.params
            for old, new in zip(before, _state(one, acts), strict=True):
                if new is not old:
                    old.copy_(new)
            if acts:
                mark, until = given
                env_steps.copy_(one.env_steps)
                due.copy_(env_steps >= mark)
                mark.copy_(torch.where(due, torch.inf, mark))
                more.copy_(env_steps < until)
    except NotCaptured:
        return None
    program = Graph(capture.instructions, made.finite, due, more)
    if not _repeats(program, before, metrics, one, work, given):
        return None
    of_envs = len(_elementwise(one).state) if acts else 0
    changing, env_state = before[: len(before) - of_envs], before[len(before) - of_envs :]
    here = [*changing, *given, *_given(one), *env_state, *constants]
    return _Captured(one, program, here, [env_steps, *params.values()], metrics)


def _repeats(
    program: Graph,
    state: list[Tensor],
    metrics: Mapping[str, Tensor],
    one: Population,
    work: Work,
    given: list[Tensor],
) -> bool:
    """Whether a program makes of the next update what Python makes of it: it holds no number that Python has read."""
    other, acts = one.take(torch.zeros(1, dtype=torch.int64)), isinstance(one.collector.envs, _SingleMemberEnvs)
    if acts:
        _step_alone(other, _elementwise(one))
    made = work(other, [tensor.clone() for tensor in given])
    other.params, nothing = made.params, MemberBuffers([], [], [], [])
    program.run(1, 1, nothing, nothing)
    measured = [made.metrics[tag].double() for tag in metrics]
    pairs = zip([*state, *metrics.values()], [*_state(other, acts), *measured], strict=True)
    return all(bool(((own == new) | ((own != own) & (new != new))).all()) for own, new in pairs)  # NaN is as NaN


def _step_alone(one: Population, envs: Elementwise) -> None:
    """Give a single member a copy of the first environments there are."""
    step, *columns = envs
    if one.rollout_steps is None:
        one.collector.longest = one.collector.longest or one.collector.envs.info.max_episode_steps
    own = ([column[: one.collector.count].clone() for column in part] for part in columns)
    one.collector.envs = _SingleMemberEnvs(Elementwise(step, *own))  # type: ignore[assignment] # all that is asked of it
    one.collector.members = torch.zeros(1, dtype=torch.int64)


def _state(one: Population, acts: bool) -> list[Tensor]:
    """What an update of a single member changes."""
    tensors = _tensors([_changing(one, acts), one.opt_state])
    return [*tensors, *_elementwise(one).state] if acts else tensors


def _elementwise(one: Population) -> Elementwise:
    """The environments of a single member."""
    return one.collector.envs.elementwise  # type: ignore[attr-defined] # it has one


class _SingleMemberEnvs(NamedTuple):
    """Environments of one member."""

    elementwise: Elementwise


def _changing(population: Population, acts: bool) -> tuple[Any, ...]:
    """What an update changes beside the optimizer's state and the environments'."""
    collector = population.collector
    acting = (collector.obs, collector.counters, collector.counts) if acts else ()
    return population.params, *acting


def _given(population: Population) -> list[Tensor]:
    """What differs between members and does not change."""
    return [population.collector.keys, *tensors_of(population.agent_config).values()]


def _member_first(rollout: Rollout) -> list[Tensor]:
    """The tensors of a rollout as ``(P, T, ...)``."""
    fields = (rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    final_obs = [] if rollout.final_obs is None else [rollout.final_obs]
    return [tensor.transpose(0, 1).contiguous() for tensor in (*fields, *final_obs)]


def _tensors(tree: Any) -> list[Tensor]:
    """All tensors of a tree."""
    found: list[Tensor] = []
    map_tree(found.append, tree)
    return found


def _blank(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
