"""Finding and making environments; spaces on both sides; one clear line for every mistake."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from helpers import probe_envs

from pgkit.envs import envpool, list_envs, make_envs, resolve_backend, wrap_vector_env
from pgkit.errors import PgkitError

ECHO = "helpers.probe_envs:ProbeEcho-v0"


def message_of(*args, **kwargs):
    with pytest.raises(PgkitError) as caught:
        make_envs(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        ("CartPole", "did you mean 'CartPole-v"),
        ("LunarLander-v2", "did you mean 'LunarLander-v3'"),
        ("xyzzy", "unknown environment 'xyzzy': (all: pgkit list envs; others: package.module:Id)"),
        ("", "unknown environment ''"),
        ("no_such_module:Env-v0", "cannot import module 'no_such_module'"),
        ("helpers.probe_envs:Missing-v0", "did you mean 'ProbeMissing-v0'"),
        (
            "helpers.probe_envs:ProbeMissing-v0",
            "cannot be created: ModuleNotFoundError: No module named",
        ),
    ],
)
def test_unknown_ids(env_id, expected):
    assert expected in message_of(env_id, 1)
    if ":" not in env_id:
        assert expected in message_of(env_id, 1, vectorization="async")


def test_wrong_arguments():
    assert "unexpected keyword argument 'speed'" in message_of("CartPole-v1", 1, kwargs={"speed": 3})
    assert "'ProbeCounting-v0' cannot be created with {'form': 'x'}: KeyError: 'x'" in message_of(
        "helpers.probe_envs:ProbeCounting-v0", 1, kwargs={"form": "x"}
    )
    assert "gravity" in message_of("LunarLander-v3", 1, backend="gymnasium", kwargs={"gravity": 3.0})
    assert "expected at least 1, got 0" in message_of("CartPole-v1", 0)
    assert "max_episode_steps: expected at least 1, got 0" in message_of("CartPole-v1", 1, max_episode_steps=0)


@pytest.mark.process
def test_wrong_arguments_in_a_worker():
    message = message_of("CartPole-v1", 2, kwargs={"speed": 3}, vectorization="async")
    assert "unexpected keyword argument 'speed'" in message


def test_wrong_backends():
    assert "'pgkit' has no 'Taxi-v3': it has Acrobot-v1, CartPole-v0" in message_of("Taxi-v3", 1, backend="pgkit")
    assert "env.kwargs speed: pgkit's 'CartPole-v1' takes sutton_barto_reward" in message_of(
        "CartPole-v1", 1, backend="pgkit", kwargs={"speed": 3}
    )
    assert "is for env.backend 'gymnasium', not 'pgkit'" in message_of(
        "CartPole-v1", 1, backend="pgkit", vectorization="async"
    )


def test_envpool_missing(monkeypatch):
    monkeypatch.setattr(envpool, "installed", lambda: False)
    assert "pip install 'pgkit-rl[envpool]'" in message_of("LunarLander-v3", 1, backend="envpool")
    assert resolve_backend("LunarLander-v3", {"render_mode": "rgb_array"}, "auto") == "gymnasium"


def test_envpool_mistakes():
    pytest.importorskip("envpool")
    assert "EnvPool cannot create 'Nope-v1'" in message_of("Nope-v1", 1, backend="envpool")
    assert "EnvPool cannot create 'CartPole-v1' with {'speed': 3}" in message_of(
        "CartPole-v1", 1, backend="envpool", kwargs={"speed": 3}
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("CartPole-v1", {}, "auto"), "pgkit"),
        (("CartPole-v1", {"sutton_barto_reward": True}, "auto"), "pgkit"),
        (("CartPole-v1", {"render_mode": "rgb_array"}, "auto"), "gymnasium"),
        (("Pendulum-v1", {"g": 9.81}, "auto"), "pgkit"),
        (("CartPole-v1", {}, "auto", "async"), "gymnasium"),
        (("CartPole-v1", {}, "gymnasium"), "gymnasium"),
        (("Acrobot-v1", {}, "auto"), "pgkit"),
        (("Acrobot-v1", {}, "auto", "async"), "gymnasium"),
        (("gymnasium:Acrobot-v1", {}, "auto"), "pgkit"),
        (("Taxi-v3", {}, "auto"), "gymnasium"),
        (("LunarLander-v3", {"continuous": True}, "auto"), "pgkit"),
        (("LunarLander-v3", {"render_mode": "rgb_array"}, "auto"), "gymnasium"),
        (("LunarLander-v3", {}, "envpool"), "envpool"),
    ],
)
def test_auto(arguments, expected):
    assert resolve_backend(*arguments) == expected


def test_info_says_which_backend_it_is():
    for backend in ("pgkit", "gymnasium"):
        envs = make_envs("CartPole-v1", 3, backend=backend)
        info = envs.info
        assert (info.backend, info.num_envs, info.obs_dim, info.max_episode_steps) == (backend, 3, 4, 500)
        assert info.action_space == gymnasium.spaces.Discrete(2)
        assert info.can_step_subset
        assert info.device == torch.device("cpu")
        envs.close()
    assert make_envs("CartPole-v1", 1, max_episode_steps=7).info.max_episode_steps == 7
    assert make_envs("CartPole-v1", 1, backend="gymnasium", max_episode_steps=7).info.max_episode_steps == 7
    assert make_envs("helpers.probe_envs:ProbeNoise-v0", 1).info.max_episode_steps is None


def test_list():
    names = list_envs()
    assert {"CartPole-v1", "LunarLander-v3"} <= set(names)
    assert names == sorted(names)


def test_max_episode_steps():
    ids = {"gymnasium": "Acrobot-v1", "pgkit": "CartPole-v1"} | (
        {"envpool": "CartPole-v1"} if envpool.installed() else {}
    )
    for backend, env_id in ids.items():
        envs = make_envs(env_id, 2, backend=backend, max_episode_steps=3)
        envs.reset([5, 6])
        results = [envs.step(torch.zeros(2, dtype=torch.int64)) for _ in range(5)]
        assert [r.truncated.tolist() for r in results] == [[t == 2] * 2 for t in range(5)], backend
        assert [r.valid.tolist() for r in results] == [[t != 3] * 2 for t in range(5)], backend
        envs.close()


def test_native_vector_environment():
    envs = make_envs("CartPole-v1", 3, backend="gymnasium", vectorization="native", max_episode_steps=2)
    assert (envs.info.vectorization, envs.info.can_step_subset) == ("native", False)
    assert envs.reset([2**60, 5, 6]).shape == (3, 4)
    results = [envs.step(torch.ones(3, dtype=torch.int64)) for _ in range(4)]
    assert [r.valid.tolist() for r in results] == [[True] * 3, [True] * 3, [False] * 3, [True] * 3]
    assert results[1].truncated.all()
    message = message_of("helpers.probe_envs:ProbeNoise-v0", 1, vectorization="native")
    assert "'ProbeNoise-v0' cannot be created" in message


def test_single_seed_vector_environment():
    first, again, other = (wrap_vector_env(probe_envs.OneSeed(2)).reset(seeds) for seeds in ([1, 2], [1, 2], [1, 3]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_wrapped_environments_step_and_reset_as_a_whole():
    envs = wrap_vector_env(SyncVectorEnv([probe_envs.Counting] * 2), name="two")
    assert envs.info.name == "two"
    envs.reset([10, 31])
    result = envs.step(torch.tensor([1]), torch.tensor([1]))
    assert result.obs.tolist() == [[1, 0, 1]]
    assert envs.step(torch.tensor([1, 0])).obs.tolist() == [[0, 0, 2], [1, 0, 2]]  # both had made a step
    assert envs.reset([10, 31], torch.tensor([0, 1])).shape == (2, 3)
    with pytest.raises(PgkitError, match="resets as a whole"):
        envs.reset([10], torch.tensor([0]))


@pytest.mark.parametrize(
    "space",
    ["box", "box64", "integers", "discrete", "shifted", "multi", "multi-shifted", "grid", "binary", "dict", "tuple"],
)
def test_observations_are_flattened_by_gymnasium(space):
    with_wrapper = SyncVectorEnv([lambda: probe_envs.Echo(space)] * 3)
    for envs in (make_envs(ECHO, 3, kwargs={"observation": space}), wrap_vector_env(with_wrapper)):
        inner = [env.unwrapped for env in (envs._envs if hasattr(envs, "_envs") else with_wrapper.envs)]
        seen = [envs.reset([4, 5, 6])]
        seen += [envs.step(torch.zeros(3, dtype=torch.int64)).obs for _ in range(3)]
        assert envs.info.obs_dim == gymnasium.spaces.flatdim(probe_envs.SPACES[space])
        for t, obs in enumerate(seen):
            assert obs.dtype == torch.float32
            for k, env in enumerate(inner):
                true = gymnasium.spaces.flatten(env.observation_space, env.shown[t]).astype(np.float32)
                assert np.array_equal(obs[k].numpy(), true)
        assert not torch.equal(seen[0], seen[1]) or not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("space", ["text", "nested-text", "graph", "sequence"])
def test_other_observation_spaces(space):
    message = message_of(ECHO, 1, kwargs={"observation": space})
    assert "is not supported: use Box, Discrete, MultiDiscrete, MultiBinary, or Dict or Tuple of these" in message


ACTIONS = [
    ("discrete", [3, 0], [3, 0]),
    ("shifted", [3, 0], [1, -2]),
    ("multi", [[2, 1], [0, 0]], [[2, 1], [0, 0]]),
    ("multi-shifted", [[2, 1], [0, 0]], [[12, 0], [10, -1]]),
    ("grid", [[2, 1, 0, 3], [0, 0, 1, 2]], [[[2, 1], [0, 3]], [[0, 0], [1, 2]]]),
    ("binary", [[1, 0, 1], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]),
    (
        "box",
        [[-9.0, -1.0, 0.5, 2.0, 2.5, 1e30], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]],
        [[[-1.0, -1.0, 0.5], [2.0, 2.0, 2.0]], [[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]]],
    ),
    ("box64", [[0.25, 9.0], [-2.0, -2.0]], [[0.25, 5.0], [-1.0, -2.0]]),
]


@pytest.mark.parametrize(("space", "learner", "received"), ACTIONS)
def test_actions_arrive_in_the_space(space, learner, received):
    with_wrapper = SyncVectorEnv([lambda: probe_envs.Echo(action=space)] * 2)
    for envs in (make_envs(ECHO, 2, kwargs={"action": space}), wrap_vector_env(with_wrapper)):
        inner = [env.unwrapped for env in (envs._envs if hasattr(envs, "_envs") else with_wrapper.envs)]
        assert envs.info.action_space == probe_envs.SPACES[space]
        envs.reset([1, 2])
        envs.step(torch.tensor(learner))  # the environment asserts that its space contains it
        for env, expected in zip(inner, received, strict=True):
            np.testing.assert_array_equal(env.last_action, np.array(expected, dtype=env.action_space.dtype))


@pytest.mark.parametrize("space", ["text", "dict", "tuple", "integers"])
def test_other_action_spaces(space):
    assert "is not supported: use" in message_of(ECHO, 1, kwargs={"action": space})


@pytest.mark.process
def test_wrong_action_shapes():
    for vectorization in ("sync", "async"):
        envs = make_envs(ECHO, 2, kwargs={"action": "multi"}, vectorization=vectorization)
        envs.reset([1, 2])
        with pytest.raises(PgkitError, match=r"action: expected shape \(2, 2\), got \(2,\)"):
            envs.step(torch.tensor([0, 1]))
        with pytest.raises(PgkitError, match=r"action: expected shape \(1, 2\), got \(2, 2\)"):
            envs.step(torch.zeros(2, 2, dtype=torch.int64), torch.tensor([1]))
        envs.close()


@pytest.mark.process
def test_importing_is_cheap():
    code = "import sys, pgkit.envs; assert not {'gymnasium', 'envpool', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
