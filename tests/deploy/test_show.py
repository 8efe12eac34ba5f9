"""Policies shown in Gymnasium's environments: videos that play, windows, and the episodes of an evaluation."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from helpers.command_line import pgkit as command
from helpers.recorded_envs import Recorded

import pgkit
from pgkit.config.load import parse_config
from pgkit.deploy import show
from pgkit.envs import registry

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="comes with the extra video")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members in CartPole, which barely learnt, so that episodes are short."""
    directory = tmp_path_factory.mktemp("runs") / "cartpole"
    config = pgkit.load_config("cartpole-actor-critic", {"steps": 2000, "seeds": 2, "evaluation.points": 0})
    pgkit.train(config, directory)
    return directory


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # moviepy leaves a file of its encoder open


@pytest.fixture(autouse=True)
def fast_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No window, nobody to wait for, and an empty working directory."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(CartPoleEnv.metadata, "render_fps", 1000)
    monkeypatch.chdir(tmp_path)
    yield
    gc.collect()  # while its warnings are ignored


def frames(path: Path) -> np.ndarray:
    """All frames of a video, ``(F, height, width, 3)``."""
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_videos_play_and_their_frames_differ(run: Path, tmp_path: Path) -> None:
    shown = show.record_video(pgkit.load(run, member=1), tmp_path / "new" / "a.mp4", episodes=2)
    assert [episode.video for episode in shown] == [tmp_path / "new" / f"a-{k}.mp4" for k in (1, 2)]
    for episode in shown:
        assert episode.video is not None
        pictures = frames(episode.video)
        assert abs(len(pictures) - (episode.length + 1)) <= 1  # the first observation, too
        assert pictures.shape[1:] == (400, 600, 3)
        assert pictures[0].std() > 5  # neither black nor white
        assert np.abs(pictures[0].astype(int) - pictures[-1].astype(int)).max() > 100
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a-1.mp4", "a-2.mp4"]


def test_the_episodes_are_those_of_an_evaluation_in_gymnasium(run: Path) -> None:
    shown = show.show_in_window(pgkit.load(run, member=1), episodes=3, deterministic=True, seed=4)
    evaluated = pgkit.evaluate_run(run, 3, deterministic=True, seed=4, backend="gymnasium", member="seed-1")
    (row,) = evaluated.table
    assert row["seed"] == 1
    assert np.mean([episode.total for episode in shown]) == row["return_mean"]
    assert np.mean([episode.length for episode in shown]) == row["length_mean"]
    assert len({episode.length for episode in shown}) > 1


def test_the_command_line_records_and_shows(run: Path, tmp_path: Path) -> None:
    done = command(f"evaluate {run} --member 0 --video b.mp4")
    assert done.exit_code == 0, done.stderr
    assert "CartPole-v1, sampled actions" in done.stdout
    assert f"written to {tmp_path / 'b.mp4'}" in done.stdout
    assert len(frames(tmp_path / "b.mp4")) > 1
    shown = command(f"evaluate {run} --member seed-1 --render --episodes 2 --deterministic --best")
    assert shown.exit_code == 2  # without evaluations there is no best one
    shown = command(f"evaluate {run} --member seed-1 --render --episodes 2 --deterministic")
    assert shown.exit_code == 0, shown.stderr
    assert "most likely actions" in shown.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--video a.mp4", "has 2 members, and member names none of them: seed-0, seed-1"),
        ("--member 0 --video a.gif", "the path of a video must end in .mp4, got a.gif"),
        ("--member 0 --video a.mp4 --render", "--video and --render exclude each other"),
        ("--member 0 --render --backend pgkit", "--backend pgkit has no effect"),
        ("--member 9", "unknown member '9' (allowed: seed-0, seed-1, or a seed)"),
    ],
)
def test_a_mistake_is_one_line(run: Path, words: str, message: str) -> None:
    done = command(f"evaluate {run} {words}")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_missing_moviepy_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moviepy", None)
    done = command(f"evaluate {run} --member 0 --video a.mp4")
    assert done.exit_code == 2
    assert done.stderr == "error: recording a video needs the package moviepy: pip install 'pgkit-rl[video]'\n"


def tiny(env: dict[str, Any], directory: Path) -> Path:
    table = {"name": "tiny", "steps": 100, "env": env, "agent": "actor-critic", "optimizer": "sgd"}
    pgkit.train(parse_config(table | {"evaluation": {"points": 0, "final_episodes": 1}}), directory)
    return directory


def test_an_environment_that_draws_nothing_is_one_line(tmp_path: Path) -> None:
    run = tiny({"id": "helpers.recorded_envs:Recorded-v0"}, tmp_path / "run")
    Recorded.log.clear()
    done = command(f"evaluate {run} --video a.mp4")
    assert done.exit_code == 2
    assert "Recorded-v0" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_environment_of_pgkits_own_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    cartpole = registry.find_pgkit_env("CartPole-v1")
    assert cartpole is not None
    registry.register("OnlyHere-v0", cartpole.build)
    run = tiny({"id": "OnlyHere-v0"}, tmp_path / "run")
    done = command(f"evaluate {run} --video a.mp4")
    assert done.exit_code == 2
    assert "cannot be shown: Gymnasium has no environment of that name" in done.stderr
