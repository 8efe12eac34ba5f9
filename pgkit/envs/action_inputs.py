"""Actions of environments whose step is written for one: what the learner chooses, as the step takes it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pgkit.envs.actions import action_shape
from pgkit.envs.rescale import far_components, unit_space
from pgkit.envs.squash import check_bounded, without_bounds
from pgkit.errors import PgkitError

if TYPE_CHECKING:
    from gymnasium import Space

ColumnTypes = tuple[tuple[torch.dtype, int], ...]


@dataclass(frozen=True)
class DiscreteInput:
    """An action of ``Discrete(n, start=start)``: int64, which the learner counts from 0."""

    n: int
    start: int
    count: int = 1
    shape: tuple[int, ...] = ()
    column_types: ColumnTypes = ((torch.int64, 1),)

    def zeros(self, count: int, device: torch.device) -> Tensor:
        return torch.zeros(count, dtype=torch.int64, device=device)

    def columns(self, action: Tensor) -> list[Tensor]:
        return [action.to(torch.int64)]

    def checked(self, action: Tensor) -> Tensor:
        """The actions on the CPU, contiguous.

        Raises:
            PgkitError: there is no such action.
        """
        action = action.to("cpu", torch.int64).contiguous()
        if len(action) and not 0 <= int(action.min()) <= int(action.max()) < self.n:
            wrong = sorted({number for number in action.tolist() if not 0 <= number < self.n})
            raise PgkitError(f"action: expected integers from 0 to {self.n - 1}, got {wrong}")
        return action

    def addresses(self, action: Tensor) -> list[int]:
        return [action.data_ptr()]

    def convert(self, numbers: Sequence[Any]) -> Any:
        """The action of the space, by the learner's."""
        return numbers[0] + self.start if self.start else numbers[0]


@dataclass(frozen=True)
class BoxInput:
    """An action of a Box: A float32, which are clipped to its bounds as :mod:`pgkit.envs.actions` does.

    Attributes:
        low: bounds of the A components.
        high: likewise.
        is_far: components that range from -1 to 1 for the learner, see :mod:`pgkit.envs.rescale`.
        dtype: of the space.
        squash: the learner's numbers are those before tanh, see :mod:`pgkit.envs.squash`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    is_far: tuple[bool, ...]
    dtype: torch.dtype
    squash: bool = False

    @property
    def count(self) -> int:
        return len(self.low)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count,)

    @property
    def column_types(self) -> ColumnTypes:
        return ((torch.float32, self.count),) * self.count

    def zeros(self, count: int, device: torch.device) -> Tensor:
        return torch.zeros(count, self.count, device=device)

    def columns(self, action: Tensor) -> Sequence[Tensor]:
        return action.to(torch.float32).unbind(-1)

    def checked(self, action: Tensor) -> Tensor:
        """The actions on the CPU, contiguous; all are possible."""
        return action.to("cpu", torch.float32).contiguous()

    def addresses(self, action: Tensor) -> list[int]:
        return [action.data_ptr() + 4 * component for component in range(self.count)]

    def convert(self, numbers: Sequence[Any]) -> list[Any]:
        """The action of the space, by the learner's."""
        return [*map(self._component, numbers, self.low, self.high, self.is_far)]

    def _component(self, number: Any, low: float, high: float, is_far: bool) -> Any:
        number = number.to(self.dtype)
        if not (is_far or self.squash):
            return _clip(number, low, high)
        unit = _tanh(number.to(torch.float64)) if self.squash else _clip(number, -1.0, 1.0).to(torch.float64)
        within = (unit + 1.0) / 2.0 * (high - low) + low
        return torch.clamp(within.to(self.dtype), low, high)


ActionInput = DiscreteInput | BoxInput


def action_input(
    space: "Space[Any]", name: str, rescale: bool, squash: bool = False
) -> tuple[ActionInput, "Space[Any]"]:
    """What converts actions of a space, and the space that the learner sees.

    Args:
        space: Discrete, or a Box of floats.
        name: of the environment, for the message.
        rescale: let components whose bounds are far from the unit Gaussian range from -1 to 1.
        squash: take actions before tanh, which is scaled to the bounds.

    Raises:
        PgkitError: it is another space, or has no bounds to squash into.
    """
    from gymnasium import spaces

    action_shape(space, name)
    if squash:
        check_bounded(space, name)
    if isinstance(space, spaces.Discrete):
        return DiscreteInput(int(space.n), int(space.start)), space
    if not isinstance(space, spaces.Box):
        raise PgkitError(f"environment {name!r}: actions must be Discrete or Box, not {type(space).__name__}")
    low, high = (tuple(bound.ravel().tolist()) for bound in (space.low, space.high))
    is_far = far_components(space) if rescale and not squash else space.low != space.low
    converter = BoxInput(low, high, tuple(is_far.ravel().tolist()), component_dtype(space), squash)
    if squash:
        return converter, without_bounds(space)
    return converter, unit_space(space) if is_far.any() else space


def component_dtype(space: "Space[Any]") -> torch.dtype:
    """The dtype of a Box action's components."""
    return torch.float64 if str(space.dtype) == "float64" else torch.float32


def _tanh(number: Any) -> Any:
    """The hyperbolic tangent; of NaN, which a policy that has diverged draws, 0."""
    squashed = torch.tanh(number)
    return torch.where(torch.abs(squashed) <= 1.0, squashed, 0.0)


def _clip(number: Any, low: float, high: float) -> Any:
    """The nearest number within the bounds; of NaN, and of an infinite bound, the number that is closest to 0."""
    clipped = torch.clamp(number, low, high)
    return torch.where(torch.abs(clipped) < math.inf, clipped, min(max(0.0, low), high))
