"""A run that is over says what can be done with it."""

from pathlib import Path

import pytest
from helpers.resumable_runs import CARTPOLE, config

import pgkit
from pgkit.errors import PgkitError
from pgkit.training.result import TrainResult


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, TrainResult]:
    """The directory of a run of 300 steps, and its result."""
    return tmp_path / "run", pgkit.train(config(steps=300, env=CARTPOLE), tmp_path / "run")


def raise_steps(place: Path) -> None:
    """Ask for twice the steps in the configuration."""
    file = place / "config.toml"
    text = file.read_text()
    assert "\nsteps = 300\n" in text
    file.write_text(text.replace("\nsteps = 300\n", "\nsteps = 600\n"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("result", ["result.json kept", "result.json gone"])
def test_raised_steps_are_refused_and_nothing_is_written(
    result: str, force: bool, finished: tuple[Path, TrainResult]
) -> None:
    place, _ = finished
    raise_steps(place)
    if result == "result.json gone":
        (place / "result.json").unlink()
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    with pytest.raises(PgkitError, match="has trained its 300 steps, and a run that is over cannot be trained on"):
        pgkit.resume(place, force=force)
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("force", [False, True])
def test_a_repeated_evaluation_says_that_nothing_was_trained(
    force: bool, finished: tuple[Path, TrainResult], capsys: pytest.CaptureFixture[str]
) -> None:
    place, whole = finished
    (place / "result.json").unlink()
    again = pgkit.resume(place, force=force)
    assert again is not None
    assert again.table == whole.table
    assert capsys.readouterr().err == "note: all steps are trained already: only the final evaluation is repeated\n"


def test_a_finished_run_stays_finished(finished: tuple[Path, TrainResult]) -> None:
    assert pgkit.resume(finished[0]) is None
