"""The script that replays screening on stored full grids."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from helpers.small_comparison import TOML, write_toml

from pgkit.compare.analysis.pool import Stored
from pgkit.compare.plan.plan import Run, read_plan
from pgkit.compare.selection.stages import stages
from pgkit.errors import PgkitError

SCRIPT = Path(__file__).parents[2] / "scripts" / "replay_screening.py"
LEVEL = {1e-4: 0.1, 1e-3: 0.3, 1e-2: 0.8, 1e-1: 0.4, 1.0: 0.2}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replay_screening", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(place: Path, late: dict[float, float], *words: str) -> Stored:
    """A full grid on four seeds whose curves are at their level, and at another one after half of the steps."""
    text = TOML.replace("[1e-3, 1e-2, 1e-1]", str(list(LEVEL))).replace("tuning_seeds = 2", "tuning_seeds = 4")
    plan = read_plan(write_toml(place, text), ['agents=["reinforce"]', 'optimizers=["sgd"]', *words])
    baselines = pd.DataFrame({"environment": ["CartPole-v1"], "policy": ["random"], "return_mean": [0.0]})
    (stage,) = stages(plan, {}, pd.DataFrame(columns=[*Run._fields]))
    rows = []
    for one in stage.todo:
        levels = np.array([LEVEL[one.lr]] * 3 + [late.get(one.lr, LEVEL[one.lr])] * 2) + 0.001 * one.seed
        rest = {"at": [0.0] * 5, "returns": 22.2 + 477.8 * levels, "final": [1.0] * 3, "greedy": [1.0] * 3}
        rows.append({**one._asdict(), "diverged": False, "env_steps": 600, **rest})
    return Stored("there", plan, baselines, pd.DataFrame(rows), {})


def test_the_same_rate_for_part_of_the_steps(script: ModuleType, tmp_path: Path) -> None:
    first, second = script.replay(stored(tmp_path, {}), 2)
    assert first.cell == ("CartPole-v1", "reinforce", "sgd")
    assert (first.full, first.screened, first.lost, first.equivalent) == (1e-2, 1e-2, 0.0, True)
    assert first.share == pytest.approx((3 * 2 + 2 * 0.25) / (5 * 2))
    text = script.report([first, second])
    assert "equivalent in 2 of 2 cases: 100.0%, 95 % 34.2% to 100.0% (Wilson)" in text


def test_a_rate_that_rises_after_it_was_dropped_is_missed_and_counted(script: ModuleType, tmp_path: Path) -> None:
    (missed,) = script.replay(stored(tmp_path, {1.0: 3.0}))
    assert (missed.full, missed.screened, missed.equivalent) == (1.0, 1e-2, False)
    assert missed.lost == pytest.approx((3 * 0.2 + 2 * 3.0) / 5 - 0.8)
    assert "not equivalent: CartPole-v1, reinforce, sgd: 0.01 in place of 1" in script.report([missed])


def test_what_cannot_be_replayed_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(PgkitError, match="there is no comparison of full grids"):
        list(script.replay(stored(tmp_path, {}, "screen=early")))
    with pytest.raises(PgkitError, match="--seeds must be 1 to 4 in there, got 5"):
        list(script.replay(stored(tmp_path, {}), 5))
