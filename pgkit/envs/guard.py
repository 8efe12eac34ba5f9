"""One environment whose first results are checked in full, and which does not share global generators."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pgkit.envs.errors import MalformedData
from pgkit.envs.generators import EnvGenerators
from pgkit.envs.observations import ObsFlattener, check_flags, check_numbers, check_scalar, shown
from pgkit.envs.seeding import reset_with_seed

if TYPE_CHECKING:
    from gymnasium import Env, Space

CHECKED_STEPS = 100
"""Steps of each environment whose results are checked in full. An environment that errs does so early."""

StepResult = Any  # (observation, reward, terminated, truncated, info)


class GuardedEnv:
    """An environment that refuses malformed results, at no cost once it has passed the checks for a while.

    Args:
        env: the environment.
        flatten: flattens an observation of it, and checks its shape.
        generators: the global generators as the environment sees them.
        obs_space: what of the environment's observation space is flattened.

    Attributes:
        env: the environment.
        step: takes an action, returns what the environment's ``step`` returns; that method itself after the checks,
            unless the environment draws from global generators.
    """

    def __init__(
        self, env: "Env[Any, Any]", flatten: ObsFlattener, generators: EnvGenerators, obs_space: "Space[Any]"
    ) -> None:
        self.env = env
        self.step: Callable[[Any], StepResult] = self._checked_step
        self._flatten = flatten
        self._generators = generators
        self._obs_space = obs_space
        self._unchecked_after = CHECKED_STEPS

    def reset(self, seed: int | None = None) -> tuple[Any, Any]:
        """Reset the environment, with a seed if there is one; its observation and info.

        Raises:
            MalformedData: the environment returned something else than an observation and an info.
        """
        result: Any
        if seed is None:
            result = self._generators.call(self.env.reset)
        else:
            self._generators.seed(seed)
            result = self._generators.call(reset_with_seed, self.env, seed)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise MalformedData(f"the result is {shown(result)}, expected (observation, info)")
        if self._unchecked_after:
            self._check_obs(result[0])
        return result[0], result[1]

    def _checked_step(self, action: Any) -> StepResult:
        result: Any = self._isolated_step(action)
        if not isinstance(result, (tuple, list)) or len(result) != 5:
            count = f"{len(result)} values" if isinstance(result, (tuple, list)) else shown(result)
            raise MalformedData(f"the result is {count}, expected (observation, reward, terminated, truncated, info)")
        self._check_obs(result[0])
        check_scalar("the reward", result[1], "a number")
        check_flags(result[2], result[3])
        self._unchecked_after -= 1
        if not self._unchecked_after:
            self.step = self._isolated_step if self._generators.drawn else self.env.step
        return result

    def _isolated_step(self, action: Any) -> Any:
        return self._generators.call(self.env.step, action)

    def _check_obs(self, obs: Any) -> None:
        self._flatten(obs)
        check_numbers(self._obs_space, obs)
