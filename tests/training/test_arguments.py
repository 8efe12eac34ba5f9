"""Wrong arguments of the public functions are one line that says what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import pgkit as command_line
from helpers.resumable_runs import config

import pgkit
from pgkit.errors import PgkitError

SHORT: dict[str, Any] = {"steps": 60, "evaluation": {"points": 0, "final_episodes": 1}}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pgkit.train("cartpole"), "config must be a TrainConfig .* or a list of them, got "),  # type: ignore[arg-type]
        (lambda: pgkit.train({"steps": 3}), "config must be a TrainConfig .* or a list of them, got "),  # type: ignore[arg-type]
        (lambda: pgkit.train([config(), 3]), "config must be a TrainConfig .* or a list of them, got "),  # type: ignore[list-item]
        (lambda: pgkit.train([]), "a population needs at least one member"),
        (lambda: pgkit.train(config(), 3), "directory must be a str or a pathlib.Path, got int"),  # type: ignore[arg-type]
        (lambda: pgkit.train(config(), workers=0), "workers must be a whole number of at least 1, got 0"),
        (lambda: pgkit.train(config(), workers=1.5), "workers must be a whole number of at least 1, got 1.5"),  # type: ignore[arg-type]
        (lambda: pgkit.train(config(), on_steps=3), "on_steps must be a function of the steps so far, or None, got 3"),  # type: ignore[arg-type]
        (
            lambda: pgkit.train(config(policy={"log_std": -0.5})),
            "policy.log_std = -0.5 has no effect: the actions of CartPole-v1 are not continuous",
        ),
        (lambda: pgkit.resume(3), "directory must be a str or a pathlib.Path, got int"),  # type: ignore[arg-type]
        (lambda: pgkit.evaluate_run(None), "directory must be a str or a pathlib.Path, got NoneType"),  # type: ignore[arg-type]
        (lambda: pgkit.evaluate_run("x", 0), "episodes must be a whole number of at least 1, got 0"),
        (lambda: pgkit.evaluate_run("x", backend="gym"), 'backend must be one of auto, gymnasium, .*, got "gym"'),
        (lambda: pgkit.evaluate_run("x", seed=-1), "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_a_wrong_argument_is_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(PgkitError, match=f"^{message}[^\n]*$"):
        call()


def test_seeds_are_expanded() -> None:
    together = pgkit.train(config(seeds=[4, 2], **SHORT))
    assert [row["seed"] for row in together.table] == [4, 2]
    separate = pgkit.train([config(seed=4, **SHORT), config(seeds=[2], **SHORT)])
    assert separate.table == together.table


def test_a_directory_may_be_a_text(tmp_path: Path) -> None:
    result = pgkit.train(config(**SHORT), str(tmp_path / "run"))
    assert result.directory == tmp_path / "run"
    assert pgkit.resume(str(tmp_path / "run")) is None
    assert pgkit.evaluate_run(str(tmp_path / "run"), 2).table[0]["seed"] == result.table[0]["seed"]


def test_the_old_name_of_an_option_names_the_new_one() -> None:
    outcome = command_line("resume somewhere --anyway")
    assert (outcome.exit_code, outcome.stderr) == (2, "error: --anyway is now called --force\n")
