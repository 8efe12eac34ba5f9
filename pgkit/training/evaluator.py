"""Evaluation during training: snapshots of members, evaluated together, and the best of each member kept."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.envs.base import Environments
from pgkit.envs.errors import TooManyEnvs
from pgkit.errors import PgkitError
from pgkit.rollouts.evaluate import Episodes, EvalKey, evaluate_policy, unfinished_note
from pgkit.training.captured_outputs import Snapshots
from pgkit.training.population import Population, build_evaluation_envs
from pgkit.tree import concat_members, select_members, take_tree
from pgkit.types import Params

MAX_MEMBERS_AT_ONCE = 16
"""How many members are evaluated side by side, each in environments of its own."""

MAX_WAITING_PER_MEMBER = 4
"""How many evaluations of a member wait for each other: few environments take as long as many."""


class Evaluation(NamedTuple):
    """One evaluation during training.

    Attributes:
        member: position in the list of configurations.
        point: which of the member's evaluations, counted from 0.
        env_steps: environment steps of the member's training so far.
        episodes: returns and lengths, ``(E,)`` each.
        greedy: the same with the most likely actions, if ``evaluation.greedy`` asks for them.
    """

    member: int
    point: int
    env_steps: float
    episodes: Episodes
    greedy: Episodes | None = None


class Snapshot(NamedTuple):
    """What an evaluation of a member needs: leaves ``(1, ...)``; ``score`` is the mean return, NaN until evaluated."""

    member: int
    point: int
    env_steps: float
    score: float
    params: Params
    obs_stats: dict[str, Tensor]


class Evaluator:
    """Takes snapshots of members whose evaluation is due, and evaluates several together, which is faster.

    Waiting changes no number: an evaluation is a function of parameters, seed and point alone.

    Args:
        population: the members in training.
        configs: one for each member.
        saved: the state of the evaluator (:meth:`state`) of a resumed run.
        envs: what :func:`open_evaluation_envs` returned; None builds environments when they are needed.

    Attributes:
        waiting: snapshots that have not been evaluated yet.
        best: the best snapshot of each member so far.
        note: says that episodes were cut, once some were.
    """

    def __init__(
        self,
        population: Population,
        configs: Sequence[TrainConfig],
        saved: Mapping[str, Any] | None = None,
        envs: Environments | None = None,
    ) -> None:
        self.configs = configs
        self.settings = configs[0].evaluation
        self.policy = population.policy
        self.device = population.members.device
        self.waiting: list[Snapshot] = [] if saved is None else _unstack(saved["waiting"])
        best = [] if saved is None else _unstack(saved["best"])
        self.best: dict[int, Snapshot] = {snapshot.member: snapshot for snapshot in best}
        self.note: str | None = None
        self._training_envs = population.collector.envs
        self._envs = envs

    def state(self) -> dict[str, Any]:
        """The snapshots that wait, and the best one of each member, as plain data and tensors."""
        return {"waiting": _stack(self.waiting), "best": _stack([self.best[k] for k in sorted(self.best)])}

    def snapshot(self, population: Population, row: int, point: int, source: Snapshots) -> None:
        """Keep what the evaluation of a member needs.

        Args:
            population: the members in training.
            row: of the member.
            point: which of the member's evaluations.
            source: evaluation parameters of all members when the evaluation was due.
        """
        rows = torch.tensor([row], device=self.device)
        tree = (source.params, population.collector.state.obs_stats, source.env_steps)
        params, obs_stats, steps = select_members(tree, rows)
        member = int(population.members[row])
        self.waiting.append(Snapshot(member, point, float(steps), float("nan"), params, obs_stats))

    def enough_waiting(self, members: int) -> bool:
        """Whether to evaluate now: snapshots fill all environments, or each of so many members has several."""
        capacity = _env_count(self.configs, self._training_envs) // self.settings.episodes
        return len(self.waiting) >= min(capacity, MAX_WAITING_PER_MEMBER * members)

    def evaluate_waiting(self) -> list[Evaluation]:
        """Evaluate all snapshots that wait."""
        waiting = self.waiting
        self.waiting = []
        if not waiting:
            return []
        order = [torch.tensor([index]) for index in range(len(waiting))]
        params, obs_stats = concat_members([(s.params, s.obs_stats) for s in waiting], order)
        keys = [EvalKey(self.configs[s.member].seed, s.point) for s in waiting]
        sampled = self.evaluate(params, obs_stats, keys, self.settings.episodes, "evaluation")
        rows = zip(waiting, sampled.returns, sampled.lengths, strict=True)
        evaluations = [Evaluation(s.member, s.point, s.env_steps, Episodes(*episodes)) for s, *episodes in rows]
        for snapshot, evaluation in zip(waiting, evaluations, strict=True):
            score = evaluation.episodes.returns.mean().item()
            best = self.best.get(snapshot.member)
            if best is None or score > best.score or best.score != best.score:  # NaN is unequal to itself
                self.best[snapshot.member] = snapshot._replace(score=score)
        if not self.settings.greedy:
            return evaluations
        greedy = self.evaluate(params, obs_stats, keys, self.settings.episodes, "evaluation", deterministic=True)
        pairs = zip(evaluations, *greedy, strict=True)
        return [evaluation._replace(greedy=Episodes(*episodes)) for evaluation, *episodes in pairs]

    def evaluate(
        self,
        params: Params,
        obs_stats: dict[str, Tensor],
        keys: Sequence[EvalKey],
        episodes: int,
        stream: str,
        deterministic: bool = False,
    ) -> Episodes:
        """Evaluate parameters; see :func:`pgkit.rollouts.evaluate.evaluate_policy`. Environments are built once."""
        first = self.configs[0]
        if self._envs is None:
            self._envs = _build(self.configs, self._training_envs)
        result = evaluate_policy(
            self.policy,
            params,
            self._envs,
            keys,
            episodes,
            stream=stream,
            deterministic=deterministic or self.settings.deterministic,
            obs_stats=obs_stats if first.env.normalize_observations else None,
        )
        self.note = self.note or unfinished_note(result, self._envs.info)
        return result

    def close(self) -> None:
        """Free the environments that are not those of training."""
        if self._envs is not None and self._envs is not self._training_envs:
            self._envs.close()


def open_evaluation_envs(population: Population, configs: Sequence[TrainConfig]) -> Environments:
    """The environments of all evaluations of a run. With evaluations while training, they are others than its own.

    Raises:
        PgkitError: they cannot be created beside those of training.
    """
    training_envs = population.collector.envs
    try:
        return _build(configs, training_envs)
    except TooManyEnvs as error:
        raise PgkitError(f"{error}, for evaluations: evaluation.envs says how many there may be") from error
    except PgkitError as error:
        count = training_envs.info.num_envs
        raise PgkitError(
            f"{error} (for evaluations, beside {count} for training: if there cannot be more, evaluation.points=0 "
            "evaluates only after training, in the environments of training)"
        ) from error


def _build(configs: Sequence[TrainConfig], training_envs: Environments) -> Environments:
    """Environments for evaluations; those of training if there is no evaluation before its end."""
    info = training_envs.info
    if configs[0].evaluation.points == 0 and info.backend == "gymnasium" and info.can_step_subset:
        return training_envs
    return build_evaluation_envs(configs[0], _env_count(configs, training_envs), info.device)


def _env_count(configs: Sequence[TrainConfig], training_envs: Environments) -> int:
    """How many environments evaluations can use.

    pgkit's own cost next to nothing, so the final episodes of all members run at once; with others one member's do.
    """
    settings = configs[0].evaluation
    members = min(len(configs), MAX_MEMBERS_AT_ONCE)
    final = settings.final_episodes * (members if training_envs.info.backend == "pgkit" else 1)
    return max(members * settings.episodes, final)


def evaluations_state(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Evaluations as tensors with one row each."""
    return _number_columns(evaluations) | {
        "episodes": _stack_episodes([evaluation.episodes for evaluation in evaluations]),
        "greedy": _stack_episodes([evaluation.greedy for evaluation in evaluations if evaluation.greedy is not None]),
    }


def evaluations_from_state(saved: Mapping[str, Any]) -> list[Evaluation]:
    """The inverse of :func:`evaluations_state`."""
    numbers = (saved[name].tolist() for name in ("members", "point", "env_steps"))
    sampled = [Episodes(*row) for row in zip(*saved["episodes"], strict=True)]
    greedy = [Episodes(*row) for row in zip(*saved["greedy"], strict=True)]
    evaluations = [Evaluation(*row) for row in zip(*numbers, sampled, strict=True)]
    if not greedy:
        return evaluations
    return [e._replace(greedy=episodes) for e, episodes in zip(evaluations, greedy, strict=True)]


def take_members(saved: Mapping[str, Any], members: Sequence[int]) -> dict[str, Any]:
    """The rows of these members in the state of evaluations or snapshots, as those of a run with them only.

    Args:
        saved: rows with ``"members"``.
        members: positions, ascending; they are counted anew.
    """
    wanted = torch.tensor(members)
    rows = torch.isin(saved["members"], wanted).nonzero().squeeze(1)
    taken: dict[str, Any] = take_tree(dict(saved), rows)
    return taken | {"members": torch.searchsorted(wanted, taken["members"])}


def _stack_episodes(episodes: Sequence[Episodes]) -> list[Tensor]:
    """Returns and lengths, ``(M, E)`` each; an empty list of no episodes."""
    return [torch.stack(column) for column in zip(*episodes, strict=True)]


def _number_columns(rows: Sequence[Evaluation | Snapshot]) -> dict[str, Tensor]:
    return {
        "members": torch.tensor([row.member for row in rows], dtype=torch.int64),
        "point": torch.tensor([row.point for row in rows], dtype=torch.int64),
        "env_steps": torch.tensor([row.env_steps for row in rows], dtype=torch.float64),
    }


def _stack(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """Snapshots as one tree with a row each."""
    order = [torch.tensor([index]) for index in range(len(snapshots))]
    trees = [(snapshot.params, snapshot.obs_stats) for snapshot in snapshots]
    params, obs_stats = concat_members(trees, order) if trees else ({}, {})
    score = torch.tensor([snapshot.score for snapshot in snapshots], dtype=torch.float64)
    return _number_columns(snapshots) | {"score": score, "params": params, "obs_stats": obs_stats}


def _unstack(saved: Mapping[str, Any]) -> list[Snapshot]:
    """The inverse of :func:`_stack`."""
    numbers = (saved[name].tolist() for name in ("members", "point", "env_steps", "score"))
    rows = [torch.tensor([index]) for index in range(len(saved["members"]))]
    trees = [(take_tree(saved["params"], row), take_tree(saved["obs_stats"], row)) for row in rows]
    return [Snapshot(*row, *tree) for *row, tree in zip(*numbers, trees, strict=True)]
