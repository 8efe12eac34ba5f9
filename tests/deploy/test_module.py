"""A policy as a module of PyTorch: the policy's numbers, in files that other programs run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.compile_mode import set_compile_mode
from helpers.recorded_envs import ACTIONS
from helpers.trained_runs import train_recorded
from torch import Tensor

import pgkit
from pgkit.config.load import parse_config
from pgkit.deploy.policy import TrainedPolicy
from pgkit.envs import normalize
from pgkit.errors import PgkitError

CASES = {
    "discrete": ("discrete", "vector", False),
    "normalized": ("discrete", "parts", True),
    "box": ("box", "vector", False),
    "far box": ("far box", "matrix", True),
    "multi-discrete": ("multi-discrete", "vector", False),
    "multi-binary": ("multi-binary", "number", False),
}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedPolicy]:
    place = tmp_path_factory.mktemp("runs")
    return {name: pgkit.load(train_recorded(place, *case), member=1) for name, case in CASES.items()}


def observations(policy: TrainedPolicy, count: int = 32) -> tuple[Tensor, list[object]]:
    """Random observations, flattened, and as the environment returns them."""
    space = policy.spaces.observation
    space.seed(0)
    samples = [space.sample() for _ in range(count)]
    return torch.cat([policy.flatten(sample) for sample in samples]), samples


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["graphs", "off"])
def test_outputs_and_actions_are_those_of_the_policy(
    name: str, mode: str, policies: dict[str, TrainedPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_compile_mode(monkeypatch, mode)
    policy = policies[name]
    obs, samples = observations(policy)
    module = policy.to_module()
    outputs = module(obs)
    x = obs[None] if policy.obs_stats is None else normalize.apply(policy.obs_stats, obs[None])
    expected = policy.policy.outputs(policy.params, x)[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(torch.cat(outputs[:-1], -1), expected, rtol=1e-6, atol=1e-6)
    actions = np.stack([policy.predict(sample, deterministic=True)[0] for sample in samples])
    tolerance = 1e-6 if mode == "off" and "box" in name else 0.0  # torch's products round by the size of a batch
    np.testing.assert_allclose(outputs[-1].numpy(force=True), actions, rtol=tolerance, atol=tolerance)
    assert outputs[-1].numpy(force=True).dtype == actions.dtype
    assert module.output_names == (("mean", "log_std", "action") if "box" in name else ("logits", "action"))


# Torch's exporter touches a deprecated name of its own, and copies modules of onnxscript that warn.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["normalized", "far box", "multi-discrete"])
def test_onnxruntime_runs_the_exported_file(name: str, policies: dict[str, TrainedPolicy], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy = policies[name]
    obs, _ = observations(policy)
    module = policy.to_module()
    path = tmp_path / "policy.onnx"
    torch.onnx.export(
        module,
        (obs[:2],),
        path,
        input_names=["obs"],
        output_names=list(module.output_names),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert tuple(output.name for output in session.get_outputs()) == module.output_names
    for batch in (obs, obs[:1]):  # another batch size than that of the export
        answers = session.run(None, {"obs": batch.numpy()})
        for answer, expected in zip(answers, module(batch), strict=True):
            np.testing.assert_allclose(answer, expected.numpy(force=True), rtol=1e-5, atol=1e-5)
            assert answer.dtype == expected.numpy(force=True).dtype


# See above; when it analyses bytecode, the exporter also warns of every function with a cache.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize(
    ("name", "strict"), [("discrete", False), ("far box", False), ("multi-binary", False), ("normalized", True)]
)
def test_an_exported_program_computes_the_same(
    name: str, strict: bool, policies: dict[str, TrainedPolicy], tmp_path: Path
) -> None:
    policy = policies[name]
    obs, _ = observations(policy)
    module = policy.to_module()
    program = torch.export.export(module, (obs[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    torch.export.save(program, tmp_path / "policy.pt2")
    loaded = torch.export.load(tmp_path / "policy.pt2").module()
    for answer, expected in zip(loaded(obs), module(obs), strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)


def test_safetensors_hold_the_parameters(policies: dict[str, TrainedPolicy], tmp_path: Path) -> None:
    policy = policies["normalized"]
    obs, _ = observations(policy)
    module = policy.to_module()
    safetensors.torch.save_file(module.state_dict(), tmp_path / "policy.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "policy.safetensors")
    assert set(stored) == {
        *(f"actor.{layer}.{leaf}" for layer in range(3) for leaf in ("weight", "bias")),
        *(f"obs_stats.{leaf}" for leaf in ("count", "mean", "squares")),
    }
    other = policy.to_module()
    for leaf in other.state_dict().values():
        leaf.zero_()
    assert not torch.equal(other(obs)[0], module(obs)[0])
    other.load_state_dict(stored)
    assert torch.equal(other(obs)[0], module(obs)[0])


def test_the_module_can_be_trained_and_leaves_the_policy_as_it_is(policies: dict[str, TrainedPolicy]) -> None:
    policy = policies["discrete"]
    obs, _ = observations(policy)
    before = {name: leaf.clone() for name, leaf in policy.params.items()}
    module = policy.to_module()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(module(obs)[0], torch.zeros(len(obs), dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(torch.equal(before[name], leaf) for name, leaf in policy.params.items())


def test_there_is_a_case_for_every_action_space() -> None:
    assert {case[0] for case in CASES.values()} == set(ACTIONS)


NETWORKS: dict[str, dict[str, Any]] = {
    "layer norm": {"hidden": [7], "layer_norm": True},
    "gru": {"network": "gru", "network_kwargs": {"hidden_size": 5}},
    "module": {"network": "helpers.own_networks:OwnNet"},
    "cnn": {"network": "minatar-cnn", "network_kwargs": {"features": 9}},
}


def trained(policy: dict[str, Any], place: Path) -> TrainedPolicy:
    """A short run, of images for the CNN."""
    env: dict[str, Any] = {"id": "CartPole-v1"}
    if policy.get("network") == "minatar-cnn":
        env = {"id": "helpers.harder_probes:ProbeSide-v0", "kwargs": {"side": 8}}
    table = {"name": "out", "steps": 200, "env": env, "agent": "actor-critic", "policy": policy}
    evaluation = {"points": 0, "final_episodes": 1}
    pgkit.train(parse_config(table | {"optimizer": "adam", "evaluation": evaluation}), place)
    return pgkit.load(place)


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_are_taken_out_and_exported(name: str, tmp_path: Path) -> None:
    policy = trained(NETWORKS[name], tmp_path / "run")
    obs, samples = observations(policy)
    memory = (torch.rand(len(obs), 5),) if name == "gru" else ()
    module = policy.to_module()
    state = memory[0].numpy() if memory else None
    actions, after = policy.predict(np.stack(samples), state, deterministic=True)
    outputs = module(obs, *memory)
    assert np.array_equal(outputs[1], actions)
    if memory:
        np.testing.assert_allclose(outputs[2].numpy(force=True), after, rtol=1e-6)
        assert module.output_names == ("logits", "action", "memory")
    program = torch.export.export(module, (obs, *memory))
    for answer, expected in zip(program.module()(obs, *memory), outputs, strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    policy.save(tmp_path / "policy.safetensors")
    again = pgkit.load(tmp_path / "policy.safetensors")
    assert torch.equal(again.to_module()(obs, *memory)[0], outputs[0])


def test_a_recurrent_policy_remembers_until_an_episode_begins(tmp_path: Path) -> None:
    policy = trained(NETWORKS["gru"], tmp_path / "run")
    _, samples = observations(policy, 2)
    batch = np.stack(samples)
    _, state = policy.predict(batch)
    assert state.shape == (2, 5)
    _, onwards = policy.predict(batch, state, episode_start=np.array([True, False]))
    assert np.array_equal(onwards[0], state[0])
    assert not np.array_equal(onwards[1], state[1])
    with pytest.raises(PgkitError, match=r"state must be what predict returned, \(2, 5\), got \(3,\)"):
        policy.predict(batch, np.zeros(3))
