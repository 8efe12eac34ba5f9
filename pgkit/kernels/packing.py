"""Samples without those that are none: of whole episodes, which differ in length, a rectangle holds many of these.

On CPU alone: elsewhere networks see the rectangle.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.kernels.layout import MULTIPLE


class Packing(NamedTuple):
    """Where the samples of each member are.

    Attributes:
        rows: int64 ``(P, R)``, places among the ``(T + 1) N`` observations of a member: first those of its samples, in
            their order, then those of the N observations behind the last ones; then anything.
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
        return torch.where(self.known > self.sizes, self.known, self.sizes)

    def of(self, samples: Tensor) -> Tensor:
        """``(P, B)`` of ``(P, T N)``; behind ``sizes`` anything."""
        samples, (members, most) = samples.contiguous(), self.valid.shape
        packed = samples.new_empty(members, most)
        shape = members, samples.shape[1], self.rows.shape[1], most
        tensors = self.rows, self.sizes, samples, packed
        _gather(samples.dtype)(*shape, *(tensor.data_ptr() for tensor in tensors))
        return packed

    def seen(self, obs: Tensor) -> Tensor:
        """``(P, B, D)`` of ``(P, T N, D)``, which may be those that were packed."""
        if obs.data_ptr() == self.whole.data_ptr():
            return self.obs[:, : self.valid.shape[1]]
        return torch.stack([self.of(column) for column in obs.unbind(2)], 2)

    def spread(self, numbers: Tensor, size: int) -> Tensor:
        """``(P, size)`` of ``(P, R)``, each at its place; 0 elsewhere."""
        numbers, whole = numbers.contiguous(), numbers.new_zeros(len(numbers), size)
        tensors = self.rows, self.known, numbers, whole
        _spread(numbers.dtype)(*whole.shape, numbers.shape[1], *(tensor.data_ptr() for tensor in tensors))
        return whole


def pack(obs: Tensor, valid: Tensor, look: bool = True) -> Packing:
    """Where the samples are in observations ``(T + 1, P, N, D)``, by bool ``(T, P, N)``, True from the start on.

    B is as small as it can be, unless nobody may ``look`` at a number.
    """
    steps, members, count = valid.shape
    flags, whole = (tensor.transpose(0, 1).flatten(1, 2).contiguous() for tensor in (valid, obs))
    most = -(-(int(flags.sum(1).max()) if look else steps * count) // MULTIPLE) * MULTIPLE
    rows = torch.zeros(members, most + count, dtype=torch.int64)
    known, sizes = (torch.empty(members, dtype=torch.int64) for _ in range(2))
    is_sample, seen = flags.new_empty(members, most), obs.new_empty(members, most + count, obs.shape[3])
    shape = members, steps, count, obs.shape[3], most
    tensors = flags, whole, rows, known, sizes, is_sample, seen
    _pack(obs.dtype)(*shape, *(tensor.data_ptr() for tensor in tensors))
    return Packing(rows, known, sizes, is_sample, seen, whole)


@lru_cache
def _pack(dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.kernels.codegen.packing import compile_pack  # LLVM is loaded where something is compiled

    return compile_pack(dtype)


@lru_cache
def _gather(dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.kernels.codegen.packing import compile_gather

    return compile_gather(dtype)


@lru_cache
def _spread(dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.kernels.codegen.packing import compile_spread

    return compile_spread(dtype)
