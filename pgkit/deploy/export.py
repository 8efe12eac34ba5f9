"""A folder with one trained policy that others can load: weights, configuration, provenance, model card, curve."""

import json
from pathlib import Path
from typing import Any

from pgkit.config.load import to_toml
from pgkit.deploy.card import Measured, curve_png, model_card
from pgkit.deploy.load import POLICY, load
from pgkit.deploy.policy import TrainedPolicy
from pgkit.deploy.show import check_video, record_video
from pgkit.errors import PgkitError
from pgkit.logging import read_metrics
from pgkit.runs.directory import as_directory, find_run
from pgkit.runs.reader import find_member, saved_members
from pgkit.runs.writer import labels
from pgkit.system.files import as_write_error, read_json, replace_entries
from pgkit.training.evaluate_run import evaluate_run

EPISODES = 100
"""Episodes of each measurement."""

FRESH = 1
"""Seed of their episodes: 0 would repeat those of the run's final evaluation, which may have chosen the member."""

PRIVATE = ("command_line", "resumed")
"""What provenance says that stays at home: paths of the machine may stand in it."""


def export(
    run: str | Path,
    directory: str | Path,
    member: str | int | None = None,
    best: bool = False,
    video: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write one trained policy to a folder that :func:`pgkit.load` reads, also on another machine.

    >>> from pgkit.deploy.export import export
    >>> folder = export("runs/cartpole-ppo", "shared/cartpole", member=3)  # doctest: +SKIP

    Args:
        run: run directory, or its name below ``runs/``.
        directory: the folder; it must be empty or missing.
        member: which of several: a seed, or a label such as ``"seed-3"``. A run with one member needs none.
        best: take the member as it was at its best evaluation during training, instead of the latest checkpoint.
        video: record an episode to ``replay.mp4`` (extra ``video``).
        overwrite: replace an older export.

    Returns:
        The folder. It holds ``policy.safetensors``, ``config.toml``, ``provenance.json``, ``curve.png`` and
        ``README.md``, a model card of the Hugging Face Hub.

    Raises:
        PgkitError: there is no such run or member, the folder holds something else, or it cannot be written.
    """
    target = as_directory(directory)
    source = as_directory(find_run(str(as_directory(run) if isinstance(run, Path) else run)))
    _check_target(target, overwrite)
    if video:
        check_video(target / "replay.mp4")
    policy = load(source, member, best)
    configs = saved_members(source, best)[0]
    names = labels(configs)
    index = find_member(source, names, [each.seed for each in configs], member)
    measured = [_measure(source, names[index], best, deterministic) for deterministic in (False, True)]
    curve = curve_png(read_metrics(source / "metrics.parquet"), index, names[index])
    card = model_card(policy.config.name, policy.config, measured, _facts(source, policy, best, len(names)), video)
    files = {"config.toml": to_toml(policy.config).encode(), "curve.png": curve, "README.md": card.encode()}
    files["provenance.json"] = _provenance(source)
    with replace_entries(target) as new:
        policy.save(new / POLICY, {"environment": policy.config.env.id, "seed": str(policy.config.seed)})
        with as_write_error(target):
            for name, content in files.items():
                (new / name).write_bytes(content)
        if video:
            record_video(policy, new / "replay.mp4", deterministic=True, seed=FRESH)
    return target


def _check_target(target: Path, overwrite: bool) -> None:
    """Check that the folder is empty, missing, or an older export that is to be replaced.

    Raises:
        PgkitError: it is not.
    """
    if target.exists() and not target.is_dir():
        raise PgkitError(f"{target} is a file")
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / POLICY).is_file():
        raise PgkitError(f"{target} is not empty, and holds no exported policy (no {POLICY}): choose another folder")
    if not overwrite:
        raise PgkitError(f"{target} already holds an exported policy: --overwrite replaces it")


def _measure(source: Path, member: str, best: bool, deterministic: bool) -> Measured:
    result = evaluate_run(source, EPISODES, deterministic, FRESH, best=best, member=member)
    row = result.table[0]
    actions = "most likely" if deterministic else "sampled"
    return Measured(actions, row["return_mean"], row["return_std"], EPISODES)


def _facts(source: Path, policy: TrainedPolicy, best: bool, members: int) -> dict[str, str]:
    """Return what the model card says of the training."""
    config = policy.config
    one_of = f", one of {members} of its run" if members > 1 else ""
    versions = read_json(source / "provenance.json")["versions"]
    return {
        "environment": f"{config.env.id}, {config.envs_per_member} at a time",
        "steps": f"{config.steps:,}",
        "seed": f"{config.seed}{one_of}",
        "checkpoint": "at its best evaluation while training" if best else "the last one",
        "optimizer": f"{config.optimizer['name']}, lr {config.optimizer.get('lr', 'default')}",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("pgkit-rl", "torch", "gymnasium")),
    }


def _provenance(source: Path) -> bytes:
    record: dict[str, Any] = read_json(source / "provenance.json")
    public = {key: value for key, value in record.items() if key not in PRIVATE}
    return (json.dumps(public, indent=2) + "\n").encode()
