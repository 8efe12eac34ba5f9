"""Action masks of Gymnasium environments: ``info["action_mask"]``, or an entry of that name in a Dict observation.

A mask says which choices of a Discrete action are allowed, 1 or 0 for each; of a MultiDiscrete action for the choices
of all components, one behind the other, or as a tuple of arrays, as Gymnasium's ``sample(mask=...)`` takes it. The
masks of environments become columns of their observations, see :mod:`pgkit.nn.action_masks`.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.envs.errors import MalformedData
from pgkit.envs.observations import is_numeric, shown

if TYPE_CHECKING:
    from gymnasium import Env, Space

KEY = "action_mask"


@dataclass(frozen=True)
class MaskSource:
    """Where the masks of an environment are, and what they are like.

    Attributes:
        choices: of each component of an action.
        in_obs: they are part of the observation, not of the info.
    """

    choices: tuple[int, ...]
    in_obs: bool

    @property
    def size(self) -> int:
        """M, the numbers of a mask."""
        return sum(self.choices)

    @property
    def place(self) -> str:
        """Where they are, in words."""
        return f"{'the observation' if self.in_obs else 'info'}[{KEY!r}]"

    def read(self, obs: Any, info: Any, over: Any = False) -> np.ndarray:
        """The mask that comes with an observation, bool ``(M,)``.

        Where the episode is over it may be missing or allow nothing, because nobody acts: then all is allowed.

        Raises:
            MalformedData: there is none, it is no mask, or it allows no choice of a component.
        """
        holder = obs if self.in_obs else info
        mask = holder.get(KEY) if isinstance(holder, Mapping) else None
        if mask is None and over:
            return np.ones(self.size, dtype=np.bool_)
        array = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple) else np.asarray(mask)
        if array.shape != (self.size,) or not is_numeric(array) or not ((array == 0) | (array == 1)).all():
            numbers = "missing" if mask is None else array.tolist() if array.ndim == 1 else shown(mask)
            raise MalformedData(f"{self.place} is {numbers}, expected {self.size} numbers, each 0 or 1")
        allowed = array.astype(np.bool_)
        for component, part in enumerate(np.split(allowed, np.cumsum(self.choices)[:-1])):
            if over and not part.any():
                part[:] = True
            elif not part.any():
                which = f" of component {component}" if len(self.choices) > 1 else ""
                raise MalformedData(f"{self.place} allows no action{which}, expected at least one 1: {array.tolist()}")
        return allowed

    def keep_to(self, space: "Space[Any]", action: Any, mask: np.ndarray) -> Any:
        """An action of the space, with the first allowed choice of each component in place of one that is excluded."""
        starts = np.asarray(getattr(space, "start", 0))
        chosen = (np.asarray(action) - starts).ravel()
        for component, allowed in enumerate(np.split(mask, np.cumsum(self.choices)[:-1])):
            if not allowed[chosen[component]]:
                chosen[component] = allowed.argmax()
        return (chosen.reshape(np.shape(action)) + starts).astype(space.dtype)[()]


def find_masks(env: "Env[Any, Any]", info: Any) -> MaskSource | None:
    """The source of an environment's masks, by the info of its first reset; None if it gives none.

    Raises:
        MalformedData: it does, and such actions are not masked.
    """
    return masks_in_obs(env.observation_space, env.action_space) or masks_in_info(info, env.action_space)


def masks_in_obs(obs_space: "Space[Any]", action_space: "Space[Any]") -> MaskSource | None:
    """The source of masks if the observation is a Dict with such an entry, else None.

    Raises:
        MalformedData: it is, and such actions are not masked.
    """
    from gymnasium import spaces

    has_masks = isinstance(obs_space, spaces.Dict) and KEY in obs_space.spaces
    return _source(action_space, True) if has_masks else None


def masks_in_info(info: Any, action_space: "Space[Any]") -> MaskSource | None:
    """The source of masks if the info of a first reset has one, else None; raises as :func:`masks_in_obs`."""
    return _source(action_space, False) if isinstance(info, Mapping) and KEY in info else None


def without_masks(obs_space: "Space[Any]") -> "Space[Any]":
    """A Dict space without its entry for masks; other spaces as they are."""
    from gymnasium import spaces

    if not isinstance(obs_space, spaces.Dict) or KEY not in obs_space.spaces:
        return obs_space
    return spaces.Dict({key: part for key, part in obs_space.spaces.items() if key != KEY})


def mask_place(env: "Env[Any, Any]") -> str | None:
    """Where an environment gives its masks, in words; None if it gives none, or fails, in a reset."""
    from gymnasium import spaces

    source = None
    if isinstance(env.action_space, (spaces.Discrete, spaces.MultiDiscrete)):
        with suppress(
            BaseException
        ):  # in a copy of the process; training meets the error again, and says more about it
            source = masks_in_obs(env.observation_space, env.action_space) or find_masks(env, env.reset(seed=0)[1])
    return None if source is None else source.place


def _source(space: "Space[Any]", in_obs: bool) -> MaskSource:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return MaskSource((int(space.n),), in_obs)
    if isinstance(space, spaces.MultiDiscrete):
        return MaskSource(tuple(int(count) for count in space.nvec.ravel()), in_obs)
    raise MalformedData(
        f"{MaskSource((), in_obs).place} is for Discrete and MultiDiscrete actions, not {type(space).__name__}: "
        "env.action_mask=false ignores it"
    )
