"""The policies that pgkit ships: they reach what their files say."""

import gc
from pathlib import Path

import pytest
import safetensors.torch
from gymnasium.envs.classic_control import CartPoleEnv
from helpers.command_line import pgkit as command

import pgkit
from pgkit import pretrained
from pgkit.envs import make_envs
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy

SOLVED = {"cartpole-ppo": 475.0, "lunarlander-ppo": 200.0}


def test_there_is_one_for_each_of_these() -> None:
    assert pretrained.names() == sorted(SOLVED)


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("deterministic", [False, True])
def test_it_solves_its_environment(name: str, deterministic: bool) -> None:
    policy = pgkit.load(pretrained.path(name))
    envs = make_envs(policy.config.env.id, 32)
    keys = [EvalKey(policy.config.seed, 2)]  # neither the selection's episodes nor those of the measurement
    episodes = evaluate_policy(
        policy.policy, policy.params, envs, keys, 32, stream="report", deterministic=deterministic
    )
    mean = float(episodes.returns.mean())
    said = float(pretrained.about(name)["return"].split(", ")[deterministic].split()[0])
    assert mean > SOLVED[name]
    assert abs(mean - said) < 4 * 50 / 32**0.5  # four standard errors, of returns that vary by 50


@pytest.mark.parametrize("name", SOLVED)
def test_its_file_is_small_and_says_where_it_is_from(name: str) -> None:
    path = pretrained.path(name)
    assert path.stat().st_size < 40_000
    assert all(tensor.isfinite().all() for tensor in safetensors.torch.load_file(path).values())
    assert set(pretrained.about(name)) == set(pretrained.KEYS)
    text = path.read_bytes().decode("latin-1")
    assert "/" + "work" not in text  # no path of the machine that wrote it
    assert name in (Path(pretrained.__file__).parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # moviepy leaves a file of its encoder open
def test_the_command_line_lists_and_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moviepy")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(CartPoleEnv.metadata, "render_fps", 1000)
    monkeypatch.chdir(tmp_path)
    listed = command("play")
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in SOLVED)
    described = command("list pretrained lunarlander-ppo")
    assert "training: pgkit train lunarlander-ppo seeds=8" in described.stdout
    played = command("play lunarlander-ppo --video landing.mp4 --deterministic")
    assert played.exit_code == 0, played.stderr
    gc.collect()  # while its warnings are ignored
    assert (tmp_path / "landing.mp4").stat().st_size > 5000
    assert command("play cartpole-ppo --seed 3").exit_code == 0
    mistaken = command("play cartpole-pp0")
    assert mistaken.exit_code == 2
    assert "unknown pretrained policy 'cartpole-pp0', did you mean 'cartpole-ppo'?" in mistaken.stderr
