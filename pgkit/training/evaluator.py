"""Evaluation while training: members put aside at their marks, played together, and the best of each kept."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.envs.base import Environments
from pgkit.rollouts.evaluate import Episodes, EvalKey, evaluate_policy
from pgkit.training.captured import Snapshots
from pgkit.training.population import Population, build_envs
from pgkit.tree import concat_members, select_members, take_tree
from pgkit.types import Params

EVALUATED_AT_ONCE = 16  # members whose evaluation environments exist side by side
POINTS_AT_ONCE = 4  # evaluations of a member that wait for each other: playing few environments costs as much as many


class Evaluation(NamedTuple):
    """One evaluation while training.

    Attributes:
        member: position in the list of configurations.
        point: which of the member's evaluations, counted from 0.
        env_steps: of the member's training so far.
        episodes: returns and lengths ``(E,)``.
        greedy: the same with most likely actions, if the configuration asks for them.
    """

    member: int
    point: int
    env_steps: float
    episodes: Episodes
    greedy: Episodes | None = None


class Snapshot(NamedTuple):
    """A member put aside: leaves ``(1, ...)``; ``score`` is its mean return, NaN until it has been played."""

    member: int
    point: int
    env_steps: float
    score: float
    params: Params
    obs_stats: dict[str, Tensor]


class Evaluator:
    """Evaluation while training: members are put aside when they pass a mark, and played together.

    Waiting changes no number, because an evaluation is a function of parameters, seed and point alone.
    """

    def __init__(
        self, population: Population, configs: Sequence[TrainConfig], saved: Mapping[str, Any] | None = None
    ) -> None:
        self.configs, self.settings = configs, configs[0].evaluation
        self.policy, self.device = population.policy, population.members.device
        self.waiting: list[Snapshot] = [] if saved is None else _spread(saved["waiting"])
        best = [] if saved is None else _spread(saved["best"])
        self.best: dict[int, Snapshot] = {snapshot.member: snapshot for snapshot in best}
        self._own = population.collector.envs.info.backend == "pgkit"
        self._envs: Environments | None = None

    def state(self) -> dict[str, Any]:
        """Who waits, and the best of each member so far, as plain data."""
        return {"waiting": _stacked(self.waiting), "best": _stacked([self.best[k] for k in sorted(self.best)])}

    def snapshot(self, population: Population, row: int, point: int, aside: Snapshots | None = None) -> None:
        """Keep what it takes to evaluate the member at this row later; as it is, or was when it was put aside."""
        here, now = torch.tensor([row], device=self.device), Snapshots(population.env_steps, population.params)
        then = aside or now
        whole = (then.params, population.collector.obs_stats, then.env_steps)
        params, obs_stats, steps = select_members(whole, here)
        member = int(population.members[row])
        self.waiting.append(Snapshot(member, point, float(steps), float("nan"), params, obs_stats))

    def enough(self, members: int) -> bool:
        """Whether those that wait should play: there are as many as play at once, or several points of each member."""
        return len(self.waiting) >= min(self._count() // self.settings.episodes, POINTS_AT_ONCE * members)

    def play_waiting(self) -> list[Evaluation]:
        """Play all that wait."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        order = [torch.tensor([index]) for index in range(len(waiting))]
        params, obs_stats = concat_members([(s.params, s.obs_stats) for s in waiting], order)
        players = [EvalKey(self.configs[s.member].seed, s.point) for s in waiting]
        played = self.play(params, obs_stats, players, self.settings.episodes, "evaluation")
        rows = zip(waiting, played.returns, played.lengths, strict=True)
        evaluations = [Evaluation(s.member, s.point, s.env_steps, Episodes(*episodes)) for s, *episodes in rows]
        for snapshot, evaluation in zip(waiting, evaluations, strict=True):
            score, best = evaluation.episodes.returns.mean().item(), self.best.get(snapshot.member)
            if best is None or score > best.score or best.score != best.score:
                self.best[snapshot.member] = snapshot._replace(score=score)
        if not self.settings.greedy:
            return evaluations
        greedy = self.play(params, obs_stats, players, self.settings.episodes, "evaluation", deterministic=True)
        return [e._replace(greedy=Episodes(*own)) for e, *own in zip(evaluations, *greedy, strict=True)]

    def play(
        self,
        params: Params,
        obs_stats: dict[str, Tensor],
        players: Sequence[EvalKey],
        episodes: int,
        stream: str,
        deterministic: bool = False,
    ) -> Episodes:
        """Play these parameters; the environments are made once."""
        first = self.configs[0]
        if self._envs is None:
            self._envs = build_envs(first, self._count(), self.device)
        return evaluate_policy(
            self.policy,
            params,
            self._envs,
            players,
            episodes,
            stream=stream,
            deterministic=deterministic or self.settings.deterministic,
            obs_stats=obs_stats if first.env.normalize_observations else None,
        )

    def _count(self) -> int:
        """How many environments: those of pgkit's own cost next to nothing, of others the final episodes take turns."""
        players, settings = min(len(self.configs), EVALUATED_AT_ONCE), self.settings
        return max(players * settings.episodes, settings.final_episodes * (players if self._own else 1))

    def close(self) -> None:
        """Free the environments."""
        if self._envs is not None:
            self._envs.close()


def packed(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Evaluations as tensors, one row each."""
    return _numbers(evaluations) | {
        "episodes": _rows_of([evaluation.episodes for evaluation in evaluations]),
        "greedy": _rows_of([evaluation.greedy for evaluation in evaluations if evaluation.greedy is not None]),
    }


def unpacked(saved: Mapping[str, Any]) -> list[Evaluation]:
    """The inverse of :func:`packed`."""
    numbers = (saved[name].tolist() for name in ("members", "point", "env_steps"))
    sampled, greedy = ([Episodes(*own) for own in zip(*saved[name], strict=True)] for name in ("episodes", "greedy"))
    evaluations = [Evaluation(*row) for row in zip(*numbers, sampled, strict=True)]
    return [e._replace(greedy=own) for e, own in zip(evaluations, greedy, strict=True)] if greedy else evaluations


def _rows_of(episodes: Sequence[Episodes]) -> list[Tensor]:
    """Returns and lengths, each ``(M, E)``; nothing of nothing."""
    return [torch.stack(column) for column in zip(*episodes, strict=True)]


def of_member(saved: Mapping[str, Any], member: int) -> dict[str, Any]:
    """What belongs to one member among packed evaluations or snapshots, it being the only one: member 0."""
    rows = (saved["members"] == member).nonzero().squeeze(1)
    taken: dict[str, Any] = take_tree(dict(saved), rows)
    return taken | {"members": torch.zeros_like(taken["members"])}


def _numbers(rows: Sequence[Evaluation | Snapshot]) -> dict[str, Tensor]:
    return {
        "members": torch.tensor([row.member for row in rows], dtype=torch.int64),
        "point": torch.tensor([row.point for row in rows], dtype=torch.int64),
        "env_steps": torch.tensor([row.env_steps for row in rows], dtype=torch.float64),
    }


def _stacked(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Snapshots as one tree, a row each."""
    order = [torch.tensor([index]) for index in range(len(snapshots))]
    trees = [(snapshot.params, snapshot.obs_stats) for snapshot in snapshots]
    params, obs_stats = concat_members(trees, order) if trees else ({}, {})
    score = torch.tensor([snapshot.score for snapshot in snapshots], dtype=torch.float64)
    return _numbers(snapshots) | {"score": score, "params": params, "obs_stats": obs_stats}


def _spread(saved: Mapping[str, Any]) -> list[Snapshot]:
    """The inverse of :func:`_stacked`."""
    numbers = (saved[name].tolist() for name in ("members", "point", "env_steps", "score"))
    rows = [torch.tensor([index]) for index in range(len(saved["members"]))]
    trees = [(take_tree(saved["params"], row), take_tree(saved["obs_stats"], row)) for row in rows]
    return [Snapshot(*row, *tree) for *row, tree in zip(*numbers, trees, strict=True)]
