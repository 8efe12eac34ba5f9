"""What an environment returns is what its spaces say, or the run ends with one line that says what it is instead."""

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from helpers.odd_envs import OBSERVED, RESULTS, SPACES, Observes, Returns, odd_config, odd_id
from typer.testing import CliRunner

from pgkit.cli import app
from pgkit.config.load import load_config, to_toml
from pgkit.config.schema import TrainConfig
from pgkit.envs import make_envs, wrap_vector_env
from pgkit.envs.errors import EnvError
from pgkit.envs.guard import CHECKED_STEPS
from pgkit.errors import PgkitError
from pgkit.training.train import train


def error_of(config: TrainConfig, place: Path, exit_code: int = 1) -> str:
    """What ``pgkit train`` says: one line, after a note if the trial for exact resuming has failed, too."""
    (place / "odd.toml").write_text(to_toml(config))
    arguments = ["train", str(place / "odd.toml"), "--quiet", "--workers", "1", "--out", str(place / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exit_code, (result.output, result.exception)
    *notes, error = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert [note for note in notes if not note.startswith("note: this run cannot be resumed exactly: ")] == []
    return error


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.process)])
@pytest.mark.parametrize("where", ["constructor", "reset", "step"])
def test_what_is_no_exception_is_caught_like_one(where: str, vectorization: str, tmp_path: Path) -> None:
    config = odd_config("Raises", vectorization, kwargs={"where": where})
    if where == "constructor":
        assert "cannot be created with {'where': 'constructor'}: Odd: two lines" in error_of(config, tmp_path, 2)
        return
    assert f"{where}() of sub-environment 0 (seed " in (message := error_of(config, tmp_path))
    assert ") raised Odd: two lines" in message
    if where == "step":
        assert "raise Odd(" in (tmp_path / "run" / "error.txt").read_text()


def test_closing_may_raise_anything() -> None:
    envs = make_envs(odd_id("Raises"), 1, kwargs={"where": "close"})
    with pytest.warns(UserWarning, match=r"close\(\) raised Odd"):
        envs.close()


WORDS = {
    "reward of shape (1,)": "the reward is an array of shape (1,) and type float64, expected a number",
    "reward None": "the reward is None (NoneType), expected a number",
    "reward text": "the reward is '3.5' (str), expected a number",
    "reward dict": "the reward is {'agent': 1.0} (dict), expected a number",
    "terminated text": "terminated is 'False' (str), expected True or False",
    "terminated None": "terminated is None (NoneType), expected True or False",
    "truncated text": "truncated is 'no' (str), expected True or False",
    "truncated of shape (2,)": "truncated is an array of shape (2,) and type bool, expected True or False",
    "four results": "the result is 4 values, expected (observation, reward, terminated, truncated, info)",
    "nothing": "the result is None (NoneType), expected (observation, reward, terminated, truncated, info)",
}


@pytest.mark.parametrize("what", [*RESULTS, "four results", "nothing"])
def test_a_result_that_is_none(what: str, tmp_path: Path) -> None:
    message = error_of(odd_config("Returns", kwargs={"what": what}), tmp_path)
    assert f"returned malformed data at step 3: {WORDS[what]}" in message
    assert "environment 'helpers.odd_envs:OddReturns-v0': step() of sub-environment 0 (seed " in message


LATE = ["reward of shape (1,)", "reward None", "reward text", "reward dict", "terminated text", "truncated text"]


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.process)])
@pytest.mark.parametrize("what", LATE)
def test_rewards_and_flags_are_checked_for_ever(what: str, vectorization: str) -> None:
    """A text that reads as a number would be taken for one, and ``"False"`` for true."""
    kwargs = {"what": what, "after": CHECKED_STEPS + 50}
    envs = make_envs(odd_id("Returns"), 1, kwargs=kwargs, vectorization=vectorization)
    envs.reset([1])
    message = ""
    for _ in range(2 * CHECKED_STEPS):
        try:
            envs.step(torch.zeros(1, dtype=torch.int64))
        except EnvError as error:
            message = str(error)
            break
    envs.close()
    assert f"returned malformed data at step 3: {WORDS[what]}" in message


def test_a_reset_without_info() -> None:
    envs = make_envs(odd_id("Returns"), 1, kwargs={"what": "reset without info"})
    with pytest.raises(EnvError, match=r"reset\(\).*data: the result is an array .*\(observation, info\)"):
        envs.reset([1])


EXPECTED = {
    "(4, 2) for (2, 4)": "is an array of shape (4, 2) and type float64, expected shape (2, 4)",
    "HWC for CHW": "is an array of shape (8, 6, 3) and type uint8, expected shape (3, 8, 6)",
    "(2, 1) for (2,)": "is an array of shape (2, 1) and type float64, expected shape (2,)",
    "(1, 1) for (1,)": "is an array of shape (1, 1) and type float64, expected shape (1,)",
    "text for numbers": "is an array of shape (2,) and type <U1, expected numbers",
    "None in objects": "is an array of shape (2,) and type object, expected numbers",
    "-1 for Discrete": "is -1 (int), expected 0 to 3",
    "4 for Discrete": "is np.int64(4) (int64), expected 0 to 3",
    "0 for Discrete from 2": "is 0 (int), expected 2 to 5",
    "1.0 for Discrete": "is 1.0 (float), expected a whole number",
    "-1 in MultiDiscrete": "is [1, -1], expected numbers from [0, 0] to [2, 1]",
    "3 in MultiDiscrete": "is [3, 0], expected numbers from [0, 0] to [2, 1]",
    "2 in MultiBinary": "is [0, 2, 1], expected each to be 0 or 1",
    "part missing": "is a dict without 'b', expected a dict of a, b",
    "part of another shape": "['a'] is an array of shape (4, 2) and type float64, expected shape (2, 4)",
    "part out of range": "[1] is 2 (int), expected 0 to 1",
    "array for tuple": "is an array of shape (2,) and type float64, expected a tuple of 2",
}


@pytest.mark.parametrize("what", OBSERVED)
def test_an_observation_that_is_not_of_the_space(what: str) -> None:
    envs = make_envs(odd_id("Observes"), 2, kwargs={"what": what})
    envs.reset([1, 2])
    action = torch.zeros(2, dtype=torch.int64)
    envs.step(action)
    envs.step(action)
    with pytest.raises(EnvError) as caught:
        envs.step(action)
    start = (
        "environment 'helpers.odd_envs:OddObserves-v0': step() of sub-environment 0 (seed 1) returned malformed data"
    )
    assert str(caught.value).startswith(f"{start} at step 3: the observation")
    assert str(caught.value).endswith(EXPECTED[what])


def test_it_is_one_line_of_a_run(tmp_path: Path) -> None:
    message = error_of(odd_config("Observes", kwargs={"what": "-1 for Discrete"}), tmp_path)
    assert "at step 3: the observation is -1 (int), expected 0 to 3; it is environment 0 of seed 0" in message


def test_the_first_observation_is_checked() -> None:
    with pytest.raises(EnvError, match=r"reset\(\) of sub-environment 0 .* malformed data: the observation is"):
        make_envs(odd_id("Observes"), 1, kwargs={"what": "HWC for CHW", "at": 0}).reset([1])


@pytest.mark.parametrize("what", ["(4, 2) for (2, 4)", "-1 for Discrete", "3 in MultiDiscrete", "part missing"])
def test_shapes_parts_and_ranges_are_checked_for_ever(what: str) -> None:
    envs = make_envs(odd_id("Observes"), 1, kwargs={"what": what, "at": 99})
    envs.reset([1])
    action = torch.zeros(1, dtype=torch.int64)
    for _ in range(CHECKED_STEPS + 5):
        envs.step(action)
    envs._envs[0].unwrapped.at = 0
    with pytest.raises(EnvError, match="malformed data"):
        envs.step(action)


@pytest.mark.parametrize("what", ["(4, 2) for (2, 4)", "-1 for Discrete", "part out of range"])
def test_vector_environments_are_checked_too(what: str) -> None:
    """Gymnasium's own loop copies observations into a batch, and so broadcasts some before pgkit sees them."""
    envs = wrap_vector_env(SyncVectorEnv([lambda: Observes(what, at=1)] * 2, observation_mode="different"), name="two")
    envs.reset([1, 2])
    with pytest.raises(EnvError, match="environment 'two': step"):
        envs.step(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("what", ["reward of shape (1,)", "reward None", "terminated text"])
def test_vector_environments_return_numbers(what: str) -> None:
    envs = wrap_vector_env(_Passing(what), name="one")
    envs.reset([1])
    with pytest.raises(EnvError, match=r"returned malformed data: (the rewards|terminated) are .*, expected numbers"):
        envs.step(torch.zeros(1, dtype=torch.int64))


class _Passing(gymnasium.vector.VectorEnv):
    """A vector environment that passes on what its environment returns."""

    def __init__(self, what: str) -> None:
        self.env = Returns(what)
        self.num_envs = 1
        self.single_observation_space = self.env.observation_space
        self.single_action_space = self.env.action_space
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1, 2))
        self.action_space = gymnasium.spaces.MultiDiscrete([2])
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def reset(self, *, seed=None, options=None):
        obs, info = self.env.reset(seed=seed[0])
        self.env.count = 3
        return obs[None], info

    def step(self, actions):
        obs, *others, info = self.env.step(actions[0])
        return obs[None], *([value] for value in others), info


def test_what_gymnasium_takes_is_taken(recwarn: pytest.WarningsRecorder) -> None:
    """Lists, other number types, arrays of one flag, and numbers beyond the bounds of a Box."""

    class Loose(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)
        returned = (
            ([3.0, 4], 1, 0, 0),
            (np.array([3.0, 4.0]), np.float32(1), np.bool_(False), np.array([False])),
            (np.array([3, 4]), np.array(1.0), False, np.array(False)),
            (np.array([3.0, 4], dtype=object), True, np.array([0]), 0.0),
        )

        def reset(self, *, seed=None, options=None):
            self.count = 0
            return [3.0, 4.0], {}

        def step(self, action):
            self.count += 1
            return *self.returned[self.count - 1], {}

    gymnasium.register("OddLoose-v0", Loose)
    envs = make_envs("OddLoose-v0", 1)
    assert envs.reset([1]).tolist() == [[3.0, 4.0]]
    for _ in Loose.returned:
        transition = envs.step(torch.zeros(1, dtype=torch.int64))
        assert transition.obs.tolist() == [[3.0, 4.0]]
        assert transition.reward.tolist() == [1.0]
        assert not (transition.terminated | transition.truncated).any()


@pytest.mark.parametrize("observation", ["empty Box", "empty matrix", "empty Dict"])
def test_observations_without_a_number_are_refused(observation: str, tmp_path: Path) -> None:
    message = error_of(odd_config("Shows", kwargs={"observation": observation}), tmp_path, 2)
    assert "environment 'helpers.odd_envs:OddShows-v0': the observation space " in message
    assert "holds no number; networks need one" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("action", ["empty Box", "empty matrix"])
def test_actions_without_a_number_are_refused(action: str, tmp_path: Path) -> None:
    assert "holds no number; there is nothing to learn" in error_of(
        odd_config("Shows", kwargs={"action": action}), tmp_path, 2
    )


@pytest.mark.parametrize("observation", ["pixels HWC", "pixels CHW", "gray", "scaled", "pixels in a Dict"])
def test_images_are_refused(observation: str, tmp_path: Path) -> None:
    message = error_of(odd_config("Shows", kwargs={"observation": observation}), tmp_path, 2)
    place = "the observation['camera']" if "Dict" in observation else "the observation"
    assert f"OddShows-v0': {place} is an image of shape (" in message
    assert "a multilayer perceptron does not learn from its " in message
    assert ("FilterObservation" if "Dict" in observation else "policy.network=nature-cnn") in message
    assert not (tmp_path / "run").exists()


def test_an_image_of_gymnasium_is_refused() -> None:
    pytest.importorskip("Box2D")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = load_config("cartpole-ppo", {"env.id": "CarRacing-v3", "steps": 100})
        with pytest.raises(PgkitError, match=r"'CarRacing-v3': the observation is an image .*27,648"):
            train(config)


@pytest.mark.parametrize("observation", ["grid of cells", "matrix", "flattened pixels"])
def test_small_grids_matrices_and_vectors_are_no_images(observation: str) -> None:
    envs = make_envs(odd_id("Shows"), 1, kwargs={"observation": observation})
    assert envs.info.obs_dim == gymnasium.spaces.flatdim(SPACES[observation])
    assert envs.reset([1]).isfinite().all()
