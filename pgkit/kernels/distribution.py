"""The action distributions that kernels are compiled for, and what code generators have to know of them."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import column_addresses
from pgkit.kernels import categorical, gaussian, state_std, tanh_gaussian
from pgkit.system.cpu import use_compiled

MAX_SIZES = {
    "categorical": categorical.MAX_COMPILED_CHOICES,
    "gaussian": gaussian.MAX_COMPILED_COMPONENTS,
    "tanh-gaussian": tanh_gaussian.MAX_COMPILED_COMPONENTS,
}
"""The largest size of each family that is compiled."""

_compile = lazy_kernel("pgkit.compiler.elementwise:compile_elementwise")


class Distribution(NamedTuple):
    """A family of distributions over actions, of one size.

    Attributes:
        family: its name.
        size: L choices, or A components.
        state_dependent_std: the network computes the logarithms of standard deviations, too.
    """

    family: Literal["categorical", "gaussian", "tanh-gaussian"]
    size: int
    state_dependent_std: bool = False

    @property
    def functions(self) -> Any:
        """Its functions of one sample: ``sample(outputs, uniforms)`` and ``mode(outputs)``, which give the numbers of
        an action; ``log_prob_and_entropy(outputs, action)``, ``output_gradients(outputs, action, ...)``.

        Their outputs are ``network_outputs`` numbers that the network computes, then ``log_stds`` numbers of the
        member.
        """
        family = {"categorical": categorical, "gaussian": gaussian, "tanh-gaussian": tanh_gaussian}[self.family]
        return state_std.with_limit(family) if self.state_dependent_std else family

    @property
    def is_discrete(self) -> bool:
        """Whether an action is one whole number, else A real numbers."""
        return self.family == "categorical"

    @property
    def network_outputs(self) -> int:
        """How many numbers the network computes."""
        return 2 * self.size if self.state_dependent_std else self.size

    @property
    def log_stds(self) -> int:
        """How many logarithms of standard deviations a member has, beside its networks."""
        return 0 if self.is_discrete or self.state_dependent_std else self.size

    @property
    def num_outputs(self) -> int:
        """How many numbers describe a distribution."""
        return self.network_outputs + self.log_stds

    @property
    def action_width(self) -> int:
        """How many numbers an action has; a sample takes as many uniform numbers."""
        return 1 if self.is_discrete else self.size

    def action_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of actions, where that of outputs is ``dtype``."""
        return torch.int64 if self.is_discrete else dtype

    def action_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a tensor of actions, one for each element of ``shape``."""
        return shape if self.is_discrete else (*shape, self.size)


class LossSpec(NamedTuple):
    """What the code of a policy's losses depends on.

    Attributes:
        distribution: of the actions.
        ratio: the log-probabilities of the policy that acted are given: the divergence from it is measured.
        clip: with ``ratio``: the policy loss is the clipped surrogate.
        clip_value: the value loss is clipped around values that are given.
    """

    distribution: Distribution
    ratio: bool = False
    clip: bool = False
    clip_value: bool = False

    @property
    def means(self) -> int:
        """How many means over samples there are: policy loss, value loss, entropy, divergence, share of clipped."""
        return 3 + self.ratio + self.clip


def is_compiled(distribution: Distribution, outputs: Tensor) -> bool:
    """Whether the functions below take such outputs, ``(..., num_outputs)``. They have no gradient."""
    return distribution.size <= MAX_SIZES[distribution.family] and use_compiled(outputs.dtype, outputs.device)


def compiled_sample(distribution: Distribution, outputs: Tensor, uniform: Tensor) -> Tensor:
    """Sample actions, ``(...)`` of a categorical distribution, ``(..., A)`` of a Gaussian.

    Args:
        distribution: of the actions.
        outputs: ``(..., num_outputs)``.
        uniform: ``(..., action_width)``, in (0, 1).
    """
    outputs = outputs.contiguous()
    shape = outputs.shape[:-1]
    width = distribution.action_width
    uniform = uniform.to(outputs).expand(*shape, width).contiguous()
    action = outputs.new_empty(distribution.action_shape(shape), dtype=distribution.action_dtype(outputs.dtype))
    matrices = outputs, uniform, action.view(*shape, width)
    columns = (address for matrix in matrices for address in column_addresses(matrix))
    _sample_kernel(distribution, outputs.dtype)(shape.numel(), *columns)
    return action


def compiled_log_prob(distribution: Distribution, outputs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of actions, ``(...)``, with the bits that compiled losses have; arguments as above."""
    outputs = outputs.contiguous()
    results = outputs.new_empty(outputs.shape[:-1])
    action = action.contiguous().view(*results.shape, distribution.action_width)
    columns = *column_addresses(outputs), *column_addresses(action)
    _log_prob_kernel(distribution, outputs.dtype)(results.numel(), *columns, results.data_ptr())
    return results


def compiled_kl(distribution: Distribution, outputs: Tensor, other: Tensor) -> Tensor:
    """KL(outputs || other) in nats, two ``(..., num_outputs) -> (...)``."""
    outputs = outputs.contiguous()
    other = other.contiguous()
    results = outputs.new_empty(outputs.shape[:-1])
    columns = *column_addresses(outputs), *column_addresses(other)
    _kl_kernel(distribution, outputs.dtype)(results.numel(), *columns, results.data_ptr())
    return results


def _columns(width: int, dtype: torch.dtype) -> tuple[tuple[torch.dtype, int], ...]:
    """Types of the columns of a contiguous matrix."""
    return ((dtype, width),) * width


@lru_cache
def _sample_kernel(distribution: Distribution, dtype: torch.dtype) -> Callable[..., None]:
    count, width = distribution.num_outputs, distribution.action_width
    inputs = _columns(count, dtype) + _columns(width, dtype)
    results = _columns(width, distribution.action_dtype(dtype))
    kernel: Callable[..., None] = _compile(
        lambda *numbers: distribution.functions.sample(numbers[:count], numbers[count:]), inputs, results
    )
    return kernel


@lru_cache
def _log_prob_kernel(distribution: Distribution, dtype: torch.dtype) -> Callable[..., None]:
    count = distribution.num_outputs

    def log_prob_of_row(*numbers: Any) -> Any:
        return distribution.functions.log_prob_and_entropy(numbers[:count], numbers[count:])[:1]

    inputs = _columns(count, dtype) + _columns(distribution.action_width, distribution.action_dtype(dtype))
    kernel: Callable[..., None] = _compile(log_prob_of_row, inputs, ((dtype, 1),))
    return kernel


@lru_cache
def _kl_kernel(distribution: Distribution, dtype: torch.dtype) -> Callable[..., None]:
    count = distribution.num_outputs

    def kl_of_row(*numbers: Any) -> list[Any]:
        return [distribution.functions.kl_divergence(numbers[:count], numbers[count:])]

    kernel: Callable[..., None] = _compile(kl_of_row, _columns(count, dtype) * 2, ((dtype, 1),))
    return kernel
