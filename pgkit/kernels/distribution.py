"""The action distributions that kernels are compiled for, and what code generators have to know of them."""

from types import ModuleType
from typing import Literal, NamedTuple

import torch

from pgkit.kernels import categorical, gaussian


class Distribution(NamedTuple):
    """A family of distributions over actions, of one size.

    Attributes:
        family: its name.
        size: L choices, or A components.
    """

    family: Literal["categorical", "gaussian"]
    size: int

    @property
    def functions(self) -> ModuleType:
        """The module with its functions of one sample: ``sample(outputs, uniforms)`` and ``mode(outputs)``, which give
        the numbers of an action; ``log_prob_and_entropy(outputs, action)``, ``output_gradients(outputs, action, ...)``.

        Their outputs are ``size`` numbers that the network computes, then ``log_stds`` numbers of the member.
        """
        return {"categorical": categorical, "gaussian": gaussian}[self.family]

    @property
    def log_stds(self) -> int:
        """How many logarithms of standard deviations a member has, beside its networks."""
        return self.size if self.family == "gaussian" else 0

    @property
    def action_width(self) -> int:
        """How many numbers an action has; a sample takes as many uniform numbers."""
        return self.size if self.family == "gaussian" else 1

    def action_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of actions, where that of outputs is ``dtype``."""
        return dtype if self.family == "gaussian" else torch.int64

    def action_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a tensor of actions, one for each element of ``shape``."""
        return (*shape, self.size) if self.family == "gaussian" else shape


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
