"""Action distributions: categorical, multi-categorical, Bernoulli, Gaussian.

A head is a set of pure functions of ``outputs``, ``(P, B, L)``, the numbers that a network computes per observation.
Sampling is a function of uniform numbers in (0, 1) that the caller draws.

>>> head = categorical(3)
>>> outputs = torch.tensor([[[0.0, 0.0, 0.0]]])  # P = 1, B = 1, L = 3
>>> head.sample(outputs, torch.tensor([[[0.5]]]))
tensor([[1]])
>>> head.entropy(outputs)  # log 3
tensor([[1.0986]])
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.errors import PgkitError
from pgkit.kernels import categorical as categorical_kernels
from pgkit.kernels import gaussian as gaussian_kernels
from pgkit.kernels.distribution import (
    MAX_SIZES,
    Distribution,
    compiled_kl,
    compiled_log_prob,
    compiled_sample,
    is_compiled,
)

if TYPE_CHECKING:
    from gymnasium import Space


class Head(NamedTuple):
    """A family of action distributions, as functions of a network's outputs.

    Attributes:
        name: the name of the family.
        width: L, the number of outputs that describe the distribution at one observation.
        noise: the number of uniform numbers that one sample takes.
        sample: ``(outputs (..., B, L), uniform (..., B, noise)) -> action (..., B)`` or ``(..., B, A)``.
        mode: ``outputs (..., B, L) -> action``, the most likely action.
        log_prob: ``(outputs, action) -> (..., B)``, the logarithm of the probability or density, in nats.
        entropy: ``outputs -> (..., B)``, in nats.
        kl: ``(outputs, other) -> (..., B)``, the divergence KL(outputs || other), in nats.
    """

    name: str
    width: int
    noise: int
    sample: Callable[[Tensor, Tensor], Tensor]
    mode: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]
    entropy: Callable[[Tensor], Tensor]
    kl: Callable[[Tensor, Tensor], Tensor]

    @property
    def distribution(self) -> Distribution | None:
        """What acting and losses are compiled for; None if they cannot be."""
        if self.name == "categorical" and self.width <= MAX_SIZES["categorical"]:
            return Distribution("categorical", self.width)
        if self.name == "gaussian" and self.noise <= MAX_SIZES["gaussian"]:
            return Distribution("gaussian", self.noise)
        return None


def categorical(choices: int) -> Head:
    """Return the head of one of ``choices`` actions, with the softmax of the outputs as probabilities.

    Sampled by inverting the distribution function.
    """

    distribution = Distribution("categorical", choices)

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        if is_compiled(distribution, outputs):
            return compiled_sample(distribution, outputs, uniform)
        cumulative = torch.softmax(outputs.mT, -2)[..., :-1, :].cumsum(-2)
        return torch.sum(cumulative < uniform.mT, -2)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        if is_compiled(distribution, outputs) and not (outputs.requires_grad or other.requires_grad):
            return compiled_kl(distribution, outputs, other)
        return categorical_kernels.kl(outputs, other)

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        if is_compiled(distribution, outputs) and not outputs.requires_grad:
            return compiled_log_prob(distribution, outputs, action)
        return categorical_kernels.log_prob(outputs, action)

    def mode(outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)

    return Head("categorical", choices, 1, sample, mode, log_prob, categorical_kernels.entropy, kl)


def multi_categorical(choices: Sequence[int]) -> Head:
    """Return the head of A independent categorical components with ``choices[a]`` actions in component a."""
    parts = [categorical(count) for count in choices]
    sizes = list(choices)

    def each(outputs: Tensor) -> list[tuple[Head, Tensor]]:
        return list(zip(parts, outputs.split(sizes, -1), strict=True))

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        return torch.stack([part.sample(o, uniform[..., a : a + 1]) for a, (part, o) in enumerate(each(outputs))], -1)

    def mode(outputs: Tensor) -> Tensor:
        return torch.stack([part.mode(o) for part, o in each(outputs)], -1)

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        terms = [part.log_prob(o, action[..., a]) for a, (part, o) in enumerate(each(outputs))]
        return torch.stack(terms, -1).sum(-1)

    def entropy(outputs: Tensor) -> Tensor:
        return torch.stack([part.entropy(o) for part, o in each(outputs)], -1).sum(-1)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        pairs = zip(each(outputs), other.split(sizes, -1), strict=True)
        return torch.stack([part.kl(o, p) for (part, o), p in pairs], -1).sum(-1)

    return Head("multi-categorical", sum(sizes), len(sizes), sample, mode, log_prob, entropy, kl)


def bernoulli(components: int) -> Head:
    """Return the head of A independent components that are 1 with probability sigmoid(output), else 0."""

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        return (uniform < torch.sigmoid(outputs)).long()

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        return -_softplus((1 - 2 * action) * outputs).sum(-1)

    def entropy(outputs: Tensor) -> Tensor:
        outputs = _finite(outputs)
        return (_softplus(outputs) - outputs * torch.sigmoid(outputs)).sum(-1)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        outputs = _finite(outputs)
        other = _finite(other)
        difference = torch.sigmoid(outputs) * _finite(outputs - other)
        return (difference - _softplus(outputs) + _softplus(other)).sum(-1)

    return Head("bernoulli", components, components, sample, lambda o: (o > 0).long(), log_prob, entropy, kl)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), which is x where exp(-x) is lost in rounding; PyTorch takes x from 20 on, whatever the dtype."""
    return functional.softplus(x, threshold=37.0 if x.dtype == torch.float64 else 20.0)


def _finite(x: Tensor) -> Tensor:
    """Infinite numbers become the largest ones, so that a probability of 0 times them is 0; NaN stays."""
    limits = torch.finfo(x.dtype)
    return x.clamp(limits.min, limits.max)


def gaussian(components: int) -> Head:
    """Return the head of A independent normal components; outputs are A means, then A logarithms of deviations.

    The log-probability is that of the drawn action, which environments see clipped into their bounds.
    """

    distribution = Distribution("gaussian", components)

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        if is_compiled(distribution, outputs):
            return compiled_sample(distribution, outputs, uniform)
        return gaussian_kernels.tensor_sample(outputs, uniform)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        if is_compiled(distribution, outputs) and not (outputs.requires_grad or other.requires_grad):
            return compiled_kl(distribution, outputs, other)
        return gaussian_kernels.kl(outputs, other)

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        if is_compiled(distribution, outputs) and not outputs.requires_grad:
            return compiled_log_prob(distribution, outputs, action)
        return gaussian_kernels.log_prob(outputs, action)

    def mode(outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0]

    entropy = gaussian_kernels.entropy
    return Head("gaussian", 2 * components, components, sample, mode, log_prob, entropy, kl)


def head_for(space: "Space[Any]") -> Head:
    """Choose the head for a Gymnasium action space.

    >>> from gymnasium import spaces
    >>> head_for(spaces.MultiDiscrete([3, 2])).name
    'multi-categorical'

    Raises:
        PgkitError: the space is not Discrete, Box, MultiDiscrete or MultiBinary.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return multi_categorical([int(count) for count in space.nvec.ravel()])
    if isinstance(space, spaces.MultiBinary):
        return bernoulli(math.prod(space.shape))
    if isinstance(space, spaces.Box):
        return gaussian(math.prod(space.shape))
    raise PgkitError(f"action space {space} is not supported: use Discrete, Box, MultiDiscrete or MultiBinary")
