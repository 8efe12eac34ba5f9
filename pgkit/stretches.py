"""Stretches of updates that nobody looks at: captured once for one member, and run for each without Python.

A member's updates have the same bits alone and among others, so here each is trained alone for many updates, in memory
that stays in the cache, before the next one's turn. What cannot be captured (:mod:`pgkit.capture`), every update that
is looked at, and the one in which a member breaks, are left to :func:`pgkit.training.update`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.capture import Capture, Moves, NotCaptured, Program
from pgkit.compiled_rollout import elementwise
from pgkit.envs.base import Elementwise
from pgkit.optim.core import Optimizer, map_tree
from pgkit.population import Population, tensors_of
from pgkit.types import Params

Attempt = Callable[[Population], Any]
"""See :func:`pgkit.training.attempt`."""


class Aside(NamedTuple):
    """Parameters that members had after the update in which they passed their marks.

    Attributes:
        env_steps: float64 ``(P,)``, environment steps of a member by then; NaN where it has passed none.
        params: leaves ``(P, ...)``; of members that have passed none, anything.
    """

    env_steps: Tensor
    params: Params


class Stretches:
    """Whole stretches of the updates of a population, and of what becomes of it when members leave.

    Args:
        attempt: what an update makes.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._captured: dict[int, _Captured | None] = {}  # by kind of optimizer; None of what cannot be captured

    def go(self, population: Population, times: int, marks: Tensor) -> Aside | None:
        """So many updates of every member, or fewer of all of them, where one breaks in the next.

        Args:
            population: is changed.
            times: at least 1; no member may have used its budget before.
            marks: float64 ``(P,)``, environment steps from which on parameters are to be put aside, once.

        Returns:
            what was put aside; None if nothing has happened, because it cannot be done without Python.
        """
        kinds = _kinds(population)
        captured = [self._of(population, kind) for kind in kinds]
        if not captured or None in captured:
            return None
        while times:
            trial = _Trial(population, marks)
            fine = [own.run(trial, kind, times) for own, kind in zip(captured, kinds, strict=True) if own]
            least = int(torch.cat(fine).min())
            if least == times:
                trial.take_effect(times)
                return trial.aside
            times = least
        return None

    def _of(self, population: Population, kind: "_Kind") -> "_Captured | None":
        if kind.number not in self._captured:
            try:
                self._captured[kind.number] = _Captured(population, kind, self._attempt)
            except NotCaptured:
                self._captured[kind.number] = None
        return self._captured[kind.number]


class _Kind(NamedTuple):
    """Members that share an optimizer.

    Attributes:
        number: of the optimizer.
        optimizer: theirs.
        rows: int64 ``(M,)``, theirs in the population.
        state: of the optimizer, with rows for them alone.
    """

    number: int
    optimizer: Optimizer
    rows: Tensor
    state: Any


def _kinds(population: Population) -> list[_Kind]:
    """The kinds that have members; none if it is clear that nothing can be captured."""
    optimizer, state, collector = population.optimizer, population.opt_state, population.collector
    envs = elementwise(collector.envs, population.policy, population.params)
    plain = not (collector.scaling.observations or collector.scaling.returns or "kl" in optimizer.needs)
    if envs is None or population.rollout_steps is None or not plain or not _is_pure(optimizer):
        return []
    if "kind" not in state:
        return [_Kind(0, optimizer, torch.arange(population.size), state)]
    rows = [(state["kind"] == index).nonzero().squeeze(1) for index in range(len(optimizer.parts))]
    kinds = zip(range(len(rows)), optimizer.parts, rows, state["states"], strict=True)
    return [_Kind(*kind) for kind in kinds if len(kind[2])]


def _is_pure(optimizer: Optimizer) -> bool:
    """Whether all that it knows is in its state, as tensors."""
    return bool(optimizer.transforms) or (bool(optimizer.parts) and all(map(_is_pure, optimizer.parts)))


class _Captured:
    """The update of one member of a kind, by itself.

    Raises:
        NotCaptured: it does what cannot be captured.
    """

    def __init__(self, population: Population, kind: _Kind, attempt: Attempt) -> None:
        one, first = population.take(kind.rows[:1]), torch.zeros(1, dtype=torch.int64)
        one.optimizer, one.opt_state = kind.optimizer, kind.optimizer.take(kind.state, first)
        step, *columns = _elementwise(population)
        envs = Elementwise(step, *([column[: one.collector.count].clone() for column in own] for own in columns))
        one.collector.envs, one.collector.members = _Alone(envs), first  # type: ignore[assignment] # all that is asked of it
        mark = torch.full((1,), torch.inf, dtype=torch.float64)
        before = _tensors([_changing(one), one.opt_state])
        with Capture() as capture:
            made = attempt(one)
            one.params = made.params
            for old, new in zip(before, _tensors([_changing(one), one.opt_state]), strict=True):
                if new is not old:
                    old.copy_(new)
            due = one.env_steps >= mark
            aside = [torch.where(due, one.env_steps, mark), *before[: len(made.params)]]
            mark.copy_(torch.where(due, torch.inf, mark))
        self._program = Program(capture.steps, made.finite, due)
        self._here = [*before, *envs.state, *_given(one), *envs.constants, mark]
        self._aside = aside

    def run(self, trial: "_Trial", kind: _Kind, times: int) -> Tensor:
        """Run it for each member of the kind; how often that was fine, int64 ``(M,)``."""
        population, own, state = trial.population, torch.arange(len(kind.rows)), _tensors(kind.state)
        of_envs = population.collector.members[kind.rows]
        envs, given = _elementwise(population), _given(population)
        trial.opt_states[kind.number] = map_tree(_blank, kind.state)
        columns = (
            (_tensors(_changing(population)), _tensors(trial.changing), kind.rows),
            (state, _tensors(trial.opt_states[kind.number]), own),
            (envs.state, trial.envs, of_envs),
            (given, given, kind.rows),
            (envs.constants, envs.constants, of_envs),
            ([trial.marks], [trial.passed], kind.rows),
        )
        rows = [
            (source.contiguous(), target, places)
            for sources, targets, places in columns
            for source, target in zip(sources, targets, strict=True)
        ]
        sources, targets, places = (list(column) for column in zip(*rows, strict=True))
        to = [trial.aside.env_steps, *trial.aside.params.values()]
        aside = Moves(to, to, [kind.rows] * len(to), self._aside) if trial.has_marks else Moves([], [], [], [])
        return self._program.run(len(kind.rows), times, Moves(sources, targets, places, self._here), aside)


class _Trial:
    """What members become of, beside what they are, until it is clear that none has broken."""

    def __init__(self, population: Population, marks: Tensor) -> None:
        self.population, self.marks, self.passed = population, marks, torch.empty_like(marks)
        self.changing = map_tree(_blank, _changing(population))
        self.opt_states: dict[int, Any] = {}
        self.envs = [column.clone() for column in _elementwise(population).state]
        self.has_marks = bool((marks < torch.inf).any())
        params = map_tree(_blank, population.params) if self.has_marks else {}
        self.aside = Aside(torch.full_like(marks, torch.nan), params)

    def take_effect(self, times: int) -> None:
        """The population after so many updates."""
        population, collector, old = self.population, self.population.collector, self.population.opt_state
        population.params, collector.obs, collector.counters, collector.counts = self.changing
        if "kind" in old:
            states = [self.opt_states.get(index, state) for index, state in enumerate(old["states"])]
            population.opt_state = {"kind": old["kind"], "states": states}
        else:
            population.opt_state = self.opt_states[0]
        for column, new in zip(_elementwise(population).state, self.envs, strict=True):
            column.copy_(new)
        population.updates += times
        population.evidence = None


class _Alone(NamedTuple):
    """Environments of one member."""

    elementwise: Elementwise


def _elementwise(population: Population) -> Elementwise:
    return population.collector.envs.elementwise  # type: ignore[attr-defined] # it has one


def _changing(population: Population) -> tuple[Any, ...]:
    """What an update changes beside the optimizer's state and the environments'."""
    collector = population.collector
    return population.params, collector.obs, collector.counters, collector.counts


def _given(population: Population) -> list[Tensor]:
    """What differs between members and does not change."""
    return [population.collector.keys, *tensors_of(population.agent_config).values()]


def _tensors(tree: Any) -> list[Tensor]:
    """All tensors of a tree."""
    found: list[Tensor] = []
    map_tree(found.append, tree)
    return found


def _blank(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
