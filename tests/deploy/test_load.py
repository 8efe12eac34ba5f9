"""Policies from run directories and files: which member, which checkpoint, and one line where there is none."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium.spaces import Box
from helpers.trained_runs import train_recorded

import pgkit
from pgkit.config.load import parse_config
from pgkit.runs.reader import saved_members

OBS = np.array([0.3, -0.4, 0.5], dtype=np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_recorded(tmp_path_factory.mktemp("runs"), "box", normalized=True)


def weights(policy: Any) -> torch.Tensor:
    weight: torch.Tensor = policy.params["actor.0.weight"]
    return weight


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("member", [1, "1", "seed-1"])
def test_a_member_is_named_by_its_seed_or_its_label(run: Path, member: str | int, best: bool) -> None:
    policy = pgkit.load(run, member=member, best=best)
    _, params, obs_stats = saved_members(run, best)
    assert policy.config.seed == 1
    assert not torch.equal(params["actor.0.weight"][0], params["actor.0.weight"][1])
    assert torch.equal(weights(policy), params["actor.0.weight"][1:])
    assert policy.obs_stats is not None
    assert torch.equal(policy.obs_stats["mean"], obs_stats["mean"][1:])


def test_a_run_with_one_member_needs_no_name_and_is_known_below_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = pgkit.load_config("cartpole-actor-critic", {"steps": 200, "name": "one", "evaluation.points": 0})
    result = pgkit.train(config, "runs/one")
    policy = pgkit.load("one")
    assert torch.equal(weights(policy), result.params["actor.0.weight"])
    assert policy.predict(np.zeros(4))[0] in (0, 1)
    with pytest.raises(pgkit.PgkitError, match="was not evaluated during training"):
        pgkit.load("one", best=True)


@pytest.mark.parametrize(
    ("env", "size", "space"),
    [
        ({"id": "Pendulum-v1"}, 3, Box(-2.0, 2.0, (1,))),
        ({"id": "Pendulum-v1", "backend": "gymnasium"}, 3, Box(-2.0, 2.0, (1,))),
        pytest.param(
            {"id": "Pendulum-v1", "vectorization": "async"}, 3, Box(-2.0, 2.0, (1,)), marks=pytest.mark.process
        ),
        ({"id": "CartPole-v1", "backend": "envpool"}, 4, None),
        ({"id": "LunarLander-v3", "kwargs": {"continuous": True}}, 8, Box(-1.0, 1.0, (2,))),
    ],
)
def test_every_backend_gives_actions_of_the_space(
    env: dict[str, Any], size: int, space: Box | None, tmp_path: Path
) -> None:
    if env.get("backend") == "envpool":
        pytest.importorskip("envpool")
    table = {"name": "short", "steps": 100, "env": env, "agent": "actor-critic", "optimizer": "sgd"}
    pgkit.train(parse_config(table | {"evaluation": {"points": 0, "final_episodes": 1}}), tmp_path / "run")
    policy = pgkit.load(tmp_path / "run")
    obs = np.full(size, 0.1)
    for deterministic in (True, False):
        action = policy.predict(obs, deterministic=deterministic)[0]
        actions = policy.predict([obs, obs], deterministic=deterministic)[0]
        assert action in (0, 1) if space is None else space.contains(action)
        assert space is None or (actions.shape, actions.dtype) == ((2, *space.shape), space.dtype)
    assert policy.to_module()(policy.flatten(obs))[-1].shape == (1, *np.shape(action))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"has 2 members, and member names none of them: seed-0, seed-1"),
        ({"member": 7}, r"unknown member '7' \(allowed: seed-0, seed-1, or a seed\)"),
        ({"member": "seed_1"}, r"unknown member 'seed_1', did you mean 'seed-1'\?"),
        ({"member": 0, "device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"member": 0, "seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_a_wrong_argument_is_one_line(run: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(pgkit.PgkitError, match=message) as caught:
        pgkit.load(run, **arguments)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(pgkit.PgkitError, match=r"has no config.toml"):
        pgkit.load(tmp_path)
    with pytest.raises(pgkit.PgkitError, match="unknown run 'nothing'"):
        pgkit.load("nothing")
    with pytest.raises(pgkit.PgkitError, match=r"must be a str or a pathlib.Path, got int"):
        pgkit.load(3)  # type: ignore[arg-type]


# --- files ---


def test_a_saved_policy_acts_the_same(run: Path, tmp_path: Path) -> None:
    policy = pgkit.load(run, member=1)
    path = tmp_path / "new" / "policy.safetensors"
    policy.save(path, {"about": "a test"})
    loaded = pgkit.load(path)
    assert loaded.config == policy.config
    assert set(loaded.params) == {name for name in policy.params if not name.startswith("critic.")}
    for deterministic in (True, False):
        expected = policy.predict(OBS, deterministic=deterministic)[0]
        np.testing.assert_array_equal(loaded.predict(OBS, deterministic=deterministic)[0], expected)
    stored = safetensors.torch.load_file(path)  # by the format's own package
    assert torch.equal(stored["params.actor.0.weight"], weights(policy)[0])
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["about"] == "a test"


def damaged(path: Path, what: str) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    if what == "cut":
        path.write_bytes(content[:-8])
        return
    if what == "header":
        path.write_bytes(content[:40])
        return
    if what == "dtype":
        header["params.actor.0.weight"]["dtype"] = "F8"
    if what == "no config":
        del header["__metadata__"]["config"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut", "is no safetensors file, or it is damaged"),
        ("header", "is no safetensors file, or it is damaged"),
        ("dtype", "is no safetensors file, or it is damaged"),
        ("no config", "is no policy of pgkit: its metadata has no config"),
    ],
)
def test_a_damaged_file_is_one_line(run: Path, tmp_path: Path, what: str, message: str) -> None:
    path = tmp_path / "policy.safetensors"
    pgkit.load(run, member=0).save(path)
    damaged(path, what)
    with pytest.raises(pgkit.PgkitError, match=message):
        pgkit.load(path)


def test_files_have_one_policy_and_an_ending(run: Path, tmp_path: Path) -> None:
    policy = pgkit.load(run, member=0)
    policy.save(tmp_path / "policy.safetensors")
    with pytest.raises(pgkit.PgkitError, match="is one policy: member and best have no effect"):
        pgkit.load(tmp_path / "policy.safetensors", member=0)
    with pytest.raises(pgkit.PgkitError, match=r"must end in \.safetensors"):
        policy.save(tmp_path / "policy.pt")
    with pytest.raises(pgkit.PgkitError, match=r"cannot read .*: No such file"):
        pgkit.load(tmp_path / "nothing.safetensors")


# --- pages ---


# Torch's exporter touches a deprecated name of its own, and copies modules of onnxscript that warn.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("page", ["deploy", "pretrained"])
def test_the_code_on_the_pages_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(pgkit.__file__).parent / page / "README.md").read_text(encoding="utf-8")
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert codes
    for code in codes:
        exec(compile(code, page, "exec"), {"__name__": "page"})
    assert page == "pretrained" or {path.name for path in tmp_path.iterdir()} >= {"policy.onnx", "module.safetensors"}
