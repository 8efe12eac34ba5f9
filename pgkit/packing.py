"""Samples without those that are none: of whole episodes, which differ in length, a rectangle holds many of these."""

from typing import NamedTuple

import torch
from torch import Tensor

MULTIPLE = 8
"""A member has so many rows of samples, or a multiple, some of which are none: compiled sums have lanes."""


class Packing(NamedTuple):
    """Where the samples of each member are.

    Attributes:
        rows: int64 ``(P, R)``, places among the ``(T + 1) N`` observations of a member: first those of its samples, in
            their order, then those of the N observations behind the last ones; place 0 for what is neither.
        known: int64 ``(P,)``, how many rows of each member that are.
        sizes: int64 ``(P,)``, how many of them it takes for all samples, a multiple of ``MULTIPLE``.
        valid: bool ``(P, B)``, what is a sample of the first B rows, which are enough for all members.
        obs: ``(P, R, D)``, the observations there.
        whole: ``(P, (T + 1) N, D)``, all of them.
    """

    rows: Tensor
    known: Tensor
    sizes: Tensor
    valid: Tensor
    obs: Tensor
    whole: Tensor

    @property
    def read(self) -> Tensor:
        """How many rows of a member are looked at, int64 ``(P,)``."""
        return torch.maximum(self.known, self.sizes)

    def of(self, samples: Tensor) -> Tensor:
        """``(P, B)`` of ``(P, T N)``."""
        return samples.gather(1, self.rows[:, : self.valid.shape[1]].clamp(max=samples.shape[1] - 1))

    def seen(self, obs: Tensor) -> Tensor:
        """``(P, B, D)`` of ``(P, T N, D)``, which may be those that were packed."""
        if obs.data_ptr() == self.whole.data_ptr():
            return self.obs[:, : self.valid.shape[1]]
        return _at(obs, self.rows[:, : self.valid.shape[1]].clamp(max=obs.shape[1] - 1))

    def spread(self, numbers: Tensor, size: int) -> Tensor:
        """``(P, size)`` of ``(P, R)``, each at its place; 0 elsewhere."""
        stands = torch.arange(numbers.shape[1], device=numbers.device) < self.known[:, None]
        return numbers.new_zeros(len(numbers), size).scatter_add_(1, self.rows, torch.where(stands, numbers, 0.0))


def pack(obs: Tensor, valid: Tensor) -> Packing:
    """Where the samples are in observations ``(T + 1, P, N, D)``, by bool ``(T, P, N)``, True from the start on."""
    members, count = valid.shape[1:]
    samples = valid.transpose(0, 1).flatten(1)
    counts = samples.sum(1)
    sizes = (counts + MULTIPLE - 1) // MULTIPLE * MULTIPLE
    most = int(sizes.max())
    whose, place = samples.nonzero(as_tuple=True)
    rank, environments = (torch.arange(number, device=valid.device) for number in (len(place), count))
    rows = place.new_zeros(members, most + count)
    rows[whose, rank - (counts.cumsum(0) - counts)[whose]] = place
    rows.scatter_(1, counts[:, None] + environments, valid.sum(0) * count + environments)
    whole = obs.transpose(0, 1).flatten(1, 2)
    is_sample = torch.arange(most, device=valid.device) < counts[:, None]
    return Packing(rows, counts + count, sizes, is_sample, _at(whole, rows), whole)


def _at(matrices: Tensor, rows: Tensor) -> Tensor:
    """Rows ``(P, R)`` of matrices ``(P, B, D)``."""
    return matrices.gather(1, rows.unsqueeze(2).expand(-1, -1, matrices.shape[2]))
