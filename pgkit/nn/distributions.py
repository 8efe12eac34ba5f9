"""Action distributions: categorical, multi-categorical, Bernoulli, Gaussian, tanh-squashed Gaussian.

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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pgkit.errors import PgkitError
from pgkit.kernels import categorical as categorical_kernels
from pgkit.kernels import gaussian as gaussian_kernels
from pgkit.kernels import state_std
from pgkit.kernels import tanh_gaussian as tanh_gaussian_kernels
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
        mode: ``outputs (..., B, L) -> action``, the most likely action; of a squashed Gaussian that of its mean.
        log_prob: ``(outputs, action) -> (..., B)``, the logarithm of the probability or density, in nats.
        entropy: ``outputs -> (..., B)``, in nats.
        kl: ``(outputs, other) -> (..., B)``, the divergence KL(outputs || other), in nats.
        family: what kernels are compiled for, if it is not too large; None if there are none for this family.
        choices: how many choices each component has, if these can be masked.
    """

    name: str
    width: int
    noise: int
    sample: Callable[[Tensor, Tensor], Tensor]
    mode: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]
    entropy: Callable[[Tensor], Tensor]
    kl: Callable[[Tensor, Tensor], Tensor]
    family: Distribution | None = None
    choices: tuple[int, ...] = ()

    @property
    def distribution(self) -> Distribution | None:
        """What acting and losses are compiled for; None if they cannot be."""
        family = self.family
        return family if family is not None and family.size <= MAX_SIZES[family.family] else None

    @property
    def log_stds(self) -> int:
        """How many of the outputs are parameters of a member, "actor.log_std", and not the network's: the last ones."""
        return 0 if self.family is None else self.family.log_stds


def categorical(choices: int) -> Head:
    """Return the head of one of ``choices`` actions, with the softmax of the outputs as probabilities.

    Sampled by inverting the distribution function.
    """

    distribution = Distribution("categorical", choices)

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        if is_compiled(distribution, outputs):
            return compiled_sample(distribution, outputs, uniform)
        cumulative = torch.softmax(outputs.mT, -2)[..., :-1, :].cumsum(-2)
        chosen = torch.sum(cumulative < uniform.mT, -2)
        # Rounding of the sums may end at a choice that is excluded.
        excluded = outputs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1) == -torch.inf
        return torch.where(excluded, outputs.argmax(-1), chosen)

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

    return Head(
        "categorical", choices, 1, sample, mode, log_prob, categorical_kernels.entropy, kl, distribution, (choices,)
    )


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

    return Head("multi-categorical", sum(sizes), len(sizes), sample, mode, log_prob, entropy, kl, choices=tuple(sizes))


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


def gaussian(components: int, *, squash: bool = False, state_dependent_std: bool = False) -> Head:
    """Return the head of A independent normal components; outputs are A means, then A logarithms of deviations.

    The log-probability is that of the drawn action, which environments see clipped into their bounds. With ``squash``
    they see tanh of it, scaled to their bounds: the action still is the number before tanh, but log-probability and
    entropy are those of tanh(action), see :mod:`pgkit.kernels.tanh_gaussian`, which says how the entropy is estimated.

    >>> head = gaussian(1, squash=True)
    >>> outputs = torch.tensor([[[0.0, 0.0]]])  # P = 1, B = 1, mean 0, log_std 0
    >>> head.log_prob(outputs, torch.tensor([[[20.0]]])), head.entropy(outputs)  # tanh(20) = 1 in float32
    (tensor([[-162.3052]]), tensor([[0.6698]]))

    Args:
        components: A.
        squash: whether environments see tanh of the action.
        state_dependent_std: whether the network computes the logarithms of the deviations, too, which are limited to
            [-20, 2]; else they are parameters of a member.
    """
    kernels = tanh_gaussian_kernels if squash else gaussian_kernels
    name: Literal["gaussian", "tanh-gaussian"] = "tanh-gaussian" if squash else "gaussian"
    distribution = Distribution(name, components, state_dependent_std)

    def limited(outputs: Tensor) -> Tensor:
        return state_std.limit(outputs) if state_dependent_std else outputs

    def sample(outputs: Tensor, uniform: Tensor) -> Tensor:
        if is_compiled(distribution, outputs):
            return compiled_sample(distribution, outputs, uniform)
        return gaussian_kernels.tensor_sample(limited(outputs), uniform)

    def kl(outputs: Tensor, other: Tensor) -> Tensor:
        if is_compiled(distribution, outputs) and not (outputs.requires_grad or other.requires_grad):
            return compiled_kl(distribution, outputs, other)
        return gaussian_kernels.kl(limited(outputs), limited(other))

    def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
        if is_compiled(distribution, outputs) and not outputs.requires_grad:
            return compiled_log_prob(distribution, outputs, action)
        return kernels.log_prob(limited(outputs), action)

    def mode(outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0]

    def entropy(outputs: Tensor) -> Tensor:
        return kernels.entropy(limited(outputs))

    return Head(name, 2 * components, components, sample, mode, log_prob, entropy, kl, distribution)


def head_for(space: "Space[Any]", *, squash: bool = False, state_dependent_std: bool = False) -> Head:
    """Choose the head for a Gymnasium action space.

    >>> from gymnasium import spaces
    >>> head_for(spaces.MultiDiscrete([3, 2])).name
    'multi-categorical'

    Args:
        space: of the actions.
        squash: as of :func:`gaussian`, for a Box; without effect for other spaces, as the following.
        state_dependent_std: likewise.

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
        return gaussian(math.prod(space.shape), squash=squash, state_dependent_std=state_dependent_std)
    raise PgkitError(f"action space {space} is not supported: use Discrete, Box, MultiDiscrete or MultiBinary")
