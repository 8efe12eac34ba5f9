"""Results are plain data: they can be copied, pickled, and sent to another process."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.resumable_runs import CARTPOLE, population
from helpers.trees import assert_equal

import pgkit
from pgkit.envs.errors import env_error
from pgkit.rollouts.evaluate import Episodes
from pgkit.system.signals import Stopped
from pgkit.training.coordinator import ResultNotSaved
from pgkit.training.evaluator import Evaluation
from pgkit.training.result import TrainResult

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(scope="module", params=["actor-critic", "reinforce"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Four members with several optimizers, of which one diverges."""
    place = tmp_path_factory.mktemp("result") / "run"
    return pgkit.train(population(request.param, CARTPOLE, steps=600), place)


def plain_problems(node: Any, place: str) -> list[str]:
    """Where a tree holds something else than plain data, or a tensor that drags other memory along."""
    if isinstance(node, torch.Tensor):
        owns = node.untyped_storage().nbytes() <= 4 * max(node.nbytes, 1024)
        return (
            [] if owns and not node.requires_grad else [f"{place}: {node.shape} of {node.untyped_storage().nbytes()}"]
        )
    if isinstance(node, dict):
        return [text for key, value in node.items() for text in plain_problems(value, f"{place}[{key!r}]")]
    if type(node) in (list, tuple, Episodes, Evaluation):
        return [text for index, value in enumerate(node) for text in plain_problems(value, f"{place}[{index}]")]
    plain = node is None or type(node) in (bool, int, float, str) or isinstance(node, Path)
    return [] if plain else [f"{place}: {type(node).__name__}"]


def test_a_result_holds_plain_data_and_tensors(recorded: TrainResult) -> None:
    assert len(recorded.parts) > 1
    assert [part for part in recorded.parts if part["opt_state"]] == recorded.parts
    assert plain_problems(vars(recorded), "result") == []


@pytest.mark.parametrize("way", COPIES)
def test_a_result_can_be_copied(recorded: TrainResult, way: str) -> None:
    twin = COPIES[way](recorded)
    assert type(twin) is TrainResult
    assert_equal(vars(twin), vars(recorded))
    assert twin.summary == recorded.summary


def test_a_pickled_result_is_as_large_as_its_numbers(recorded: TrainResult) -> None:
    numbers: list[int] = []
    pgkit.tree.map_tree(lambda leaf: numbers.append(leaf.nbytes), [recorded.params, recorded.parts, recorded.obs_stats])
    assert sum(numbers) < len(pickle.dumps(recorded)) < 4 * sum(numbers) + 100_000


@pytest.mark.parametrize("way", COPIES)
def test_the_result_of_an_evaluation_can_be_copied(recorded: TrainResult, way: str) -> None:
    assert recorded.directory is not None
    result = pgkit.evaluate_run(recorded.directory, episodes=2)
    assert COPIES[way](result) == result


def unsaved(result: TrainResult) -> Exception:
    """The error of a full disk after training."""
    error = ResultNotSaved("cannot write runs/x: No space left on device")
    error.result = result
    return error


@pytest.mark.parametrize("way", COPIES)
def test_errors_that_carry_something_can_be_copied(recorded: TrainResult, way: str) -> None:
    errors: list[BaseException] = [
        unsaved(recorded),
        Stopped(15, "pgkit resume runs/x continues"),
        env_error("Maze-v0", "step()", ArithmeticError("broken"), seed=3),
    ]
    for error in errors:
        twin = COPIES[way](error)
        assert (type(twin), str(twin)) == (type(error), str(error))
        assert_equal(dict(vars(twin)) | {"result": None}, dict(vars(error)) | {"result": None})
        if isinstance(twin, ResultNotSaved):
            assert_equal(vars(twin.result), vars(recorded))


@pytest.mark.process
def test_another_process_reads_a_result(recorded: TrainResult, tmp_path: Path) -> None:
    file = tmp_path / "result.pickle"
    file.write_bytes(pickle.dumps(recorded))
    program = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).summary)"
    answer = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(recorded.summary)
