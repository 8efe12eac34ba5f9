"""Write a run directory while the run trains.

``config.toml`` is the resolved configuration with all seeds, ``optimizer.toml`` the effective settings of the optimizer
for each group of parameters. Members that differ in more than their seed have both files each, in ``<label>/``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from pgkit import optim
from pgkit.config.load import flatten, to_table, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.logging import Logger
from pgkit.runs import checkpoint, own_code, provenance
from pgkit.runs.reader import rows_until, steps_of
from pgkit.system.files import WriteError, write_text


@dataclass(frozen=True)
class ResumeState:
    """What a resumed run starts from.

    Attributes:
        saved: the content of its checkpoint.
        restart_count: how often its environments have been restarted because their state could not be restored.
        differences: why the run does not continue exactly, one line each; empty if it does.
    """

    saved: Mapping[str, Any]
    restart_count: int = 0
    differences: Sequence[str] = ()


class RunWriter:
    """Writes configuration, provenance, log, checkpoints and results; without a directory nothing is written.

    Args:
        directory: of the run, locked by this process, or None.
        configs: one for each member.
        inexact: why the run cannot be resumed exactly; None if it can.
        resume_state: of a resumed run.
        init_source: of a run that begins with another's parameters, for ``provenance.json``.

    Attributes:
        logger: writes log rows; None without a directory.

    Raises:
        WriteError: the system refuses to write; so do all methods.
    """

    def __init__(
        self,
        directory: Path | None,
        configs: Sequence[TrainConfig],
        inexact: str | None,
        resume_state: ResumeState | None,
        init_source: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.configs = configs
        self.logger: Logger | None = None
        self._stopwatch: provenance.Stopwatch | None = None
        if directory is None:
            return
        self._constant = {
            "labels": labels(configs),
            "configs": [to_toml(config) for config in configs],
            "origin": provenance.origin() | own_code.describe(configs),
            "inexact": inexact,
            "restart_count": resume_state.restart_count if resume_state else 0,
        }
        earlier_rows = rows_until(directory, resume_state.saved) if resume_state else None
        self._stopwatch = self._start_provenance(directory, resume_state, inexact, init_source)
        text = (directory / "config.toml").read_text(encoding="utf-8")
        member_hparams = [hparams(config) for config in configs]
        self.logger = Logger(
            directory,
            labels(configs),
            text,
            member_hparams,
            resumed=resume_state is not None,
            tensorboard="tensorboard" in configs[0].logger,
        )
        self.logger.texts("optimizer", [optimizer_toml(config) for config in configs])
        if earlier_rows is not None:
            self.logger.replay(earlier_rows)
            self.logger.flush()  # other loggers read there what had been logged at the checkpoint

    def _start_provenance(
        self,
        directory: Path,
        resume_state: ResumeState | None,
        inexact: str | None,
        init_source: Mapping[str, Any] | None,
    ) -> provenance.Stopwatch:
        """Write ``provenance.json`` and, for a new run, its settings."""
        path = directory / "provenance.json"
        if resume_state is None:
            write_settings(directory, self.configs)
            more = {} if init_source is None else {"init": dict(init_source)}
            return provenance.write(path, [config.seed for config in self.configs], inexact_resume=inexact, **more)
        entry = {"at_step": steps_of(resume_state.saved), "differences": list(resume_state.differences)}
        return provenance.append_resumed(path, entry, resume_state.saved["times"])

    def add_cpu_seconds(self, seconds: float) -> None:
        """Count CPU time of a process that is no child of this one."""
        if self._stopwatch is not None:
            self._stopwatch = self._stopwatch._replace(cpu=self._stopwatch.cpu - seconds)

    def save_checkpoint(self, workers: Sequence[Mapping[str, Any]]) -> None:
        """Write the state of each worker, and ``best.pt`` once every member has been evaluated.

        Args:
            workers: for each worker ``"parts"`` (states of its populations, the one in training last), ``"monitor"``
                (the state of its monitor) and ``"rows"`` (how many numbers were logged for it so far).
        """
        if self.directory is None or self.logger is None or self._stopwatch is None:
            return
        self.check_directory()
        self.logger.flush()
        saved = self._constant | {"times": self._stopwatch.times, "workers": list(workers)}
        place = self.directory / "checkpoints"
        checkpoint.save_step(place, steps_of(saved), saved, keep=self.configs[0].keep_checkpoints)
        best = [worker["monitor"]["evaluator"]["best"] for worker in workers]
        if sum(len(snapshots["members"]) for snapshots in best) == len(self.configs):
            parts = [{"parts": [snapshots]} for snapshots in best]
            checkpoint.save(place / checkpoint.BEST, {"labels": self._constant["labels"], "workers": parts})

    def save_result(
        self, table: Sequence[Mapping[str, Any]], summary: Mapping[str, float], wall_seconds: float
    ) -> None:
        """Write the final evaluation: TensorBoard's HParams and, after everything else, ``result.json``."""
        if self.directory is None or self.logger is None:
            return
        self.check_directory()
        text = json.dumps({"members": list(table), "summary": dict(summary), "wall_seconds": wall_seconds}, indent=2)
        evaluated = ("return_mean", "return_std", "length_mean")
        self.logger.hparams([{f"eval/{name}": row[name] for name in evaluated} for row in table])
        self.close()
        write_text(self.directory / "result.json", text)

    def close(self) -> None:
        """Write the rest of the log, and the times."""
        exists = self.directory is not None and self.directory.is_dir()
        try:
            if self.logger is not None:
                self.logger.close(write=exists)
        finally:
            if self._stopwatch is not None and exists:
                provenance.finish(self._stopwatch)

    def check_directory(self) -> None:
        """Check that the directory is still there: if a user removed it, it must not come back with half its files.

        Raises:
            WriteError: it has been removed.
        """
        if self.directory is not None and not (self.directory / "config.toml").is_file():
            raise WriteError(f"cannot write {self.directory}: it has been removed")


def write_settings(directory: Path, configs: Sequence[TrainConfig]) -> None:
    """Write ``config.toml``, before anything else, and the effective settings of the optimizers."""
    first = configs[0]
    effective = [optimizer_toml(config) for config in configs]
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
    """A name for each member: ``seed-<seed>``, with a number in front if seeds repeat."""
    seeds = [config.seed for config in configs]
    if len(set(seeds)) == len(seeds):
        return [f"seed-{seed}" for seed in seeds]
    return [f"{index:04d}-seed-{seed}" for index, seed in enumerate(seeds)]


def optimizer_toml(config: TrainConfig) -> str:
    """The effective settings of each group of parameters as TOML: defaults filled in, disabled options left out."""
    return tomli_w.dumps(_without_none(optim.describe(config.optimizer)))


def _without_none(tree: Any) -> Any:
    """Tables without entries that are None, which TOML cannot express; in a list None becomes "none"."""
    if isinstance(tree, Mapping):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list | tuple):
        return [_without_none("none" if value is None else value) for value in tree]
    return tree


def hparams(config: TrainConfig) -> dict[str, bool | float | str]:
    """The settings of a run, flat by dotted key, for TensorBoard's HParams tab."""
    return {
        key: value if isinstance(value, bool | int | float) else str(value)
        for key, value in flatten(to_table(config)).items()
    }
