"""Drop padding, so that networks skip padded rows.

A rollout of whole episodes is a rectangle ``(T, P, N)``, although episodes differ in length: often more than half of it
is padding behind episodes that ended early. :func:`pack` gathers the rows of each member that are samples, and
:class:`Packing` moves numbers between the two layouts. On CPU only; on other devices networks compute the rectangle.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.kernels.layout import ROW_MULTIPLE
from pgkit.kernels.row_signatures import Gather, Pack, Scatter

_pack = lazy_kernel("pgkit.kernels.codegen.packing:compile_pack")
_gather = lazy_kernel("pgkit.kernels.codegen.packing:compile_gather")
_scatter = lazy_kernel("pgkit.kernels.codegen.packing:compile_scatter")


class Packing(NamedTuple):
    """The positions of each member's samples in a rollout.

    A packed tensor has R rows for each member: first its samples, in the order of the rollout, then the N observations
    that follow the last sample of each environment (whose values bootstrap returns), then padding. The first B of
    them are enough for the samples of any member.

    Attributes:
        indices: int64 ``(P, R)``, the position of each packed row among the ``(T + 1) N`` observations of its member.
        lengths: int64 ``(P,)``, how many packed rows of each member are not padding.
        sizes: int64 ``(P,)``, the number of samples of each member, rounded up to a multiple of ``ROW_MULTIPLE``.
        valid: bool ``(P, B)``, which of the first B packed rows are samples.
        obs: ``(P, R, D)``, the packed observations.
        all_obs: ``(P, (T + 1) N, D)``, the observations that were packed.
    """

    indices: Tensor
    lengths: Tensor
    sizes: Tensor
    valid: Tensor
    obs: Tensor
    all_obs: Tensor

    @property
    def forward_sizes(self) -> Tensor:
        """How many packed rows of each member a forward pass computes, int64 ``(P,)``: all that anything reads."""
        return torch.where(self.lengths > self.sizes, self.lengths, self.sizes)

    def gather(self, samples: Tensor) -> Tensor:
        """Pack samples, ``(P, T N, ...) -> (P, B, ...)``; beyond ``sizes`` the result holds anything."""
        samples = samples.contiguous()
        members, max_rows = self.valid.shape
        packed = samples.new_empty(members, max_rows, *samples.shape[2:])
        arguments = Gather(
            members=members,
            samples_per_member=samples.shape[1],
            index_rows=self.indices.shape[1],
            max_rows=max_rows,
            indices=self.indices.data_ptr(),
            sizes=self.sizes.data_ptr(),
            samples=samples.data_ptr(),
            packed=packed.data_ptr(),
        )
        _gather(samples.dtype, samples.shape[2:].numel())(*arguments)
        return packed

    def gather_obs(self, obs: Tensor) -> Tensor:
        """Pack observations, ``(P, T N, D) -> (P, B, D)``; those that :func:`pack` has packed are not packed again."""
        if obs.data_ptr() == self.all_obs.data_ptr():
            return self.obs[:, : self.valid.shape[1]]
        return self.gather(obs)

    def scatter(self, packed: Tensor, size: int) -> Tensor:
        """Undo packing, ``(P, R) -> (P, size)``: put each number at its position; 0 everywhere else."""
        packed = packed.contiguous()
        unpacked = packed.new_zeros(len(packed), size)
        arguments = Scatter(
            members=len(packed),
            size=size,
            index_rows=packed.shape[1],
            indices=self.indices.data_ptr(),
            lengths=self.lengths.data_ptr(),
            packed=packed.data_ptr(),
            unpacked=unpacked.data_ptr(),
        )
        _scatter(packed.dtype)(*arguments)
        return unpacked


def pack(obs: Tensor, valid: Tensor, allow_host_read: bool = True) -> Packing:
    """Find the samples of a rollout and pack their observations.

    Args:
        obs: ``(T + 1, P, N, D)``.
        valid: bool ``(T, P, N)``, what is a sample; in each environment True up to some step, then False.
        allow_host_read: B is as small as possible, for which one number is read on the host. Without, as a captured
            update requires, B has room for all ``T N`` rows.
    """
    steps, members, count = valid.shape
    flags, all_obs = (tensor.transpose(0, 1).flatten(1, 2).contiguous() for tensor in (valid, obs))
    max_samples = int(flags.sum(1).max()) if allow_host_read else steps * count
    max_rows = -(-max_samples // ROW_MULTIPLE) * ROW_MULTIPLE
    indices = torch.zeros(members, max_rows + count, dtype=torch.int64)
    lengths, sizes = (torch.empty(members, dtype=torch.int64) for _ in range(2))
    is_sample = flags.new_empty(members, max_rows)
    packed_obs = obs.new_empty(members, max_rows + count, obs.shape[3])
    arguments = Pack(
        members=members,
        steps=steps,
        count=count,
        features=obs.shape[3],
        max_rows=max_rows,
        valid=flags.data_ptr(),
        all_obs=all_obs.data_ptr(),
        indices=indices.data_ptr(),
        lengths=lengths.data_ptr(),
        sizes=sizes.data_ptr(),
        is_sample=is_sample.data_ptr(),
        packed_obs=packed_obs.data_ptr(),
    )
    _pack(obs.dtype)(*arguments)
    return Packing(indices, lengths, sizes, is_sample, packed_obs, all_obs)
