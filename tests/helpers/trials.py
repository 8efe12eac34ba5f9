"""An extra argument for optimizers that search a line, without a policy."""

import torch
from torch import Tensor

from pgkit.types import Params


class AnyTrial:
    """A divergence from 0 to 0.02 that depends on the digits of one parameter; the surrogate always rises."""

    def __call__(self, moved: Params) -> tuple[Tensor, Tensor]:
        first = next(iter(moved.values())).flatten(1)[:, 0]
        return torch.ones_like(first), 0.02 * (1000 * first.abs()).frac()

    def take(self, members: Tensor) -> "AnyTrial":
        return self
