"""Full and read-only disks, removed directories, clocks that are set back: one line, and what is kept."""

import json
import shutil
import time
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers.disks import remount, small_disk
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.logging import read_metrics
from pgkit.training import train as train_module
from pgkit.training.evaluate_run import evaluate_run

WORDS = ["cartpole-actor-critic", "steps=3000", "seeds=2", "envs_per_member=2", "policy.hidden=[8]", "log_interval=50"]
WORDS += [
    "evaluation.points=2",
    "evaluation.episodes=2",
    "evaluation.final_episodes=3",
    "checkpoint_points=10",
    "--quiet",
    "--workers=1",  # so that steps are reported after each update
]


def pgkit_words(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line."""
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def one_line(errors: str, start: str, end: str) -> None:
    assert errors.startswith(f"error: {start}"), errors
    assert errors.endswith(f"{end}\n"), errors
    assert errors.count("\n") == 1, errors


def fill(disk: Path) -> None:
    """Fill the disk completely."""
    with open(disk / "ballast", "wb", buffering=0) as file, suppress(OSError):  # the disk is full
        while True:
            file.write(bytes(4096))


@pytest.fixture
def when(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``when(steps, action)``: call the action once, in the first training that has done so many steps."""

    def arrange(steps: float, action: Any) -> None:
        waiting = [action]

        def on_steps(done: float) -> None:
            if done >= steps and waiting:
                waiting.pop()()

        monkeypatch.setattr(train_module, "train", partial(train_module.train, on_steps=on_steps))

    return arrange


def test_full_from_the_beginning(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8k"):
        code, _, errors = pgkit_words("train", *WORDS, "--out", str(tmp_path / "disk" / "run"))
        assert code == 2
        one_line(errors, f"cannot write {tmp_path}/disk/run/", "No space left on device")


def test_full_during_training(tmp_path: Path, when: Any) -> None:
    run = tmp_path / "disk" / "run"
    with small_disk(tmp_path / "disk", "20m"):
        when(3000, lambda: fill(tmp_path / "disk"))
        code, _, errors = pgkit_words("train", *WORDS, "--out", str(run))
        assert code == 2
        one_line(errors, f"cannot write {run}/", "No space left on device")
        assert len(evaluate_run(run, episodes=2).table) == 2
        (tmp_path / "disk" / "ballast").unlink()
        code, output, errors = pgkit_words("resume", str(run), "--quiet")
        assert (code, errors) == (0, "")
        assert "Final evaluation" in output


def test_full_at_the_end_still_shows_the_results(tmp_path: Path, when: Any) -> None:
    run = tmp_path / "disk" / "run"
    with small_disk(tmp_path / "disk", "20m"):
        when(6000, lambda: fill(tmp_path / "disk"))
        code, output, errors = pgkit_words(
            "train", *WORDS, "checkpoint_points=0", "log_interval=100_000", "--out", str(run)
        )
        assert code == 2
        one_line(errors, f"cannot write {run}/", "No space left on device")
        (tmp_path / "disk" / "ballast").unlink()
        assert pgkit_words("resume", str(run), "--quiet")[0] == 0
        rows = json.loads((run / "result.json").read_text())["members"]
    for row in rows:
        assert f"{row['return_mean']:,.1f}" in output
    assert "Final evaluation" in output


def test_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "20m"):
        remount(tmp_path / "disk", "ro")
        code, _, errors = pgkit_words("train", *WORDS, "--out", str(tmp_path / "disk" / "run"))
        assert code == 2
        one_line(errors, f"cannot create {tmp_path}/disk/run", "is not writable")
        assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize("steps", [1000, 6000])
def test_removed_during_training(tmp_path: Path, when: Any, steps: int) -> None:
    run = tmp_path / "run"
    when(steps, lambda: shutil.rmtree(run))
    code, output, errors = pgkit_words("train", *WORDS, "--out", str(run))
    assert code == 2
    one_line(errors, f"cannot write {run}", "it has been removed")
    assert not run.exists()
    assert ("Final evaluation" in output) == (steps == 6000)


def test_a_clock_that_is_set_back_makes_no_negative_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    calls = count()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(calls))
    assert pgkit_words("train", *WORDS, "--out", str(tmp_path / "run"))[0] == 0
    metrics = read_metrics(tmp_path / "run" / "metrics.parquet")
    assert metrics["wall_time"].is_monotonic_increasing
    assert (metrics[metrics["tag"] == "time/env_steps_per_second"]["value"] > 0).all()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["wall_seconds"] > 0
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["wall_seconds"] > 0
    assert provenance["cpu_seconds"] > 0
