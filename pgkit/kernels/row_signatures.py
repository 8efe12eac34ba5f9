"""The arguments of compiled kernels that move rows about, as :mod:`pgkit.kernels.signatures`."""

from typing import NamedTuple

from pgkit.compiler.signature import Address, Int64


class Pack(NamedTuple):
    """Find the samples of a rollout of T steps in N environments per member, see
    :class:`pgkit.kernels.packing.Packing`.

    Attributes:
        members: P.
        steps: T.
        count: N.
        features: D.
        max_rows: B.
        valid: bool ``(P, T, N)``.
        all_obs: ``(P, T + 1, N, D)``.
        indices: int64 ``(P, B + N)``, written; 0 before.
        lengths: int64 ``(P,)``, written.
        sizes: int64 ``(P,)``, written.
        is_sample: bool ``(P, B)``, written.
        packed_obs: ``(P, B + N, D)``, written.
    """

    members: Int64
    steps: Int64
    count: Int64
    features: Int64
    max_rows: Int64
    valid: Address
    all_obs: Address
    indices: Address
    lengths: Address
    sizes: Address
    is_sample: Address
    packed_obs: Address


class Gather(NamedTuple):
    """``packed[k, row] = samples[k, indices[k, row]]`` for the first ``sizes[k]`` rows of each member k.

    A sample is a few numbers, as many as the code was compiled for.

    Attributes:
        members: P.
        samples_per_member: the number of samples of each member in ``samples``.
        index_rows: the number of columns of ``indices``.
        max_rows: the number of samples of each member in ``packed``.
        indices: int64.
        sizes: int64 ``(P,)``.
        samples: read.
        packed: written.
    """

    members: Int64
    samples_per_member: Int64
    index_rows: Int64
    max_rows: Int64
    indices: Address
    sizes: Address
    samples: Address
    packed: Address


class Scatter(NamedTuple):
    """``unpacked[k, indices[k, row]] = packed[k, row]`` for the first ``lengths[k]`` rows of each member k.

    Attributes:
        members: P.
        size: the number of columns of ``unpacked``.
        index_rows: the number of columns of ``indices`` and ``packed``.
        indices: int64.
        lengths: int64 ``(P,)``.
        packed: read.
        unpacked: written.
    """

    members: Int64
    size: Int64
    index_rows: Int64
    indices: Address
    lengths: Address
    packed: Address
    unpacked: Address


class Shuffle(NamedTuple):
    """A random order of each member's samples for each epoch, see :func:`pgkit.kernels.shuffle.shuffled_order`.

    Attributes:
        members: P.
        epochs: E.
        samples: B.
        keys: int64 ``(P,)``.
        counters: int64 ``(P,)``.
        order: int64 ``(P, E, B)``, written.
        scratch: ``2 B + 1`` int64.
    """

    members: Int64
    epochs: Int64
    samples: Int64
    keys: Address
    counters: Address
    order: Address
    scratch: Address


class TakenColumn(NamedTuple):
    """Numbers of each sample in :class:`TakeRows`, as many as the code was compiled for.

    Attributes:
        source: of all B samples of each member.
        target: of the b samples that are taken, written.
    """

    source: Address
    target: Address


class TakeRows(NamedTuple):
    """Copy the samples of a minibatch, see :func:`pgkit.kernels.shuffle.take_rows`.

    Attributes:
        members: P.
        samples: B.
        rows: b.
        order_rows: how many indices a member has in ``order``.
        order: int64, indices of samples.
        number: int64 ``(1,)``, which minibatch: it begins at index ``number b``.
        columns: what is copied.
    """

    members: Int64
    samples: Int64
    rows: Int64
    order_rows: Int64
    order: Address
    number: Address
    columns: tuple[TakenColumn, ...]
