"""Watching a training run: log rows, evaluations, checkpoints, progress bar. Nothing here changes what is learnt."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.config import TrainConfig
from pgkit.envs.base import Environments
from pgkit.evaluate import Episodes, Player, play
from pgkit.population import Population, build_envs
from pgkit.progress import ProgressBar
from pgkit.record import Record
from pgkit.rollout import join, select
from pgkit.rundir import create_run_directory
from pgkit.types import Params

EVALUATED_AT_ONCE = 16  # members whose evaluation environments exist side by side


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


@dataclass(frozen=True)
class TrainResult:
    """What came out.

    Attributes:
        table: one row for each member, in the order of the configurations: seed, status, steps, final evaluation.
        evaluations: those while training, in the order in which they were played.
        final: the episodes of the final evaluation, returns and lengths ``(P, E)``.
        params: leaves ``(P, ...)``, in the same order.
        obs_stats: of the observation normaliser, leaves ``(P, ...)``.
        parts: the members as they left the population, with optimizer states and all.
        directory: where the run is recorded, if it is.
        wall_seconds: from the first rollout to the last update, evaluations included.
    """

    table: list[dict[str, Any]]
    evaluations: list[Evaluation]
    final: Episodes
    params: Params
    obs_stats: dict[str, Tensor]
    parts: list[Population]
    directory: Path | None
    wall_seconds: float

    @property
    def summary(self) -> dict[str, float]:
        """Spread over members of the final mean return, failed ones included."""
        return spread([row["return_mean"] for row in self.table])


def spread(returns: Sequence[float]) -> dict[str, float]:
    """Mean, median, 10 % and 90 % quantiles (linear interpolation), minimum and maximum."""
    numbers = torch.tensor(returns, dtype=torch.float64)
    quantiles = numbers.quantile(torch.tensor([0.5, 0.1, 0.9], dtype=torch.float64)).tolist()
    named = dict(zip(("median", "p10", "p90"), quantiles, strict=True))
    return {"mean": numbers.mean().item(), **named, "min": numbers.min().item(), "max": numbers.max().item()}


class Marks:
    """Evenly spaced points on every member's way, at multiples of ``spacing`` environment steps from ``first`` on.

    There are ``most`` of them, so that a last rollout longer than the spacing passes none beyond the budget.
    """

    def __init__(self, members: int, spacing: float, first: float, most: float = float("inf")) -> None:
        self.spacing, self.first, self.most = spacing, first, most
        self.passed = [0] * members

    def due(self, members: Sequence[int], env_steps: Sequence[float]) -> list[int]:
        """Rows of the members that have passed a mark since they were asked last."""
        rows = []
        for row, (member, steps) in enumerate(zip(members, env_steps, strict=True)):
            count = int(min((steps - self.first) // self.spacing + 1, self.most))
            if count > self.passed[member]:
                self.passed[member] = count
                rows.append(row)
        return rows


class Snapshot(NamedTuple):
    """A member put aside to be evaluated: leaves ``(1, ...)``."""

    member: int
    point: int
    env_steps: float
    params: Params
    obs_stats: dict[str, Tensor]


class Evaluator:
    """Evaluation while training: members are put aside when they pass a mark, and played together.

    Waiting changes no number, because an evaluation is a function of parameters, seed and point alone.
    """

    def __init__(self, population: Population, configs: Sequence[TrainConfig]) -> None:
        self.configs, self.settings = configs, configs[0].evaluation
        self.policy, self.device = population.policy, population.members.device
        self.waiting: list[Snapshot] = []
        self._envs: Environments | None = None

    def put_aside(self, population: Population, row: int, point: int) -> None:
        """Keep what it takes to evaluate the member at this row later."""
        here = torch.tensor([row], device=self.device)
        whole = (population.params, population.collector.obs_stats, population.env_steps)
        params, obs_stats, steps = select(whole, here)
        self.waiting.append(Snapshot(int(population.members[row]), point, float(steps), params, obs_stats))

    def play_waiting(self) -> list[Evaluation]:
        """Play all that wait."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return []
        order = [torch.tensor([index]) for index in range(len(waiting))]
        params, obs_stats = join([(snapshot.params, snapshot.obs_stats) for snapshot in waiting], order)
        players = [Player(self.configs[snapshot.member].seed, snapshot.point) for snapshot in waiting]
        played = self.play(params, obs_stats, players, self.settings.episodes, "evaluation")
        rows = zip(waiting, played.returns, played.lengths, strict=True)
        found = [Evaluation(s.member, s.point, s.env_steps, Episodes(*episodes)) for s, *episodes in rows]
        if not self.settings.greedy:
            return found
        greedy = self.play(params, obs_stats, players, self.settings.episodes, "evaluation", deterministic=True)
        return [e._replace(greedy=Episodes(*own)) for e, *own in zip(found, *greedy, strict=True)]

    def play(
        self,
        params: Params,
        obs_stats: dict[str, Tensor],
        players: Sequence[Player],
        episodes: int,
        stream: str,
        deterministic: bool = False,
    ) -> Episodes:
        """Play these parameters; the environments are made once."""
        first = self.configs[0]
        if self._envs is None:
            at_once = min(len(self.configs), EVALUATED_AT_ONCE) * self.settings.episodes
            self._envs = build_envs(first, max(at_once, self.settings.final_episodes), self.device)
        return play(
            self.policy,
            params,
            self._envs,
            players,
            episodes,
            stream=stream,
            deterministic=deterministic or self.settings.deterministic,
            obs_stats=obs_stats if first.env.normalize_observations else None,
        )

    def close(self) -> None:
        """Free the environments."""
        if self._envs is not None:
            self._envs.close()


class Observer:
    """A context: what happens inside is recorded, and what was recorded is kept if training is interrupted."""

    def __init__(
        self,
        population: Population,
        configs: Sequence[TrainConfig],
        directory: Path | None,
        progress: bool,
        overwrite: bool,
        on_steps: Callable[[float], None] | None,
    ) -> None:
        first, size = configs[0], len(configs)
        if directory is not None:
            create_run_directory(directory, overwrite)
        self.configs, self.directory, self.parts = configs, directory, [population]
        self._evaluations: list[Evaluation] = []
        self._on_steps = on_steps
        self.wants_diagnosis = False
        self._to_log: set[int] = set()
        self._log_marks = Marks(size, first.steps_per_log, first.steps_per_log)
        points = first.evaluation.points
        self._evaluation_marks = Marks(size, first.steps / max(1, points), 0, most=points + 1)
        self._checkpoint_marks = Marks(1, first.steps / max(1, first.checkpoint_points), 1)
        self._counts = [[0.0] * 4] * size  # statistics of each member at its last log row
        self._evaluator = Evaluator(population, configs)
        self._record = Record(directory, configs)
        self._bar = ProgressBar(first.steps * size, progress)
        self._started = time.perf_counter()

    def __enter__(self) -> "Observer":
        self._bar.start()
        self._put_aside(self.parts[-1], list(range(len(self.configs))), [0.0] * len(self.configs))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._record.checkpoint(self.parts)
        self._record.close()
        self._evaluator.close()
        self.parts[0].collector.envs.close()

    def see(self, population: Population, metrics: Mapping[str, Tensor]) -> None:
        """Look at the population after an update."""
        self.parts[-1] = population
        members, env_steps = population.members.tolist(), population.env_steps.tolist()
        if self._to_log:
            self._log(population, metrics)
        self._to_log = {members[row] for row in self._log_marks.due(members, env_steps)}
        self.wants_diagnosis = bool(self._to_log)
        self._put_aside(population, members, env_steps)
        done = sum(env_steps) + sum(float(part.env_steps.sum()) for part in self.parts[:-1])
        if self._checkpoint_marks.due([0], [done / len(self.configs)]):
            self._record.checkpoint(self.parts)
        self._bar.show(done)
        if self._on_steps is not None:
            self._on_steps(done)

    def keep(self, leaving: Population, staying: Population) -> None:
        """Some members are done: they have used their budget, or diverged."""
        self.parts[-1:] = [leaving, staying]
        for member, alive, steps in zip(leaving.members, leaving.alive, leaving.env_steps, strict=True):
            if not alive:
                seed = self.configs[int(member)].seed
                self._bar.say(f"seed {seed} diverged before step {steps:,.0f}: it keeps its last finite parameters")

    def finish(self) -> TrainResult:
        """The final evaluation, once every member is done."""
        wall = time.perf_counter() - self._started
        self._play_waiting()
        parts = [part for part in self.parts if part.size]
        rows = [part.members for part in parts]
        trees = [(part.params, part.collector.obs_stats, part.alive, part.env_steps) for part in parts]
        params, obs_stats, alive, env_steps = join(trees, rows)
        settings = self.configs[0].evaluation
        players = [Player(config.seed, 0) for config in self.configs]
        episodes = self._evaluator.play(params, obs_stats, players, settings.final_episodes, "report")
        table = [
            {"seed": config.seed, "failed": not bool(alive[k]), "env_steps": int(env_steps[k])}
            | evaluation_row(episodes.returns[k], episodes.lengths[k])
            for k, config in enumerate(self.configs)
        ]
        result = TrainResult(table, self._evaluations, episodes, params, obs_stats, parts, self.directory, wall)
        self._record.result(table, result.summary, wall)
        return result

    def _put_aside(self, population: Population, members: list[int], env_steps: list[float]) -> None:
        if self.configs[0].evaluation.points == 0:
            return
        for row in self._evaluation_marks.due(members, env_steps):
            self._evaluator.put_aside(population, row, self._evaluation_marks.passed[members[row]] - 1)
        if len(self._evaluator.waiting) >= min(EVALUATED_AT_ONCE, len(members)):
            self._play_waiting()

    def _play_waiting(self) -> None:
        for evaluation in self._evaluator.play_waiting():
            self._evaluations.append(evaluation)
            row = evaluation_row(*evaluation.episodes)
            numbers = {f"eval/{name}": number for name, number in row.items()}
            if evaluation.greedy is not None:
                numbers["eval/greedy_return_mean"] = evaluation.greedy.returns.mean().item()
            self._record.rows({evaluation.member: (evaluation.env_steps, numbers)})

    def _log(self, population: Population, metrics: Mapping[str, Tensor]) -> None:
        """One row of each member that is due: what the update did, and the episodes since its last row."""
        members, statistics = population.members.tolist(), torch.stack(population.collector.statistics, 1).tolist()
        tags = list(metrics)
        numbers = torch.stack([metrics[tag].double() for tag in tags], 1).tolist()
        elapsed = time.perf_counter() - self._started
        rows = {}
        for row, member in enumerate(members):
            if member in self._to_log:
                counts = statistics[row]
                _, episodes, returns, lengths = (a - b for a, b in zip(counts, self._counts[member], strict=True))
                self._counts[member] = counts
                values = dict(zip(tags, numbers[row], strict=True))
                values["train/episode_return"] = returns / episodes if episodes else float("nan")
                values["train/episode_length"] = lengths / episodes if episodes else float("nan")
                values["time/env_steps_per_second"] = sum(s[0] for s in statistics) / elapsed
                rows[member] = (counts[0], values)
                if episodes:
                    self._bar.note(f"return {returns / episodes:.1f}")
        self._record.rows(rows)


def evaluation_row(returns: Tensor, lengths: Tensor) -> dict[str, float]:
    """Mean and (sample) standard deviation of the returns ``(E,)``, and the mean length."""
    std = returns.std().item() if len(returns) > 1 else 0.0
    return {"return_mean": returns.mean().item(), "return_std": std, "length_mean": lengths.double().mean().item()}
