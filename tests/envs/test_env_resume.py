"""Environments that are brought back in a new instance go on as if nothing had happened, or say that they cannot."""

import re

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers.env_streams import CASES, SEEDS, actions_for, make, numbers

from pgkit.envs import make_envs
from pgkit.envs.make import resume_problem
from pgkit.envs.replay import NotReproduced, replay_problem
from pgkit.envs.sync_envs import SyncEnvs
from pgkit.errors import PgkitError
from pgkit.runs.checkpoint import load, save

PGKIT = ["cartpole", "acrobot", "mountain-car", "mountain-car-continuous", "pendulum"]
EXACT = [*PGKIT, "probe", pytest.param("probe-async", marks=pytest.mark.process), "lunarlander"]
SPACES = {
    "discrete": spaces.Discrete(3, start=-1),
    "box": spaces.Box(-1.0, 1.0, (2,)),
    "multi": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "binary": spaces.MultiBinary(3),
}


class Walk(gymnasium.Env[np.ndarray, np.ndarray]):
    """A random walk of five to nine steps that the actions push. ``source``: what else its numbers depend on."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)

    def __init__(self, action: str = "discrete", source: str = "np_random", bits: str = "PCG64") -> None:
        self.action_space, self.source, self.bits = SPACES[action], source, bits
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        self.earlier = self.np_random if self.source == "earlier generator" else None
        super().reset(seed=seed)
        if seed is not None:
            self.np_random = np.random.Generator(getattr(np.random, self.bits)(seed))
        self.episodes += 1
        self.left, self.place = int(self.draw().integers(5, 10)), self.draw().normal(size=2)
        return self.obs(), {}

    def step(self, action):
        self.left -= 1
        self.place = self.place + self.draw().normal(size=2) + np.sum(action)
        return self.obs(), float(self.place[0]), self.left == 0, False, {}

    def draw(self):
        return np.random.default_rng() if self.source == "system" else self.earlier or self.np_random

    def obs(self):
        offset = self.episodes if self.source == "memory" else 0
        return np.array([self.place[0], self.place[1] + offset], dtype=np.float32)


def walks(count=3, **kwargs):
    return SyncEnvs(lambda: Walk(**kwargs), count, "Walk", torch.device("cpu"))


def check_goes_on(tmp_path, first, second, seeds, actions, half, index=None):
    """Steps of the first, saved in the middle, equal those of the second, which goes on from a file."""
    first.reset(seeds)
    for action in actions[:half]:
        first.step(action)
    save(tmp_path / "envs.pt", first.state(index))
    rows = slice(None) if index is None else index
    second.reset([9] * len(seeds))
    second.restore(load(tmp_path / "envs.pt"), index)
    for action in actions[half:]:
        expected = numbers(first.step(action[rows], index))
        assert torch.equal(numbers(second.step(action[rows], index)), expected)
    first.close()
    second.close()


@pytest.mark.parametrize("half", [0, 61, 90])
@pytest.mark.parametrize("case", EXACT)
def test_a_new_instance_goes_on(tmp_path, case, half):
    """Half-run episodes, and at 61 steps of the landers episodes that are over."""
    check_goes_on(tmp_path, *(make(CASES[case], 5) for _ in range(2)), SEEDS, actions_for(SEEDS), half)


@pytest.mark.parametrize("case", EXACT)
def test_some_of_them_go_on(tmp_path, case):
    envs = [make(CASES[case], 5) for _ in range(2)]
    check_goes_on(tmp_path, *envs, SEEDS, actions_for(SEEDS), 70, torch.tensor([4, 1, 2]))


@pytest.mark.parametrize("action", list(SPACES))
def test_actions_of_every_space_are_repeated(tmp_path, action):
    probe = walks(action=action)
    rows = [[probe.info.action_space.sample() for _ in range(3)] for _ in range(40)]
    actions = torch.tensor(np.array(rows) + 1 if action == "discrete" else np.array(rows))
    actions = actions if action == "discrete" else actions.flatten(2)
    check_goes_on(tmp_path, probe, walks(action=action), [1, 2, 3], actions, 17)


@pytest.mark.parametrize("bits", ["MT19937", "Philox", "SFC64"])
def test_other_generators_are_saved(tmp_path, bits):
    actions = torch.zeros(40, 3, dtype=torch.int64)
    check_goes_on(tmp_path, walks(bits=bits), walks(bits=bits), [1, 2, 3], actions, 23)


def test_the_history_begins_with_the_episode():
    envs = walks(1)
    envs.reset([5])
    longest = 0
    for _ in range(100):
        envs.step(torch.zeros(1, dtype=torch.int64))
        longest = max(longest, len(envs.histories([0])[0].actions))
    assert 5 <= longest <= 9


@pytest.mark.parametrize("case", EXACT)
def test_exact_ones_say_so(case):
    assert resume_problem(**{"kwargs": {}} | CASES[case]) is None


@pytest.mark.parametrize("source", ["memory", "system", "earlier generator"])
def test_environments_that_cannot_be_replayed_are_detected_beforehand(source):
    problem = replay_problem(lambda: Walk(source=source), "Walk")
    assert problem.startswith("environment 'Walk' did not come back as it was")


def test_a_replay_that_ends_elsewhere_is_an_error():
    first, second = walks(2), walks(2)
    first.reset([1, 2])
    for _ in range(3):
        first.step(torch.ones(2, dtype=torch.int64))
    for name in ("obs", "total", "over"):
        state = first.state()
        state[name] = (
            ~state[name] if name == "over" else torch.nextafter(state[name], torch.tensor(1e3).to(state[name]))
        )
        with pytest.raises(NotReproduced, match=r"'Walk' did not come back as it was: .* the 3 actions"):
            second.restore(state)
    second.restore(first.state())


def test_envpool_says_that_it_cannot():
    pytest.importorskip("envpool")
    envs = make(CASES["lunarlander-envpool"], 2)
    reason = "EnvPool cannot save an environment (LunarLander-v3); env.backend=gymnasium can"
    assert resume_problem("LunarLander-v3", kwargs={}, backend="envpool") == reason
    with pytest.raises(PgkitError, match=re.escape(reason)):
        envs.restore({})
    assert envs.state() is None
    envs.close()


def test_a_vector_environment_says_that_it_cannot():
    envs = make_envs("CartPole-v1", 2, backend="gymnasium", vectorization="native")
    assert envs.state() is None
    with pytest.raises(PgkitError, match="cannot be saved"):
        envs.restore({})
    envs.close()
