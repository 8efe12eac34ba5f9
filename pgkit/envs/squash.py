"""Actions before tanh: environments see tanh(action), scaled linearly from (-1, 1) to their bounds.

A policy with a squashed Gaussian (:mod:`pgkit.kernels.tanh_gaussian`) draws, and learns from, numbers without bounds.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from pgkit.envs.rescale import UNBOUNDED
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Env, Space
    from gymnasium.spaces import Box


def check_bounded(space: "Space[Any]", name: str) -> None:
    """Check that tanh can be scaled to the bounds of an action space.

    Args:
        space: of one environment.
        name: of the environment, for the message.

    Raises:
        PgkitError: the space is no Box, or a component of it has no bounds.
    """
    from gymnasium.spaces import Box

    if not isinstance(space, Box):
        raise PgkitError(f"environment {name!r}: only Box actions are squashed, not {type(space).__name__}")
    bounds = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
    for component, (low, high) in enumerate(bounds):
        if not -UNBOUNDED < low < high < UNBOUNDED:
            raise PgkitError(
                f"policy.squash_output = true needs bounds, and component {component} of the actions of {name} ranges "
                f"from {low:g} to {high:g}: leave it false, or clip the actions in a wrapper"
            )


def squash_actions(env: "Env[Any, Any]", name: str) -> "Env[Any, Any]":
    """Let an environment take actions before tanh; raises as :func:`check_bounded`.

    >>> import gymnasium
    >>> import numpy as np
    >>> from pgkit.envs.squash import squash_actions
    >>> env = squash_actions(gymnasium.make("Pendulum-v1"), "Pendulum-v1")
    >>> env.action(np.array([-50.0, 0.0, 0.5], np.float32))  # Pendulum's bounds are -2 and 2
    array([-2.        ,  0.        ,  0.92423433], dtype=float32)
    """
    from gymnasium.spaces import Box
    from gymnasium.wrappers import TransformAction

    space = env.action_space
    check_bounded(space, name)
    assert isinstance(space, Box)
    return TransformAction(env, lambda action: squashed(action, space), without_bounds(space))


def squashed(action: np.ndarray, space: "Box") -> np.ndarray:
    """What an environment with such bounds gets for actions before tanh, ``(..., *space.shape)`` of any batch."""
    share = (np.tanh(np.asarray(action, np.float64)) + 1.0) / 2.0
    within = space.low + share * (space.high.astype(np.float64) - space.low)
    return within.astype(space.dtype).clip(space.low, space.high)


def without_bounds(space: "Space[Any]") -> "Box":
    """The Box of actions before tanh."""
    from gymnasium.spaces import Box

    assert isinstance(space, Box)
    return Box(-np.inf, np.inf, space.shape, dtype=space.dtype.type)
