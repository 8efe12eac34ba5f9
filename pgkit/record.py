"""The directory of a run: what is written while it trains, and how it is read again.

``config.toml`` is the resolved configuration with all seeds, ``optimizer.toml`` the effective settings of the optimizer
for each group of parameters. Members that differ in more than their seed each have their own in ``<label>/``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from torch import Tensor

from pgkit import checkpoint, optim, provenance
from pgkit.config import TrainConfig, load_config, members, to_table, to_toml
from pgkit.logging import Recorder
from pgkit.population import Population
from pgkit.rollout import join
from pgkit.types import Params


class Record:
    """Configuration, provenance, log rows, checkpoints and results; writes nothing without a directory."""

    def __init__(self, directory: Path | None, configs: Sequence[TrainConfig]) -> None:
        self.directory, self.configs = directory, configs
        self._recorder: Recorder | None = None
        self._stopwatch: provenance.Stopwatch | None = None
        if directory is None:
            return
        names, first = labels(configs), configs[0]
        alike = all(config.model_copy(update={"seed": first.seed}) == first for config in configs)
        seeds = [config.seed for config in configs]
        text = to_toml(first.model_copy(update={"seeds": tuple(seeds)}) if alike and len(seeds) > 1 else first)
        (directory / "config.toml").write_text(text, encoding="utf-8")
        effective = [optimizer_toml(config) for config in configs]
        if alike:
            (directory / "optimizer.toml").write_text(effective[0], encoding="utf-8")
        else:
            for name, config, settings in zip(names, configs, effective, strict=True):
                (directory / name).mkdir()
                (directory / name / "config.toml").write_text(to_toml(config), encoding="utf-8")
                (directory / name / "optimizer.toml").write_text(settings, encoding="utf-8")
        self._stopwatch = provenance.write(directory / "provenance.json", seeds)
        self._recorder = Recorder(directory, names, text, [hparams(config) for config in configs])
        self._recorder.texts("optimizer", effective)

    def rows(self, rows: Mapping[int, tuple[float, Mapping[str, float]]]) -> None:
        """Log rows of some members: (environment steps, number by tag) by member."""
        if self._recorder is None or not rows:
            return
        nothing: tuple[float, Mapping[str, float]] = (0.0, {})
        members = [rows.get(member, nothing) for member in range(len(self.configs))]
        tags = {tag: None for _, numbers in members for tag in numbers}
        values = {tag: [numbers.get(tag, math.nan) for _, numbers in members] for tag in tags}
        self._recorder.log([int(steps) for steps, _ in members], values)

    def checkpoint(self, parts: Sequence[Population]) -> None:
        """Parameters, optimizer states and counts of all members, as plain data."""
        if self.directory is None:
            return
        saved = {"labels": labels(self.configs), "parts": [dumped(part) for part in parts if part.size]}
        steps = min(int(part.env_steps.min()) for part in parts if part.size)
        checkpoint.save_step(self.directory / "checkpoints", steps, saved, keep=self.configs[0].keep_checkpoints)

    def result(self, table: Sequence[Mapping[str, Any]], summary: Mapping[str, float], wall_seconds: float) -> None:
        """The final evaluation: ``result.json`` and TensorBoard's HParams."""
        if self.directory is None or self._recorder is None:
            return
        text = json.dumps({"members": list(table), "summary": dict(summary), "wall_seconds": wall_seconds}, indent=2)
        checkpoint.write_text(self.directory / "result.json", text)
        evaluated = ("return_mean", "return_std", "length_mean")
        self._recorder.hparams([{f"eval/{name}": row[name] for name in evaluated} for row in table])

    def close(self) -> None:
        """Write what is left, and how long it took."""
        if self._recorder is not None:
            self._recorder.close()
        if self._stopwatch is not None:
            provenance.finish(self._stopwatch)


def labels(configs: Sequence[TrainConfig]) -> list[str]:
    """A name for each member: its seed, with a number before it where seeds repeat."""
    seeds = [config.seed for config in configs]
    if len(set(seeds)) == len(seeds):
        return [f"seed-{seed}" for seed in seeds]
    return [f"{index:04d}-seed-{seed}" for index, seed in enumerate(seeds)]


def optimizer_toml(config: TrainConfig) -> str:
    """The effective settings of each group of parameters as TOML, defaults filled in; what is off is left out."""
    return tomli_w.dumps(_given(optim.describe(config.optimizer)))


def _given(tree: Any) -> Any:
    """The tables without what is None, which TOML does not know; in a list it is a text."""
    if isinstance(tree, Mapping):
        return {key: _given(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list | tuple):
        return [_given("none" if value is None else value) for value in tree]
    return tree


def hparams(config: TrainConfig) -> dict[str, bool | float | str]:
    """The settings of a run, flat by dotted key, for TensorBoard's HParams tab."""
    return dict(_flat(to_table(config), ""))


def _flat(table: Mapping[str, Any], prefix: str) -> list[tuple[str, bool | float | str]]:
    pairs: list[tuple[str, bool | float | str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value if isinstance(value, bool | int | float) else str(value)))
    return pairs


def dumped(part: Population) -> dict[str, Any]:
    """A part of the population as plain data and tensors."""
    return {
        "members": part.members,
        "params": part.params,
        "opt_state": part.optimizer.dump(part.opt_state),
        "alive": part.alive,
        "kl": part.kl,
        "obs_stats": part.collector.obs_stats,
        "return_stats": part.collector.return_stats,
        "statistics": dict(part.collector.statistics._asdict()),
        "updates": part.updates,
    }


def saved_members(directory: Path) -> tuple[list[TrainConfig], Params, dict[str, Tensor]]:
    """Configurations, parameters ``(P, ...)`` and observation statistics of a run's latest checkpoint.

    Raises:
        PgkitError: there is none, or it cannot be read.
    """
    saved = checkpoint.load_latest(directory / "checkpoints")
    configs = members(load_config(directory / "config.toml"))
    own = [directory / label / "config.toml" for label in saved["labels"]]
    if own[0].exists():
        configs = [load_config(path) for path in own]
    trees = [(part["params"], part["obs_stats"]) for part in saved["parts"]]
    params, obs_stats = join(trees, [part["members"] for part in saved["parts"]])
    return configs, params, obs_stats
