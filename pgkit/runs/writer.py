"""The directory of a run: what is written while it trains, and how it is read again.

``config.toml`` is the resolved configuration with all seeds, ``optimizer.toml`` the effective settings of the optimizer
for each group of parameters. Members that differ in more than their seed each have their own in ``<label>/``.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from pgkit import optim
from pgkit.config.load import to_table, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.logging import Recorder
from pgkit.runs import checkpoint, provenance
from pgkit.system.files import WriteError, write_text

if TYPE_CHECKING:
    pass
from pgkit.runs.reader import rows_until, steps_of


@dataclass(frozen=True)
class ResumeState:
    """What a run that goes on begins with.

    Attributes:
        saved: the tree of its checkpoint.
        beginning: how often its environments had to begin anew.
        differences: what keeps it from going on exactly, one line each.
    """

    saved: Mapping[str, Any]
    restart_count: int = 0
    differences: Sequence[str] = ()


class RunWriter:
    """Configuration, provenance, log rows, checkpoints and results; writes nothing without a directory.

    Args:
        directory: of the run, which this process holds.
        configs: of the members.
        inexact: why the run cannot be resumed exactly, if so.
        past: of a run that goes on.
    """

    def __init__(
        self, directory: Path | None, configs: Sequence[TrainConfig], inexact: str | None, past: ResumeState | None
    ) -> None:
        self.directory, self.configs = directory, configs
        self._recorder: Recorder | None = None
        self._stopwatch: provenance.Stopwatch | None = None
        self._counts = Counter({k: own["rows"] for k, own in enumerate(past.saved["slices"])} if past else {})
        if directory is None:
            return
        self._fixed = {
            "labels": labels(configs),
            "configs": [to_toml(config) for config in configs],
            "origin": provenance.origin(),
            "inexact": inexact,
            "restart_count": past.restart_count if past else 0,
        }
        where = directory / "provenance.json"
        earlier = rows_until(directory, past.saved) if past else None
        if past is None:
            write_settings(directory, configs)
            self._stopwatch = provenance.write(where, [config.seed for config in configs], inexact_resume=inexact)
        else:
            entry = {"at_step": steps_of(past.saved), "differences": list(past.differences)}
            self._stopwatch = provenance.go_on(where, entry, past.saved["times"])
        text = (directory / "config.toml").read_text(encoding="utf-8")
        flat = [hparams(config) for config in configs]
        self._recorder = Recorder(directory, labels(configs), text, flat, again=past is not None)
        self._recorder.texts("optimizer", [optimizer_toml(config) for config in configs])
        if earlier is not None:
            self._recorder.replay(earlier)

    def rows(self, number: int, rows: Mapping[int, tuple[float, Mapping[str, float]]]) -> None:
        """Log rows of some members of a slice: (environment steps, number by tag) by member."""
        if self._recorder is None or not rows:
            return
        self._look()
        nothing: tuple[float, Mapping[str, float]] = (0.0, {})
        members = [rows.get(member, nothing) for member in range(len(self.configs))]
        tags = {tag: None for _, numbers in members for tag in numbers}
        values = {tag: [numbers.get(tag, math.nan) for _, numbers in members] for tag in tags}
        self._counts[number] += self._recorder.log([int(steps) for steps, _ in members], values)

    def count(self, number: int) -> int:
        """How many rows of ``metrics.parquet`` are of this slice."""
        return self._counts[number]

    def spend(self, seconds: float) -> None:
        """Count CPU time of a process that is no child of this one."""
        if self._stopwatch is not None:
            self._stopwatch = self._stopwatch._replace(cpu=self._stopwatch.cpu - seconds)

    def checkpoint(self, slices: Sequence[Mapping[str, Any]]) -> None:
        """Write down the state of each slice of the members, and the best members so far.

        Args:
            slices: ``"parts"`` of a population, the last one in training, the state of their ``"observer"``, and how
                many ``"rows"`` were logged of them before.
        """
        if self.directory is None or self._recorder is None or self._stopwatch is None:
            return
        self._look()
        self._recorder.flush()
        saved = self._fixed | {"times": self._stopwatch.times, "slices": list(slices)}
        place, keep = self.directory / "checkpoints", self.configs[0].keep_checkpoints
        checkpoint.save_step(place, steps_of(saved), saved, keep=keep)
        best = [own["observer"]["evaluator"]["best"] for own in slices]
        if sum(len(own["members"]) for own in best) == len(self.configs):
            parts = [{"parts": [own]} for own in best]
            checkpoint.save(place / checkpoint.BEST, {"labels": self._fixed["labels"], "slices": parts})

    def result(self, table: Sequence[Mapping[str, Any]], summary: Mapping[str, float], wall_seconds: float) -> None:
        """The final evaluation: TensorBoard's HParams and, after all else is written, ``result.json``."""
        if self.directory is None or self._recorder is None:
            return
        self._look()
        text = json.dumps({"members": list(table), "summary": dict(summary), "wall_seconds": wall_seconds}, indent=2)
        evaluated = ("return_mean", "return_std", "length_mean")
        self._recorder.hparams([{f"eval/{name}": row[name] for name in evaluated} for row in table])
        self.close()
        write_text(self.directory / "result.json", text)

    def close(self) -> None:
        """Write what is left, and how long it took."""
        there = self.directory is not None and self.directory.is_dir()
        try:
            if self._recorder is not None:
                self._recorder.close(write=there)
        finally:
            if self._stopwatch is not None and there:
                provenance.finish(self._stopwatch)

    def _look(self) -> None:
        """What has been removed under way is not built anew, with holes."""
        if self.directory is not None and not (self.directory / "config.toml").is_file():
            raise WriteError(f"cannot write {self.directory}: it has been removed")


def write_settings(directory: Path, configs: Sequence[TrainConfig]) -> None:
    """``config.toml``, before anything else, and the effective settings of the optimizers."""
    first, effective = configs[0], [optimizer_toml(config) for config in configs]
    same_settings = all(config.model_copy(update={"seed": first.seed}) == first for config in configs)
    seeds = tuple(config.seed for config in configs)
    text = to_toml(first.model_copy(update={"seeds": seeds}) if same_settings and len(seeds) > 1 else first)
    write_text(directory / "config.toml", text)
    if same_settings:
        write_text(directory / "optimizer.toml", effective[0])
        return
    for name, config, settings in zip(labels(configs), configs, effective, strict=True):
        write_text(directory / name / "config.toml", to_toml(config))
        write_text(directory / name / "optimizer.toml", settings)


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
    return {
        key: value if isinstance(value, bool | int | float) else str(value)
        for key, value in flat(to_table(config)).items()
    }


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables as one, by dotted key."""
    pairs: dict[str, Any] = {}
    for key, value in table.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return pairs
