"""Points of a run: from its checkpoints, or from the same training once more."""

from pathlib import Path

import pytest
import torch

import pgkit
from pgkit.diagnose.points import initial_point, open_run
from pgkit.errors import PgkitError
from pgkit.runs import checkpoint

pytestmark = pytest.mark.slow

WORDS = ["steps=20_000", "seeds=2", "evaluation.points=0", "evaluation.final_episodes=5", "log_interval=20_000"]


def trained(place: Path, *more: str) -> Path:
    pgkit.train(pgkit.load_config("cartpole-actor-critic", [*WORDS, *more]), place)
    return place


def test_a_run_with_few_checkpoints_is_trained_again_to_the_same_parameters(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    before = sorted(path.name for path in run.rglob("*"))
    with open_run(run, (0.0, 0.1, 0.5, 1.0)) as points:
        assert points.trained_again
        assert points.missing is None
        start, early, _, end = points.at((0.0, 0.1, 0.5, 1.0))
    assert [point.label for point in end] == ["seed-0", "seed-1"]
    assert [point.env_steps for point in start] == [0, 0]
    assert abs(early[0].share - 0.1) < 0.02
    final = checkpoint.load_latest(run / "checkpoints")["workers"][0]["parts"][0]["params"]
    for row, point in enumerate(end):
        assert all(torch.equal(leaf[0], final[name][row]) for name, leaf in point.params.items())
        assert not torch.equal(point.params["actor.0.weight"], early[row].params["actor.0.weight"])
    assert sorted(path.name for path in run.rglob("*")) == before


def test_kept_checkpoints_are_enough(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "checkpoint_points=100", "keep_checkpoints=101")
    with open_run(run) as points:
        assert not points.trained_again


def test_a_run_whose_training_would_differ_is_looked_at_where_its_checkpoints_are(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    config = run / "config.toml"
    text = config.read_text()
    assert "0.003" in text
    config.write_text(text.replace("0.003", "0.004"))
    with open_run(run) as points:
        assert not points.trained_again
        assert points.missing is not None
        assert "other parameters" in points.missing
        assert len(points.at((0.5, 1.0))) == 2


def test_the_initial_point_is_what_training_begins_with() -> None:
    config = pgkit.load_config("cartpole-actor-critic", ["seed=3"])
    point = initial_point(config, "seed-3")
    assert point.env_steps == 0
    assert point.share == 0
    assert point.params["actor.0.weight"].shape[0] == 1


@pytest.mark.parametrize(
    ("broken", "said"),
    [("nothing", "it has no config.toml"), ("unfinished", "is not finished: pgkit resume")],
)
def test_what_is_no_finished_run_is_refused_in_one_line(tmp_path: Path, broken: str, said: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if broken == "unfinished":
        trained(tmp_path / "other")
        (run / "config.toml").write_text((tmp_path / "other" / "config.toml").read_text())
    with pytest.raises(PgkitError, match=said), open_run(run):
        pass
    assert not (run / "diagnosis").exists()
