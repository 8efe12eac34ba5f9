"""Rescaling of Box actions whose bounds are far from the unit Gaussian that policies begin with.

A policy that draws around 0 with standard deviation 1 chooses nothing but the lower bound of ``Box(100, 200)``, and
nothing but a speck in the middle of ``Box(-1000, 1000)``. Such components are rescaled from [-1, 1], as Gymnasium's
``RescaleAction`` does it. A component is far if less than a tenth of the draws lie within its bounds, or if the bulk of
the draws, from -2 to 2, covers less than a tenth of its range. All bounds in which policies do learn are left alone:
[-1, 1], [-2, 2], [0, 1] and [-0.4, 0.4] among others, so their actions stay what they are.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gymnasium import Env, Space
    from gymnasium.spaces import Box

MIN_SHARE = 0.1
"""Least share of draws within the bounds, and of the range that draws cover."""

UNBOUNDED = 1e6
"""Bounds of this size stand for none, which cannot be rescaled."""


def far_components(space: "Space[Any]") -> np.ndarray:
    """Which components of an action space are far from the unit Gaussian: bool, of the space's shape.

    None are if the space is no Box of floats: [-1, 1] holds no more than three whole numbers.

    >>> from gymnasium import spaces
    >>> far_components(spaces.Box(np.array([-1.0, 100.0, 0.0]), np.array([1.0, 200.0, np.inf]), dtype=np.float64))
    array([False,  True, False])
    """
    from gymnasium import spaces

    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        return np.zeros(1, dtype=bool)
    bounds = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
    return np.array([_is_far(low, high) for low, high in bounds]).reshape(space.shape)


def _is_far(low: float, high: float) -> bool:
    if not -UNBOUNDED < low < high < UNBOUNDED:
        return False
    share_within = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    share_covered = max(0.0, min(high, 2.0) - max(low, -2.0)) / (high - low)
    return min(share_within, share_covered) < MIN_SHARE


def rescale_actions(env: "Env[Any, Any]") -> "Env[Any, Any]":
    """Let the far components of an environment's actions range from -1 to 1; without such, the environment itself."""
    from gymnasium.wrappers import TransformAction

    space = env.action_space
    if not far_components(space).any():
        return env
    return TransformAction(env, rescaling(space), unit_space(space))


def rescaling(space: "Space[Any]") -> Callable[[np.ndarray], np.ndarray]:
    """The function from actions in :func:`unit_space` to those of the space, one ``(...)`` or a batch ``(k, ...)``.

    >>> from gymnasium.spaces import Box
    >>> rescaling(Box(100.0, 200.0, (1,)))(np.array([0.5]))
    array([175.], dtype=float32)
    """
    from gymnasium.spaces import Box

    assert isinstance(space, Box)
    far = far_components(space)
    low, high = space.low, space.high
    dtype = space.dtype

    def rescale(action: np.ndarray) -> np.ndarray:
        within = low + (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2 * (high.astype(np.float64) - low)
        return np.where(far, within, action).astype(dtype).clip(low, high)

    return rescale


def unit_space(space: "Space[Any]") -> "Box":
    """A Box whose far components range from -1 to 1."""
    from gymnasium.spaces import Box

    assert isinstance(space, Box)
    far = far_components(space)
    low = np.where(far, -1.0, space.low).astype(space.dtype)
    return Box(low, np.where(far, 1.0, space.high).astype(space.dtype), dtype=space.dtype.type)


def describe_rescaling(space: "Space[Any]") -> list[str]:
    """A line about the components that :func:`rescale_actions` changes; no line if it changes none."""
    from gymnasium.spaces import Box

    far = far_components(space)
    if not (isinstance(space, Box) and far.any()):
        return []
    low, high = float(space.low[far].min()), float(space.high[far].max())
    which = "" if far.all() else f"{far.sum()} of {far.size} components, "
    return [
        f"{which}bounded by {low:g} and {high:g}, are rescaled from [-1, 1], because such bounds are far from the "
        "unit Gaussian (env.rescale_actions=false: as they are)"
    ]
