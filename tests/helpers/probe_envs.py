"""Tiny deterministic environments whose every number can be written down by hand.

Importing this module registers them, so ``make_envs("helpers.probe_envs:ProbeCounting-v0", ...)`` finds them.
"""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding

SPACES = {
    "box": spaces.Box(-1.0, 2.0, (2, 3)),
    "box64": spaces.Box(np.array([-1.0, -3.0]), np.array([1.0, 5.0]), dtype=np.float64),
    "integers": spaces.Box(0, 255, (2,), dtype=np.uint8),
    "discrete": spaces.Discrete(4),
    "shifted": spaces.Discrete(4, start=-2),
    "multi": spaces.MultiDiscrete([3, 2]),
    "multi-shifted": spaces.MultiDiscrete([3, 2], start=[10, -1]),
    "grid": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "binary": spaces.MultiBinary(3),
    "dict": spaces.Dict({"b": spaces.Box(-1.0, 1.0, (2,)), "a": spaces.Discrete(3)}),
    "tuple": spaces.Tuple([spaces.MultiBinary(2), spaces.Dict({"x": spaces.MultiDiscrete([2, 3])})]),
    "text": spaces.Text(5),
    "nested-text": spaces.Dict({"x": spaces.Text(5)}),
    "graph": spaces.Graph(spaces.Box(-1.0, 1.0, (2,)), None),
    "sequence": spaces.Tuple([spaces.Sequence(spaces.Discrete(2))]),
}


class Counting(gymnasium.Env):
    """Counts. With s = seed % 10 and episode e = 0, 1, ... since the last seeding:

    observation ``(s, e, step)``, reward ``100 s + 10 e + step``; the episode has ``2 + (s + e) % 3`` steps, and ends
    by truncation if ``s + e`` is odd, else by termination. Observations come as an array, or as a dict or tuple.
    """

    def __init__(self, form="array", crash_at=None):
        numbers = spaces.Box(0, 100, (3,))
        self.form, self.crash_at = form, crash_at
        self.observation_space = {
            "array": numbers,
            "dict": spaces.Dict({"numbers": numbers}),
            "tuple": spaces.Tuple([numbers]),
        }[form]
        self.action_space = spaces.Discrete(2)
        self.base, self.episode, self.count = 0, -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.base, self.episode = seed % 10, -1
        self.episode += 1
        self.count = 0
        return self._observe(), {}

    def step(self, action):
        self.count += 1
        if self.count == self.crash_at:
            raise ArithmeticError("crashed on purpose")
        number = self.base + self.episode
        over = self.count == 2 + number % 3
        reward = 100 * self.base + 10 * self.episode + self.count
        return self._observe(), float(reward), over and number % 2 == 0, over and number % 2 == 1, {}

    def _observe(self):
        numbers = np.array([self.base, self.episode, self.count], dtype=np.float32)
        return {"array": numbers, "dict": {"numbers": numbers}, "tuple": (numbers,)}[self.form]


class Echo(gymnasium.Env):
    """Shows what reached it: the observation is a sample of its space, ``last_action`` the very action it got."""

    def __init__(self, observation="box", action="discrete"):
        self.observation_space = SPACES[observation]
        self.action_space = SPACES[action]
        self.shown = []
        self.last_action = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(int(seed))
        return self._show(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.last_action = action
        return self._show(), 0.0, False, False, {}

    def _show(self):
        self.shown.append(self.observation_space.sample())
        return self.shown[-1]


class Noise(gymnasium.Env):
    """Observations and the lengths of episodes are drawn from the environment's generator."""

    observation_space = spaces.Box(0.0, 1.0, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        observation = self._observe() * (1 + action) / 2
        return observation, float(observation[0]), bool(self.np_random.uniform() < 0.2), False, {}

    def _observe(self):
        return self.np_random.uniform(size=2).astype(np.float32)


class OneSeed(gymnasium.vector.VectorEnv):
    """A vector environment with one generator for all, whose ``reset`` takes a single seed."""

    def __init__(self, num_envs=2):
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0.0, 1.0, (1,))
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(0.0, 1.0, (num_envs, 1))
        self.action_space = spaces.MultiDiscrete([2] * num_envs)
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def reset(self, *, seed=None, options=None):
        self._np_random, _ = seeding.np_random(seed)
        return self.np_random.uniform(size=(self.num_envs, 1)), {}


for cls in (Counting, Echo, Noise):
    gymnasium.register(f"Probe{cls.__name__}-v0", cls)
gymnasium.register("ProbeLimited-v0", Noise, max_episode_steps=4)
gymnasium.register("ProbeMissing-v0", "no_such_module:Env")
