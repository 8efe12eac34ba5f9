"""The class :class:`LunarLander`, see the README of this package."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pgkit.compiler.signature import address_of, flatten
from pgkit.envs.action_inputs import action_input
from pgkit.envs.actions import check_action
from pgkit.envs.base import EnvInfo, EnvKernel, Transition, check_seeds
from pgkit.envs.lunarlander.layout import RECORD
from pgkit.envs.lunarlander.settings import ACTION_SIZE, OBS_SIZE, Settings
from pgkit.envs.pcg64 import EMPTY, seeded
from pgkit.envs.signature import EnvStepArguments
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

NAME = "LunarLander-v3"


class LunarLander:
    """K LunarLander environments, compiled, with "next_step" autoreset; see :class:`pgkit.envs.Environments`.

    The episodes are those of Gymnasium with the same seeds and actions, to the bit. They are computed on the CPU by
    compiled code, also with ``PGKIT_COMPILE=off``, which is about the learner.

    Args:
        num_envs: K.
        max_episode_steps: time limit in steps, after which an episode is truncated.
        device: of the tensors that go in and come out.
        rescale_actions: as in :func:`pgkit.envs.make_envs`; these bounds need no rescaling.
        squash_actions: as in :func:`pgkit.envs.make_envs`.
        continuous: actions are two numbers in [-1, 1], of the main engine and the side engines, instead of one of four.
        enable_wind: let wind and turbulence push the lander while no leg is on the ground.
        gravity: in (-12, 0).
        wind_power: force of the wind; recommended from 0 to 20.
        turbulence_power: torque of the turbulence; recommended from 0 to 2.

    Example:
        >>> import torch
        >>> from pgkit.envs.lunarlander import LunarLander
        >>> envs = LunarLander(2)
        >>> envs.reset([0, 1]).shape
        torch.Size([2, 8])
        >>> envs.step(torch.tensor([0, 2])).terminated
        tensor([False, False])
    """

    def __init__(
        self,
        num_envs: int,
        max_episode_steps: int = 1000,
        device: torch.device | str = "cpu",
        rescale_actions: bool = False,
        squash_actions: bool = False,
        *,
        continuous: bool = False,
        enable_wind: bool = False,
        gravity: float = -10.0,
        wind_power: float = 15.0,
        turbulence_power: float = 1.5,
    ) -> None:
        self._settings = Settings(
            continuous,
            enable_wind,
            float(gravity),
            float(wind_power),
            float(turbulence_power),
            max_episode_steps,
            squash_actions,
        )
        _check(self._settings)
        self._action, action_space = action_input(_action_space(continuous), NAME, rescale_actions, squash_actions)
        self.info = EnvInfo(
            name=NAME,
            num_envs=num_envs,
            obs_dim=OBS_SIZE,
            action_space=action_space,
            autoreset="next_step",
            max_episode_steps=max_episode_steps,
            backend="pgkit",
            vectorization="native",
            device=torch.device(device),
            can_step_subset=True,
        )
        self._records = torch.zeros(num_envs, RECORD.size, dtype=torch.uint8)
        self._was_reset = False

    @property
    def kernel(self) -> EnvKernel | None:
        """The compiled step, for compiled rollouts; None if the tensors are not on the CPU."""
        if self.info.device.type != "cpu":
            return None
        from pgkit.envs.lunarlander.step import step_definition

        return EnvKernel(step_definition(self._settings), [self._records])

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        generators = seeded(check_seeds(seeds, index, self.info.num_envs))
        records = torch.zeros(len(seeds), RECORD.size, dtype=torch.uint8)
        generator = RECORD.view(records, "generator")
        generator[:, :4] = torch.stack(list(generators), dim=1)
        generator[:, 4] = EMPTY
        RECORD.view(records, "is_over")[:] = True  # so the step below resets
        obs = _step(self._settings, records, self._action.zeros(len(seeds), torch.device("cpu"))).obs
        self.restore({"records": records}, index)
        return obs.to(self.info.device)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        count = self.info.num_envs if index is None else len(index)
        if not self._was_reset:
            raise PgkitError(f"environment {NAME!r}: call reset(seeds) before the first step")
        check_action(action, count, self._action.shape)
        action = self._action.checked(action)
        records = self._records if index is None else self._records[index.cpu()]
        transition = _step(self._settings, records, action)
        if index is not None:
            self._records[index.cpu()] = records
        device = self.info.device
        return transition if device.type == "cpu" else Transition(*(tensor.to(device) for tensor in transition[:5]))

    def state(self, index: Tensor | None = None) -> dict[str, Tensor]:
        return {"records": self._records.clone() if index is None else self._records[index.cpu()]}

    def restore(self, state: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        rows = slice(None) if index is None else index.cpu()
        self._records[rows] = state["records"]
        self._was_reset = True

    def close(self) -> None:
        pass


def _check(settings: Settings) -> None:
    """Raise PgkitError for what Gymnasium refuses; warn of what it warns of."""
    if not -12.0 < settings.gravity < 0.0:
        raise PgkitError(f"environment {NAME!r}: gravity has to be between -12 and 0, not {settings.gravity}")
    from gymnasium import logger

    for name, value, most in (
        ("wind_power", settings.wind_power, 20.0),
        ("turbulence_power", settings.turbulence_power, 2.0),
    ):
        if not 0.0 <= value <= most:
            logger.warn(f"{name} value is recommended to be between 0.0 and {most}, (current value: {value})")


def _step(settings: Settings, records: Tensor, action: Tensor) -> Transition:
    """Step all environments, whose records change in place."""
    count = len(records)
    obs = torch.empty(count, OBS_SIZE)
    reward = torch.empty(count)
    flags = torch.empty(3, count, dtype=torch.bool)
    terminated, truncated, valid = flags.unbind(0)
    arguments = EnvStepArguments(
        count=count,
        running=None,
        action=address_of(action),
        obs=address_of(obs),
        reward=address_of(reward),
        terminated=address_of(terminated),
        truncated=address_of(truncated),
        valid=address_of(valid),
        state=(address_of(records),),
    )
    _compiled_step(settings)(*flatten(arguments))
    return Transition(obs, reward, terminated, truncated, valid)


@lru_cache
def _compiled_step(settings: Settings) -> Callable[..., None]:
    from llvmlite import ir

    from pgkit.compiler.jit import compile_function
    from pgkit.envs.lunarlander.step import step_definition

    return compile_function(step_definition(settings)(ir.Module()))


def _action_space(continuous: bool) -> "Space[Any]":
    from gymnasium.spaces import Box, Discrete

    return Box(-1, +1, (ACTION_SIZE,), dtype=np.float32) if continuous else Discrete(4)
