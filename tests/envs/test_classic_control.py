"""pgkit's classic control is Gymnasium's, state by state, compiled and on tensors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.parameters import few_by_default
from torch import Tensor

from pgkit.envs import make_envs

COUNT = 10
STEPS = 1100  # of every environment: longer than any time limit

FIRST_NUMBER = 3  # of the environment's own state, behind the generator's and the steps of the episode


def discrete(choices: int) -> Any:
    return lambda obs, random: torch.randint(choices, (len(obs),), generator=random)


def swinging(obs: Tensor, random: torch.Generator) -> Tensor:
    """Along with the velocity most of the time, so that the car arrives now and then."""
    along = torch.where(obs[:, 1] > 0.0, 2, 0)
    return torch.where(torch.rand(len(obs), generator=random) < 0.9, along, 1)


def pushing(obs: Tensor, random: torch.Generator) -> Tensor:
    """Within the bounds and beyond, with the velocity most of the time."""
    return (torch.sign(obs[:, -1:]) + torch.randn(len(obs), 1, generator=random) * 0.6) * 1.5


CASES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "CartPole": ("CartPole-v1", {}, discrete(2)),
    "CartPole, Sutton and Barto's reward": ("CartPole-v1", {"sutton_barto_reward": True}, discrete(2)),
    "CartPole-v0": ("CartPole-v0", {}, lambda obs, random: (obs[:, 2] + obs[:, 3] > 0).long()),
    "Acrobot": ("Acrobot-v1", {}, discrete(3)),
    "Acrobot, swinging up": ("Acrobot-v1", {}, lambda obs, random: torch.where(obs[:, 5] > 0, 2, 0)),
    "MountainCar": ("MountainCar-v0", {}, swinging),
    "MountainCar, fast at the goal": ("MountainCar-v0", {"goal_velocity": 0.03}, swinging),
    "MountainCarContinuous": ("MountainCarContinuous-v0", {}, pushing),
    "MountainCarContinuous, fast": ("MountainCarContinuous-v0", {"goal_velocity": 0.02}, pushing),
    "Pendulum": ("Pendulum-v1", {}, pushing),
    "Pendulum on the Moon": ("Pendulum-v1", {"g": 1.62}, pushing),
}


@pytest.fixture(params=few_by_default(["compiled", "tensors"], "compiled"))
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tensors":
        set_compile_mode(monkeypatch, "off")
    return str(request.param)


def state_of(envs: Any) -> np.ndarray:
    """The environment's own state ``(K, S)``, as float64."""
    columns = envs._table.columns()[FIRST_NUMBER:-1]
    return torch.stack([column.double() for column in columns], 1).numpy()


def theirs_of(envs: Any) -> np.ndarray:
    """The same of Gymnasium's environments."""
    return np.array([np.asarray(env.unwrapped.state, dtype=np.float64) for env in envs._envs])


def comparable(name: str, mine: np.ndarray) -> np.ndarray:
    """The numbers that Gymnasium has, too."""
    if not name.startswith("MountainCarContinuous"):
        return mine
    start, position, velocity, is_start = mine.T
    return np.stack([np.where(is_start == 1.0, start, position), velocity], 1)


def put_states(name: str, envs: Any, states: np.ndarray, where: np.ndarray) -> None:
    """Put environments of Gymnasium's to pgkit's states, so that differences of one step do not grow."""
    dtype = np.float32 if name.startswith("MountainCarContinuous") else np.float64
    for env, state, put in zip(envs._envs, states, where, strict=True):
        if put:
            env.unwrapped.state = state.astype(dtype)


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_gymnasiums(name: str, mode: str) -> None:
    """Starts and resets to the last bit, steps to 1e-12 from the same state; rewards, flags and time limits."""
    env_id, kwargs, choose = CASES[name]
    ours = make_envs(env_id, COUNT, kwargs=kwargs, backend="pgkit")
    theirs = make_envs(env_id, COUNT, kwargs=kwargs, backend="gymnasium")
    assert ours.info.max_episode_steps == theirs.info.max_episode_steps
    assert ours.info.action_space == theirs.info.action_space
    assert ours.info.obs_dim == theirs.info.obs_dim
    seeds = [0, 1, 2**31, 2**40 + 1, 2**63 + 11, 2**64 - 1, *range(100, 104)]
    obs = ours.reset(seeds)
    torch.testing.assert_close(obs, theirs.reset(seeds), rtol=2e-7, atol=1e-9)
    assert np.array_equal(comparable(name, state_of(ours)), theirs_of(theirs))
    random = torch.Generator().manual_seed(0)
    ends = np.zeros(3, dtype=int)
    for _ in range(STEPS):
        action = choose(obs, random)
        mine = ours.step(action)
        true = theirs.step(action)
        states = comparable(name, state_of(ours))
        expected = theirs_of(theirs)
        np.testing.assert_allclose(states, expected, rtol=1e-12, atol=1e-12)
        is_reset = ~true.valid.numpy()
        assert np.array_equal(states[is_reset], expected[is_reset])
        torch.testing.assert_close(mine.obs, true.obs, rtol=2e-7, atol=1e-7)
        torch.testing.assert_close(mine.reward, true.reward, rtol=2e-7, atol=1e-12)
        for flag in ("terminated", "truncated", "valid"):
            assert torch.equal(getattr(mine, flag), getattr(true, flag))
        put_states(name, theirs, states, ~is_reset)
        ends += [true.terminated.sum(), true.truncated.sum(), is_reset.sum()]
        obs = mine.obs
    assert ends[2] >= COUNT
    assert ends.max() > 0


def test_the_cases_end_in_both_ways() -> None:
    """Cars arrive, links reach their height, and time limits cut the rest."""
    terminated = {}
    for name in ("Acrobot, swinging up", "MountainCar", "MountainCarContinuous"):
        env_id, kwargs, choose = CASES[name]
        envs = make_envs(env_id, 40, kwargs=kwargs)
        obs = envs.reset(range(40))
        random = torch.Generator().manual_seed(0)
        count = 0
        for _ in range(STEPS):
            step = envs.step(choose(obs, random))
            obs = step.obs
            count += int(step.terminated.sum())
        terminated[name] = count
    assert min(terminated.values()) >= 40, terminated


def test_pendulum_turns_many_times(mode: str) -> None:
    """Its angle is not wrapped, its cost is that of the wrapped one."""
    ours = make_envs("Pendulum-v1", 4, backend="pgkit")
    theirs = make_envs("Pendulum-v1", 4, backend="gymnasium")
    ours.reset(range(4))
    theirs.reset(range(4))
    angles = torch.tensor([50.0, -50.0, 3 * math.pi, -3 * math.pi], dtype=torch.float64)
    state = ours.state()
    assert state is not None
    ours.restore(state | {"float64": torch.stack([angles, torch.ones(4, dtype=torch.float64)], 1)})
    for env, angle in zip(theirs._envs, angles.tolist(), strict=True):  # type: ignore[attr-defined]
        env.unwrapped.state = np.array([angle, 1.0])
    action = torch.tensor([[0.5], [math.nan], [math.inf], [-9.0]])
    mine, true = ours.step(action), theirs.step(action)
    torch.testing.assert_close(mine.reward, true.reward, rtol=1e-7, atol=0.0)
    torch.testing.assert_close(mine.obs, true.obs, rtol=2e-7, atol=1e-7)


def test_tensors_and_compiled_code_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (env_id, kwargs, choose) in CASES.items():
        compiled = make_envs(env_id, 9, kwargs=kwargs)
        first = compiled.reset(range(9))
        action = choose(first, torch.Generator().manual_seed(1))
        stepped = compiled.step(action)
        with monkeypatch.context() as patch:
            set_compile_mode(patch, "off")
            on_tensors = make_envs(env_id, 9, kwargs=kwargs)
            torch.testing.assert_close(on_tensors.reset(range(9)), first, rtol=2e-7, atol=1e-9, msg=name)
            torch.testing.assert_close(on_tensors.step(action).obs, stepped.obs, rtol=2e-7, atol=1e-7, msg=name)


def test_all_tensors_are_on_the_device() -> None:
    """Meta tensors hold no data: a value that Python reads, or a tensor left on the CPU, would raise."""
    for env_id, kwargs, _ in CASES.values():
        envs = make_envs(env_id, 5, kwargs=kwargs, backend="pgkit", device="meta")
        shape = envs.info.action_space.shape
        assert envs.reset(range(5)).device.type == "meta"
        result = envs.step(torch.zeros(5, *(shape or ()), device="meta"))
        assert all(field.device.type == "meta" for field in result[:5])
