"""Train a run beyond the steps that it was given: what changes in its configurations, and who has steps left.

A member that has used its steps leaves training with its environments as they stand. With more steps it comes back, and
has the same bits as if it had been given all of them at the start, unless its optimizer follows a schedule: that goes
on as one over all steps, from the share that is done by then.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pgkit import optim
from pgkit.config.load import parse_config, to_table
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.runs import checkpoint
from pgkit.runs.reader import read_settings, steps_of
from pgkit.training.population import has_steps_left

SPACED = ("steps", "log_interval", "evaluation.points", "checkpoint_points")
"""Settings that change with the steps, so that log rows, evaluations and checkpoints come as often as before."""


def check_not_raised(place: Path, saved: Mapping[str, Any], configs: Sequence[TrainConfig]) -> None:
    """Refuse a number of steps that was raised in ``config.toml`` alone.

    Raises:
        PgkitError: it was.
    """
    steps = configs[0].steps
    before = trained_steps(saved)
    if steps > before:
        raise PgkitError(
            f"{place} was given {before:,} steps, and its config.toml now says {steps:,}: "
            f"pgkit resume {place} --steps {steps} trains on"
        )


def raise_steps(place: Path, saved: Mapping[str, Any], configs: Sequence[TrainConfig], steps: Any) -> list[TrainConfig]:
    """The configurations of a run with more steps.

    Args:
        place: directory of the run.
        saved: the content of its checkpoint.
        configs: one for each member.
        steps: of each member, all in all.

    Raises:
        PgkitError: these are not more, or all members have failed.
    """
    raised = [_raise(*pair, steps) for pair in zip(_saved_configs(saved), configs, strict=True)]
    if not any_steps_left(saved, raised[0].steps):
        raise PgkitError(f"{place}: all members have failed, so none can be trained on")
    return raised


def any_steps_left(saved: Mapping[str, Any], steps: int) -> bool:
    """Whether any member of a checkpoint would train if each had so many steps."""
    return any(has_steps_left(part, steps) for worker in saved["workers"] for part in worker["parts"])


def trained_steps(saved: Mapping[str, Any]) -> int:
    """The steps that each member had been given when a checkpoint was written."""
    steps: int = tomllib.loads(saved["configs"][0])["steps"]
    return steps


def stretched_schedules(saved: Mapping[str, Any], configs: Sequence[TrainConfig]) -> list[str]:
    """Why a run with more steps is not what it would be had it been given them at the start; empty if it is just that.

    Args:
        saved: the content of its checkpoint.
        configs: with the new steps, one for each member.
    """
    if "progress" not in optim.from_config([config.optimizer for config in configs]).requires:
        return []
    before, after = trained_steps(saved), configs[0].steps
    return [f"the schedule of the optimizer ran over {before:,} steps, and goes on as one over {after:,}"]


def describe_more_steps(directory: Path, steps: Any) -> dict[str, str]:
    """What it means to give each member of a run so many steps, as lines for people.

    Raises:
        PgkitError: there is no such run, or these are not more steps.
    """
    saved = checkpoint.load_resumable(directory)[1]
    config = raise_steps(directory, saved, read_settings(directory, saved["labels"]), steps)[0]
    before, done = trained_steps(saved), steps_of(saved)
    lines = {"run": str(directory), "steps": f"{before:,} -> {config.steps:,} per seed, {done:,} of them are trained"}
    shares = f"it stood at {min(1.0, done / before):.0%} of its way, and goes on at {done / config.steps:.0%}"
    for label, group in optim.describe(config.optimizer).items():
        for key, schedule in group["schedule"].items():
            over_steps = "warmup" in schedule  # all but those that are constant or follow the KL divergence
            effect = f"over all {config.steps:,} steps: {shares}" if over_steps else "which no number of steps changes"
            lines[f"schedule of {label} {key}"] = f"{schedule['kind']}, {effect}"
    return lines


def _raise(before: TrainConfig, config: TrainConfig, steps: Any) -> TrainConfig:
    """A member's configuration with more steps, and with the spacing of everything else that it had before."""
    checked = parse_config({**to_table(config), "steps": steps}, "resume")
    if checked.steps <= before.steps:
        raise PgkitError(
            f"resume: steps must be more than the {before.steps:,} of the run so far, got {checked.steps:,}"
        )
    factor = checked.steps / before.steps
    points, checkpoints = before.evaluation.points, before.checkpoint_points
    return checked.model_copy(
        update={
            "log_interval": before.steps_per_log,
            "evaluation": checked.evaluation.model_copy(update={"points": round(points * factor)}),
            "checkpoint_points": round(checkpoints * factor),
        }
    )


def _saved_configs(saved: Mapping[str, Any]) -> list[TrainConfig]:
    """The configurations with which a checkpoint was written."""
    return [parse_config(tomllib.loads(text), "checkpoint") for text in saved["configs"]]
