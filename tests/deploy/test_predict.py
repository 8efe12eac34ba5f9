"""Actions of a loaded policy: those of pgkit's own evaluation, in the form that the environment takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers.recorded_envs import ACTIONS, OBSERVATIONS, Recorded
from helpers.trained_runs import train_recorded

import pgkit
from pgkit.config.load import parse_config
from pgkit.deploy.policy import TrainedPolicy
from pgkit.errors import PgkitError

CASES = [
    *((actions, "vector", False) for actions in ACTIONS),
    ("discrete", "vector", True),
    ("far box", "matrix", True),
    ("multi-discrete", "parts", True),
    ("box", "number", False),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_recorded(tmp_path_factory.mktemp("runs"), *request.param)


def evaluated(run: Path) -> list[tuple[Any, Any]]:
    """What the evaluation of one member with the most likely actions observed and did."""
    Recorded.log.clear()
    pgkit.evaluate_run(run, episodes=4, deterministic=True, member=1)
    log = list(Recorded.log)
    assert len(log) == 40
    return log


def batched(observations: list[Any]) -> Any:
    first = observations[0]
    if isinstance(first, dict):
        return {key: np.stack([each[key] for each in observations]) for key in first}
    return np.stack(observations)


def test_deterministic_actions_are_those_of_an_evaluation(run: Path) -> None:
    policy = pgkit.load(run, member=1)
    log = evaluated(run)
    assert len({np.asarray(action).tobytes() for _, action in log}) > 1
    for obs, expected in log:
        action, state = policy.predict(obs, deterministic=True)
        assert state is None
        assert type(action) is type(expected)
        assert policy.spaces.action.contains(action)
        np.testing.assert_array_equal(action, expected)
        assert np.asarray(action).dtype == policy.spaces.action.dtype
    actions, _ = policy.predict(batched([obs for obs, _ in log]), deterministic=True)
    np.testing.assert_array_equal(actions, np.stack([expected for _, expected in log]))
    assert actions.dtype == policy.spaces.action.dtype


def uncertain(policy: TrainedPolicy, seed: int = 0) -> TrainedPolicy:
    """The same policy with outputs near 0, so that all actions are probable."""
    last = ("actor.2", "actor.log_std")
    params = {name: leaf / 40 if name.startswith(last) else leaf for name, leaf in policy.params.items()}
    other = replace(policy, params=params)
    other.set_random_seed(seed)
    return other


def test_sampled_actions_are_of_the_space_and_follow_the_seed(run: Path) -> None:
    policy = uncertain(pgkit.load(run, member="seed-0"), seed=3)
    space = OBSERVATIONS[policy.config.env.kwargs["observations"]]
    space.seed(1)
    obs = [space.sample() for _ in range(20)]
    first, _ = policy.predict(batched(obs))
    assert all(policy.spaces.action.contains(action) for action in first)
    second, _ = policy.predict(batched(obs))
    assert not np.array_equal(first, second)
    policy.set_random_seed(3)
    one_by_one = [policy.predict(each)[0] for each in obs]  # the same draws, in the same order
    np.testing.assert_array_equal(np.stack(one_by_one), first)
    policy.set_random_seed(4)
    assert not np.array_equal(policy.predict(batched(obs))[0], first)


@pytest.fixture(scope="module")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> TrainedPolicy:
    return pgkit.load(train_recorded(tmp_path_factory.mktemp("runs"), "discrete"), member=0)


def test_actions_are_drawn_with_the_probabilities_of_the_policy(discrete: TrainedPolicy) -> None:
    obs = np.array([0.1, -0.2, 0.3], dtype=np.float32)
    policy = uncertain(discrete)
    outputs = policy.policy.outputs(policy.params, torch.from_numpy(obs).view(1, 1, 3))
    probabilities = torch.softmax(outputs[0, 0], 0).numpy()
    assert probabilities.min() > 0.05
    actions, _ = policy.predict(np.tile(obs, (20_000, 1)))
    shares = np.bincount(actions - 5, minlength=3) / len(actions)
    np.testing.assert_allclose(shares, probabilities, atol=5 * 0.5 / len(actions) ** 0.5)  # five standard errors


def test_the_seed_of_load_is_that_of_sampled_actions(tmp_path: Path) -> None:
    run = train_recorded(tmp_path, "box", "number")
    first, second, third = (uncertain_draws(pgkit.load(run, member=0, seed=seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def uncertain_draws(policy: TrainedPolicy) -> np.ndarray:
    policy.params = uncertain(policy).params
    return policy.predict(np.full(20, 3))[0]


def test_tensors_lists_and_arrays_are_the_same_observation(discrete: TrainedPolicy) -> None:
    obs = [0.5, -1.0, 2.0]
    expected = discrete.predict(np.array(obs, dtype=np.float32), deterministic=True)[0]
    for form in (obs, torch.tensor(obs, requires_grad=True), np.array(obs)):
        assert discrete.predict(form, deterministic=True)[0] == expected
    assert discrete.predict(torch.tensor([obs, obs]), deterministic=True)[0].tolist() == [expected, expected]
    assert discrete.predict(np.zeros((0, 3)))[0].shape == (0,)


def test_the_state_of_a_recurrent_policy_is_passed_through(discrete: TrainedPolicy) -> None:
    state = (np.zeros(2),)
    assert discrete.predict([0.0, 0.0, 0.0], state=state, episode_start=np.array([True]))[1] is state


@pytest.mark.parametrize(
    "obs", [np.zeros(4), np.zeros((2, 4)), np.zeros((2, 2, 3)), {"place": np.zeros(2)}, "left", None]
)
def test_what_is_no_observation_is_one_line(discrete: TrainedPolicy, obs: Any) -> None:
    with pytest.raises(pgkit.PgkitError, match=r"expected shape \(3,\).*Recorded-v0") as caught:
        discrete.predict(obs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 1.5, "one", True])
def test_a_seed_is_a_whole_number(discrete: TrainedPolicy, seed: Any) -> None:
    with pytest.raises(pgkit.PgkitError, match="seed must be a whole number of at least 0"):
        discrete.set_random_seed(seed)


def test_what_a_process_has_set_changes_no_action(discrete: TrainedPolicy) -> None:
    obs = np.random.default_rng(0).normal(size=(50, 3))
    discrete.set_random_seed(0)
    expected = discrete.predict(obs)[0]
    discrete.set_random_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            actions = discrete.predict(obs)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("backend", ["pgkit", "gymnasium"])
def test_squashed_actions_are_those_of_the_environment(backend: str, tmp_path: Path) -> None:
    """The deterministic action is tanh of the mean, scaled to Pendulum's bounds; the module agrees."""
    table = {
        "name": "squashed",
        "steps": 200,
        "env": {"id": "Pendulum-v1", "backend": backend},
        "agent": "actor-critic",
        "policy": {"hidden": [8], "squash_output": True, "state_dependent_std": True},
        "optimizer": {"name": "adam", "lr": 0.1},
        "evaluation": {"points": 0, "final_episodes": 1},
    }
    pgkit.train(parse_config(table), tmp_path / "run")
    policy = pgkit.load(tmp_path / "run")
    obs = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    actions, _ = policy.predict(obs, deterministic=True)
    mean, _ = policy.policy.outputs(policy.params, torch.from_numpy(obs)[None])[0].chunk(2, -1)
    assert mean.abs().max() > 0.1
    np.testing.assert_allclose(actions, 2.0 * np.tanh(mean.numpy(force=True)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policy.to_module()(torch.from_numpy(obs))[-1].numpy(force=True), actions, rtol=1e-5)


@pytest.mark.parametrize("in_obs", [False, True])
def test_masked_actions_are_never_predicted(in_obs: bool, tmp_path: Path) -> None:
    env_id = "helpers.masked_envs:Masked-v0"
    table = {
        "name": "masked",
        "steps": 100,
        "env": {"id": env_id, "kwargs": {"place": "obs" if in_obs else "info"}},
        "agent": "actor-critic",
        "optimizer": "adam",
        "evaluation": {"points": 0, "final_episodes": 1},
    }
    pgkit.train(parse_config(table), tmp_path / "run")
    policy = pgkit.load(tmp_path / "run")
    env = gymnasium.make(env_id, place="obs" if in_obs else "info")
    obs, info = env.reset(seed=0)
    allowed = np.asarray((obs if in_obs else info)["action_mask"], bool)
    assert not allowed.all()
    for _ in range(50):
        action, _ = policy.predict(obs, action_masks=None if in_obs else info["action_mask"])
        assert allowed[action]
    with pytest.raises(PgkitError, match=r"action_masks must be \(1, "):
        policy.predict(obs, action_masks=np.ones(99))
