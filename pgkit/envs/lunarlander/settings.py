"""The settings of the task, and the sizes of its actions and observations. Imports no LLVM."""

from typing import NamedTuple

ACTION_SIZE = 2  # of continuous actions
OBS_SIZE = 8


class Settings(NamedTuple):
    """The task's settings, as of :class:`pgkit.envs.lunarlander.LunarLander`."""

    continuous: bool = False
    enable_wind: bool = False
    gravity: float = -10.0
    wind_power: float = 15.0
    turbulence_power: float = 1.5
    max_episode_steps: int = 1000
    squash_actions: bool = False
