"""Environments of other modules: the README's example, from the command line to resuming, and what is refused."""

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary
from helpers.command_line import pgkit as command_line
from helpers.compile_mode import set_compile_mode

import pgkit
from pgkit.envs import EnvDefinition, Random, check_against_gymnasium, make_envs, register, registry, resolve_backend
from pgkit.errors import PgkitError
from pgkit.runs import own_code

PAGE = Path(__file__).parents[2] / "pgkit" / "envs" / "README.md"


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def point_mass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The README's module, which can be imported."""
    file = tmp_path / "point_mass.py"
    file.write_text(python_blocks()[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield file
    sys.modules.pop("point_mass", None)


class PointMassEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """The README's task, written for Gymnasium."""

    observation_space = Box(-np.inf, np.inf, (4,), np.float32)
    action_space = Box(-1.0, 1.0, (2,))

    def __init__(self, lost_at: float = 3.0) -> None:
        self.lost_at = lost_at
        self.steps = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position = np.array([self.np_random.uniform(-1.0, 1.0), self.np_random.uniform(-1.0, 1.0)])
        self.velocity = np.zeros(2)
        self.steps = 0
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        action = action.astype(np.float64)
        self.velocity = self.velocity + (action - 0.2 * self.velocity) * 0.1
        self.position = self.position + self.velocity * 0.1
        distance = np.sqrt((self.position**2).sum())
        self.steps += 1
        is_lost = bool(distance > self.lost_at)
        reward = -distance - 0.01 * (action**2).sum() - 10.0 * is_lost
        return self.observation(), reward, is_lost, self.steps >= 100, {}

    def observation(self) -> np.ndarray:
        return np.concatenate([self.position, self.velocity]).astype(np.float32)


def reference(lost_at: float = 3.0) -> Any:
    return lambda: gymnasium.wrappers.TimeLimit(PointMassEnv(lost_at), 100)


def test_the_example_is_a_page_long() -> None:
    assert 30 <= len(python_blocks()[0].splitlines()) <= 50


@pytest.mark.parametrize("mode", ["graphs", "off"])
def test_the_example_is_the_task_that_it_says(point_mass: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_compile_mode(monkeypatch, mode)
    create = reference()
    with pytest.raises(PgkitError, match="max_episode_steps is 100, the reference has None"):
        check_against_gymnasium("point_mass:PointMass-v0", create)
    gymnasium.register("PointMassReference-v0", PointMassEnv, max_episode_steps=100)
    try:
        arguments = {"seeds": [0, 7, 2**63], "steps": 350}
        assert check_against_gymnasium("point_mass:PointMass-v0", "PointMassReference-v0", **arguments) >= 9
        other = {"reference_kwargs": {"lost_at": 0.9}}
        with pytest.raises(PgkitError) as caught:
            check_against_gymnasium("point_mass:PointMass-v0", "PointMassReference-v0", **arguments, **other)
    finally:
        del gymnasium.registry["PointMassReference-v0"]
    line = r"environment 'point_mass:PointMass-v0' differs from the reference at step \d+ of episode \d+ of seed \d+: "
    assert re.fullmatch(line + "terminated is False, expected True", str(caught.value))


def test_other_examples_of_the_page_run() -> None:
    names: dict[str, Any] = {}
    for block in python_blocks()[1:]:
        exec(block, names)
    assert names["episodes"] == 8


def test_differences_of_numbers_are_named() -> None:
    line = (
        r"environment 'Pendulum-v1' differs from the reference at step 1 of episode 1 of seed 3: "
        r"obs\[0\] is \S+, expected \S+"
    )
    with pytest.raises(PgkitError, match=line):
        check_against_gymnasium("Pendulum-v1", "Pendulum-v1", kwargs={"g": 5.0}, reference_kwargs={}, seeds=[3])
    with pytest.raises(PgkitError, match="obs_dim is 4, the reference has 2"):
        check_against_gymnasium("CartPole-v1", "MountainCar-v0")


@pytest.mark.process
def test_the_example_trains_resumes_and_evaluates(point_mass: Path) -> None:
    """From the command line, by TOML and by Python; the stopped run ends with the bits of the one that went on."""
    words = "cartpole-actor-critic env.id=point_mass:PointMass-v0 env.kwargs.friction=0.5 seeds=2"
    words += " optimizer.schedule.lr=constant"
    done = command_line(f"train {words} steps=4_000 --out whole")
    assert (done.exit_code, done.stderr) == (0, "")
    assert command_line(f"train {words} steps=2_048 --out part").exit_code == 0
    assert command_line("resume part --steps 4_000").exit_code == 0
    whole, part = (pgkit.evaluate_run(point_mass.parent / name, episodes=3).table for name in ("whole", "part"))
    assert whole == part
    config = pgkit.load_config("cartpole-actor-critic", [*words.split()[1:], "steps=4_000"])
    digests = own_code.describe(pgkit.expand_seeds(config))
    assert list(digests) == ["code of point_mass"]
    assert "backend: pgkit" in command_line("list envs point_mass:PointMass-v0").stdout


def test_a_registered_name_without_its_module_has_a_digest(point_mass: Path) -> None:
    make_envs("point_mass:PointMass-v0", 1)
    config = pgkit.load_config("cartpole-actor-critic", ["env.id=PointMass-v0"])
    assert list(own_code.describe([config])) == ["code of point_mass"]


def definition(**changes: Any) -> EnvDefinition:
    """A walk on a line to which the parts are added that a test is about."""
    parts: dict[str, Any] = {
        "obs_dim": 1,
        "action_space": Discrete(2),
        "max_episode_steps": 10,
        "reset": lambda random: [random.uniform(-1.0, 1.0)],
        "step": lambda state, action: ([state[0] + action.to(torch.float64)], 1.0, state[0] > 3.0),
        "observe": lambda state: state,
    }
    return EnvDefinition(**parts | changes)


MISTAKES = {
    "step() cannot be compiled: TypeError: a step cannot branch on the value of an element; use torch.where "
    "(test_own_definitions.py, line ": {"step": lambda state, action: (state, 1.0 if state[0] > 0.0 else 0.0, False)},
    "TypeError: erfinv is not among the compiled functions of torch": {
        "step": lambda state, action: ([torch.erfinv(state[0])], 1.0, False)
    },
    "reset() cannot be compiled: TypeError: an element has no value while its code is compiled": {
        "reset": lambda random: [float(random.uniform())]
    },
    "functions of math cannot take it; use those of torch, such as torch.sin": {
        "observe": lambda state: [math.sin(state[0])]
    },
    "an operation between float64 and int64; convert one of them, such as x.to(torch.float64)": {
        "step": lambda state, action: ([state[0] + action], 1.0, False)
    },
    "an operation between int64 and 0.5; convert with x.to(torch.float64)": {
        "step": lambda state, action: (state, action * 0.5, False)
    },
    "step() must return (state, reward, terminated), got a tuple of 2": {"step": lambda state, action: (state, 1.0)},
    "step() must return (state, reward, terminated), got a list of 1": {"step": lambda state, action: state},
    "step() returns a state of 2 numbers, reset() one of 1": {
        "step": lambda state, action: ([state[0], state[0]], 1.0, False)
    },
    "step() returns state[0] as float32, reset() as float64": {
        "step": lambda state, action: ([state[0].to(torch.float32)], 1.0, False)
    },
    "step(): terminated must be bool, got float64": {"step": lambda state, action: (state, 1.0, state[0])},
    "step(): terminated must be bool, got float": {"step": lambda state, action: (state, 1.0, 1.0)},
    "step(): reward must be float64, float32, int64 or bool, got str": {
        "step": lambda state, action: (state, "much", False)
    },
    "reset() must return a list of numbers as state, got a TracedScalar": {"reset": lambda random: random.uniform()},
    "reset(): state[0] must be float64, float32, int64 or bool, got ndarray": {"reset": lambda random: [np.zeros(3)]},
    "observe() returns 2 features, obs_dim is 1": {"observe": lambda state: [state[0], 0.0]},
    "actions must be Discrete or Box, not MultiBinary": {"action_space": MultiBinary(2)},
    "a Box action space of int64 is not supported: use floats": {"action_space": Box(0, 3, (1,), np.int64)},
    "reset() cannot be compiled: ValueError: integers: expected low < high": {
        "reset": lambda random: [random.integers(3, 3).to(torch.float64)]
    },
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_line(message: str) -> None:
    register("Walk-v0", lambda: definition(**MISTAKES[message]))
    with pytest.raises(PgkitError) as caught:
        make_envs("Walk-v0", 3)
    assert message in str(caught.value)
    assert str(caught.value).startswith("environment 'Walk-v0': ")
    assert "\n" not in str(caught.value)


def test_mistakes_on_tensors_only_are_found_before_a_gpu_is() -> None:
    """A number of Python, where torch needs a tensor, would be found on the GPU only."""
    register("Walk-v0", lambda: definition(step=lambda state, action: ([torch.maximum(state[0], 0.0)], 1.0, False)))  # type: ignore[arg-type]
    with pytest.raises(PgkitError, match=r"step\(\) cannot be .*maximum"):
        make_envs("Walk-v0", 3)


def test_names() -> None:
    register("Walk-v0", definition_of_a_walk)
    register("Walk-v0", definition_of_a_walk)  # a module that is imported again
    assert resolve_backend("Walk-v0", {}, "auto") == "pgkit"
    with pytest.raises(PgkitError, match="definition_of_a_walk has registered one of that name already"):
        register("Walk-v0", definition)
    with pytest.raises(PgkitError, match="'CartPole-v1': pgkit has one of that name already"):
        register("CartPole-v1", definition_of_a_walk)
    with pytest.raises(PgkitError, match="a name with ':' means a module to import"):
        register("walks:Walk-v0", definition_of_a_walk)
    with pytest.raises(PgkitError, match="every argument needs a default, 'length' has none"):
        register("Corridor-v0", lambda length: definition())
    with pytest.raises(PgkitError, match=r"env\.kwargs speed: pgkit's 'Walk-v0' takes limit"):
        make_envs("Walk-v0", 1, kwargs={"speed": 1})
    with pytest.raises(PgkitError, match=r"'Walk-v0' cannot be created with {'limit': -1}: ValueError: too low"):
        make_envs("Walk-v0", 1, kwargs={"limit": -1})
    register("Nothing-v0", lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(PgkitError, match="'Nothing-v0': expected an EnvDefinition, got a NoneType"):
        make_envs("Nothing-v0", 1)


def definition_of_a_walk(limit: int = 10) -> EnvDefinition:
    if limit < 0:
        raise ValueError("too low")
    return definition(max_episode_steps=limit)


class DiceEnv(gymnasium.Env[np.ndarray, int]):
    """Integers and doubles in turn, in resets and in steps."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(2, start=5)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.total = int(self.np_random.integers(1, 7))
        self.noise = self.np_random.uniform(-1.0, 1.0)
        return self.observation(0), {}

    def step(self, action: int) -> Any:
        self.total += int(self.np_random.integers(1, 7)) * (action - 5)
        self.noise = self.np_random.uniform(0.0, 2.0)
        return self.observation(action), self.noise, self.total > 20, False, {}

    def observation(self, action: int) -> np.ndarray:
        return np.array([self.total, self.noise, action], np.float32)


def dice() -> EnvDefinition:
    def reset(random: Random) -> list[Any]:
        return [random.integers(1, 7), random.uniform(-1.0, 1.0), 0]

    def step(state: Any, action: Any, random: Random) -> tuple[list[Any], Any, Any]:
        total = state[0] + random.integers(1, 7) * (action - 5)
        noise = random.uniform(0.0, 2.0)
        return [total, noise, action], noise, total > 20

    return EnvDefinition(
        obs_dim=3,
        action_space=DiceEnv.action_space,
        max_episode_steps=None,
        reset=reset,
        step=step,
        observe=list,
        has_random_steps=True,
    )


@pytest.mark.parametrize("mode", ["graphs", "off"])
def test_integers_random_steps_and_actions_that_begin_elsewhere(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Gymnasium's order: a step that is ignored, because a reset follows an episode, has drawn nothing."""
    set_compile_mode(monkeypatch, mode)
    register("Dice-v0", dice)
    gymnasium.register("DiceReference-v0", DiceEnv)
    try:
        assert check_against_gymnasium("Dice-v0", "DiceReference-v0", seeds=range(11), steps=300, tolerance=0) > 100
    finally:
        del gymnasium.registry["DiceReference-v0"]


def test_dice_are_saved_in_the_middle() -> None:
    """With the half of a draw that is left for the next integer."""
    register("Dice-v0", dice)
    envs = make_envs("Dice-v0", 5)
    envs.reset(range(5))
    actions = torch.randint(2, (40, 5), generator=torch.Generator().manual_seed(0))
    for action in actions[:17]:
        envs.step(action)
    saved = envs.state()
    assert saved is not None
    again = make_envs("Dice-v0", 5)
    again.restore({name: tensor.clone() for name, tensor in saved.items()})
    for action in actions[17:]:
        assert torch.equal(envs.step(action).obs, again.step(action).obs)
    with pytest.raises(PgkitError, match="'CartPole-v1': saved with another state than this version of it has"):
        make_envs("CartPole-v1", 5).restore(saved)


class FarEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Shows its action, one component of which is far from the unit Gaussian."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(np.array([100.0, -1.0]), np.array([200.0, 1.0]), dtype=np.float64)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        return action.astype(np.float32), 0.0, False, False, {}


def test_far_actions_are_rescaled_as_gymnasiums() -> None:
    def far() -> EnvDefinition:
        return EnvDefinition(
            obs_dim=2,
            action_space=FarEnv.action_space,
            max_episode_steps=None,
            reset=lambda random: [0.0, 0.0],
            step=lambda state, action: (action, 0, False),
            observe=list,
        )

    register("Far-v0", far)
    gymnasium.register("FarReference-v0", FarEnv)
    try:
        for rescale in (True, False):
            arguments: dict[str, Any] = {"rescale_actions": rescale}
            mine, true = (make_envs(name, 6, **arguments) for name in ("Far-v0", "FarReference-v0"))
            assert mine.info.action_space == true.info.action_space
            mine.reset(range(6))
            true.reset(range(6))
            action = torch.tensor(
                [[-1.5, 0.3], [0.25, -3.0], [1.0, 1.0], [150.0, math.nan], [math.nan, 0.0], [0.1, 0.2]]
            )
            assert torch.equal(mine.step(action).obs, true.step(action).obs)
    finally:
        del gymnasium.registry["FarReference-v0"]
