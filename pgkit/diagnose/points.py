"""Points of training: one member of a run at one checkpoint, with all that its next update depends on."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.runs import checkpoint
from pgkit.runs.directory import as_directory, is_finished
from pgkit.runs.reader import read_settings
from pgkit.training.extract_member import member_state
from pgkit.training.population import build
from pgkit.training.train import train
from pgkit.types import Params

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Where a run is looked at by default, as shares of its budget: most collapses are early."""

CHECKPOINTS = 100
"""How many checkpoints a run has that is trained again to be looked at."""


@dataclass(frozen=True)
class SavedEnvs:
    """Where the N environments of a member stood when a checkpoint was written.

    Attributes:
        envs: what :meth:`pgkit.envs.base.Environments.state` gave, leaves ``(N, ...)``.
        obs: ``(1, N, D)`` observations that the next actions are chosen from.
        counts: ``(1, 6, N)``, see :mod:`pgkit.rollouts.statistics`.
        discounted: ``(1, N)`` discounted return of the episodes under way.
        waiting: whether all of them wait at the end of an episode.
    """

    envs: Mapping[str, Tensor]
    obs: Tensor
    counts: Tensor
    discounted: Tensor
    waiting: bool

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SavedEnvs":
        """Those in the state of a population of one member."""
        return cls(**{name: state[name] for name in ("envs", "obs", "counts", "discounted", "waiting")})


@dataclass(frozen=True)
class Point:
    """One member at one checkpoint; leaves have P = 1.

    With an optimizer that is judged at another point (``Optimizer.eval_params``) this is the point at which the member
    acts, where gradients are taken and updates begin; the returns in the run's log are those of the other.

    Attributes:
        config: of the member.
        label: its name in the run, such as ``"seed-3"``.
        env_steps: environment steps that it has made.
        updates: updates that it has made.
        params: leaves ``(1, ...)``.
        opt_state: the dumped state of an optimizer that was made for this member alone.
        obs_stats: running statistics of observations, leaves ``(1, ...)``.
        return_stats: running statistics of returns, leaves ``(1, ...)``; None lets copies begin with none.
        kl: ``(1,)``, divergence of the policy over its last optimizer step, if the optimizer requires it.
        saved_envs: the environments in which copies begin; None lets them burn in.
    """

    config: TrainConfig
    label: str
    env_steps: float
    updates: int
    params: Params
    opt_state: Any
    obs_stats: dict[str, Tensor]
    return_stats: dict[str, Tensor] | None
    kl: Tensor
    saved_envs: SavedEnvs | None = None

    @property
    def share(self) -> float:
        """Share of the budget that has been used, at most 1."""
        return min(1.0, self.env_steps / self.config.steps)

    @classmethod
    def from_state(cls, config: TrainConfig, label: str, state: Mapping[str, Any], from_saved: bool) -> "Point":
        """The point at which the state of a population of one member was saved; with its environments if asked."""
        names = ("updates", "params", "opt_state", "obs_stats", "return_stats", "kl")
        columns = {name: state[name] for name in names}
        saved_envs = SavedEnvs.from_state(state) if from_saved else None
        return cls(config, label, float(state["statistics"]["env_steps"][0]), **columns, saved_envs=saved_envs)


def uses_critic(config: TrainConfig) -> bool:
    """Whether the agent's advantages depend on a learned value."""
    return bool(config.agent.get("baseline", "value") == "value")


def estimator_of(config: TrainConfig) -> str:
    """The advantages that an agent learns from, by their name in :mod:`pgkit.diagnose.estimator_comparison`."""
    if "lam" in config.agent:
        return f"gae-{config.agent['lam']:g}"
    return str(config.agent["baseline"]).replace("_", "-")


def initial_point(config: TrainConfig, label: str, from_saved: bool = False) -> Point:
    """The member before its first update; with its environments after their first reset if asked."""
    population = build([config])
    try:
        return Point.from_state(config, label, population.state(envs=from_saved), from_saved)
    finally:
        population.collector.envs.close()


def points_in(
    path: Path, configs: Sequence[TrainConfig], labels: Sequence[str], from_saved: bool = False
) -> list[Point]:
    """All members at one checkpoint.

    Args:
        path: of the checkpoint.
        configs: one for each member.
        labels: their names.
        from_saved: with their environments, which the checkpoint holds.

    Raises:
        PgkitError: the checkpoint cannot be read, or an earlier pgkit wrote it.
    """
    saved = checkpoint.load(path)
    if "workers" not in saved:
        raise PgkitError(f"checkpoint {path} was written by an earlier pgkit: it can be evaluated, but not diagnosed")
    members = zip(configs, labels, strict=True)
    return [Point.from_state(*member, member_state(configs, saved, k), from_saved) for k, member in enumerate(members)]


@dataclass(frozen=True)
class RunPoints:
    """A run, and where its members can be looked at.

    Attributes:
        configs: one for each member.
        labels: their names.
        paths: checkpoints in order of their steps.
        final: the last checkpoint of the run itself.
        trained_again: whether ``paths`` are those of the same training once more.
        missing: why fewer points than asked for are there; None if none is missing.
        from_saved: whether points have their environments.
    """

    configs: Sequence[TrainConfig]
    labels: Sequence[str]
    paths: Sequence[Path]
    final: Path
    trained_again: bool = False
    missing: str | None = None
    from_saved: bool = False

    def at(self, shares: Sequence[float]) -> list[list[Point]]:
        """For each share of the budget that there is, all members at the nearest checkpoint, in order and once."""
        return [self._points(step) for step in sorted({self._nearest(share) for share in shares})]

    def _nearest(self, share: float) -> int:
        wanted = share * self.configs[0].steps
        return min((abs(step - wanted), step) for step in self._steps)[1]

    @property
    def _steps(self) -> list[int]:
        """Environment steps of the checkpoints; 0 stands for the members before their first update."""
        return [0, *map(checkpoint.step_of, self.paths)]

    def _points(self, step: int) -> list[Point]:
        if step == 0:
            return [initial_point(*member, self.from_saved) for member in zip(self.configs, self.labels, strict=True)]
        path = next(path for path in self.paths if checkpoint.step_of(path) == step)
        return points_in(path, self.configs, self.labels, self.from_saved)


@contextmanager
def open_run(directory: str | Path, shares: Sequence[float] = SHARES, from_saved: bool = False) -> Iterator[RunPoints]:
    """The points of a run; if it has kept too few checkpoints, it is trained again in a temporary place.

    Training again gives the same bits, so its checkpoints are those that the run had, which is checked at the end.
    Where it does not, the points are those on disk.

    Args:
        directory: of a finished run.
        shares: of the budget, at which points are wanted.
        from_saved: whether points have their environments, in which copies begin.

    Raises:
        PgkitError: there is no such run, it is not finished, it cannot be read, or environments are wanted that cannot
            be saved exactly.
    """
    place = as_directory(directory)
    if not (place / "config.toml").is_file():
        raise PgkitError(f"{place} is not the directory of a run: it has no config.toml")
    if not is_finished(place):
        raise PgkitError(f"{place} is not finished: pgkit resume {directory} trains it to its end")
    _, saved = checkpoint.load_resumable(place)
    configs = read_settings(place, saved["labels"])
    if configs[0].policy.network == "gru":
        reason = "its policy is recurrent, and a diagnosis looks at single states"
        raise PgkitError(f"{place} cannot be diagnosed: {reason}")
    if from_saved and saved["inexact"]:
        raise PgkitError(f"{place} cannot be diagnosed from its saved environments: {saved['inexact']}")
    paths = checkpoint.checkpoints_in(place / "checkpoints")
    stored = RunPoints(configs, saved["labels"], paths, paths[-1], from_saved=from_saved)
    if _has_all(stored, shares):
        yield stored
        return
    if saved["inexact"]:
        yield replace(stored, missing=f"training again would not give the same bits: {saved['inexact']}")
        return
    with tempfile.TemporaryDirectory(prefix="pgkit-diagnose-") as temporary:
        again = _train_again(configs, stored, Path(temporary) / "run")
        differs = "trained again, the run ends with other parameters: its code, packages or machine have changed"
        yield again if _same_params(again.paths[-1], stored.final) else replace(stored, missing=differs)


def _has_all(stored: RunPoints, shares: Sequence[float]) -> bool:
    """Whether there is a checkpoint within half a percent of the budget, or one rollout, of each share."""
    budget = stored.configs[0].steps
    steps = [0, *map(checkpoint.step_of, stored.paths)]
    return all(min(abs(step - share * budget) for step in steps) <= 0.01 * budget for share in shares)


def _train_again(configs: Sequence[TrainConfig], stored: RunPoints, place: Path) -> RunPoints:
    """The same training, with checkpoints at every hundredth of it."""
    dense = [
        config.model_copy(update={"checkpoint_points": CHECKPOINTS, "keep_checkpoints": CHECKPOINTS + 1})
        for config in configs
    ]
    train(dense, place)
    paths = checkpoint.checkpoints_in(place / "checkpoints")
    return replace(stored, paths=paths, trained_again=True)


def _same_params(one: Path, other: Path) -> bool:
    """Whether the parameters in two checkpoints are the same to the last bit."""
    first, second = (_params_in(checkpoint.load(path)) for path in (one, other))
    return len(first) == len(second) and all(map(torch.equal, first, second))


def _params_in(saved: Mapping[str, Any]) -> list[Tensor]:
    """The leaves of all members, in an order that does not depend on which members left first."""
    parts = [part for worker in saved["workers"] for part in worker["parts"]]
    parts.sort(key=lambda part: part["members"].tolist())
    return [leaf for part in parts for leaf in part["params"].values()]
