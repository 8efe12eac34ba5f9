"""The arguments of compiled kernels, which callers and code generators share, see :mod:`pgkit.compiler.signature`.

P members, B rows (samples) of each, L layers, D input features. Strides count numbers, not bytes. ``real`` is the
kernel's floating-point dtype.
"""

from typing import NamedTuple

from pgkit.compiler.signature import Address, Int64


class MemberMatmul(NamedTuple):
    """``result = bias + a @ b`` of one member: ``(M, K) @ (K, N)``.

    Attributes:
        rows: M.
        inner: K.
        columns: N.
        a: ``(M, K)``, with any strides.
        a_row_stride: from one row of ``a`` to the next.
        a_column_stride: from one column of ``a`` to the next.
        b: ``(K, N)``, with contiguous rows; with contiguous columns if ``b_transposed``.
        b_stride: from one row of ``b`` to the next, or from one column to the next if ``b_transposed``.
        b_transposed: 0 or 1.
        bias: ``(N,)``, or null.
        sums: ``(N,)``, where the sums of the columns of ``b`` are written, or null.
        result: ``(M, N)``, contiguous.
        workspace: ``(K + 1) (N + COLUMN_PADDING)`` numbers.
    """

    rows: Int64
    inner: Int64
    columns: Int64
    a: Address
    a_row_stride: Int64
    a_column_stride: Int64
    b: Address
    b_stride: Int64
    b_transposed: Int64
    bias: Address
    sums: Address
    result: Address
    workspace: Address


class Matmul(NamedTuple):
    """:class:`MemberMatmul` for P members, one after the other.

    Attributes:
        members: P.
        a_member_stride: from one member of ``a`` to the next.
        b_member_stride: likewise of ``b``; ``bias``, ``sums`` and ``result`` are contiguous.
        first: the arguments of the first member; all members share the workspace.
    """

    members: Int64
    a_member_stride: Int64
    b_member_stride: Int64
    first: MemberMatmul


class Layers(NamedTuple):
    """The layers of a network.

    Attributes:
        count: L.
        activated: how many layers the activation follows, counted from the first.
        widths: L + 2 int64: the widths of the input and of every layer, then the largest of them.
        leaves: 2 L addresses: weights ``(P, in, out)`` and biases ``(P, 1, out)``.
        preactivations: L addresses: outputs before the activation; the same as ``results`` where the backward pass does
            not need them.
        results: L addresses: outputs after the activation, ``(P, B, out)``.
    """

    count: Int64
    activated: Int64
    widths: Address
    leaves: Address
    preactivations: Address
    results: Address


class MemberForward(NamedTuple):
    """A forward pass of one member.

    Attributes:
        member: its index.
        rows: how many rows of it are computed.
        first_row: the index of its first row in ``preactivations`` and ``results``.
        layers: of all members.
        x: its own input.
        workspace: of its matmuls.
    """

    member: Int64
    rows: Int64
    first_row: Int64
    layers: Layers
    x: Address
    workspace: Address


class Forward(NamedTuple):
    """A forward pass of all members.

    Attributes:
        members: P.
        rows: B.
        sizes: int64 ``(P,)``, how many rows of each member are computed; null for all.
        layers: of all members.
        x: ``(P, B, D)``, contiguous.
        workspace: of the matmuls of one member.
    """

    members: Int64
    rows: Int64
    sizes: Address
    layers: Layers
    x: Address
    workspace: Address


class Backward(NamedTuple):
    """A backward pass of all members, or of one if ``members`` is its index and ``grad`` its own.

    Attributes:
        members: P.
        rows: B, how many rows of each member take part: its first ones.
        output_rows: how many rows a member has in ``layers.results`` and ``layers.preactivations``.
        x_rows: how many rows a member has in ``x``.
        x: the input, ``(P, x_rows, D)``.
        grad: the gradient of the last layer's result, ``(P, B, out)``.
        layers: of all members.
        leaf_grads: 2 L addresses: where the gradients of the leaves are written.
        x_grad: where the gradient of the input is written, ``(P, B, D)``; null if nobody needs it.
        scratch: ``2 B + NARROW`` times as many numbers as the widest layer has.
        workspace: of the matmuls of one member.
    """

    members: Int64
    rows: Int64
    output_rows: Int64
    x_rows: Int64
    x: Address
    grad: Address
    layers: Layers
    leaf_grads: Address
    x_grad: Address
    scratch: Address
    workspace: Address


class Samples(NamedTuple):
    """The samples of a policy's and a critic's losses; the first B rows of each member.

    What the policy's network computes, and actions, have widths that belong to the distribution, see
    :class:`pgkit.kernels.distribution.Distribution`.

    Attributes:
        outputs: ``(P, output_rows, L)``, what the policy's network computes.
        output_rows: how many rows a member has there.
        log_std: ``(P, 1, A)`` of a Gaussian policy; null for other distributions.
        value: ``(P, value_rows)``.
        value_rows: how many rows a member has there.
        action: int64 ``(P, B)``, or ``(P, B, A)`` of a Gaussian policy.
        advantage: ``(P, B)``.
        target: ``(P, B)``.
        valid: bool ``(P, B)``, which samples count.
        old_log_prob: ``(P, B)``, of the policy that acted; null unless :class:`pgkit.kernels.distribution.LossSpec`
            says that it is given, as the following.
        old_value: ``(P, B)``, of the critic when the policy acted.
        clip_range: ``(P,)``, of the ratio of probabilities.
        clip_range_vf: ``(P,)``, of values.
    """

    outputs: Address
    output_rows: Int64
    log_std: Address
    value: Address
    value_rows: Int64
    action: Address
    advantage: Address
    target: Address
    valid: Address
    old_log_prob: Address
    old_value: Address
    clip_range: Address
    clip_range_vf: Address


class LossMeans(NamedTuple):
    """Policy loss, value loss, entropy and so on, means over the samples of each member.

    Attributes:
        members: P.
        rows: B.
        sizes: int64 ``(P,)``, how many rows of each member may count; null for all.
        samples: see there.
        means: ``(M + 1, P)``, written: the M means of the :class:`pgkit.kernels.distribution.LossSpec`, and the number
            of samples that count, at least 1.
    """

    members: Int64
    rows: Int64
    sizes: Address
    samples: Samples
    means: Address


class NetworkGrads(NamedTuple):
    """A network in :class:`LossGradients`.

    Attributes:
        layers: see there.
        leaf_grads: 2 L addresses: where the gradients of its leaves are written.
        x_grad: where the gradient of the input is written; null if nobody needs it, and always with ``sizes``.
    """

    layers: Layers
    leaf_grads: Address
    x_grad: Address


class LossGradients(NamedTuple):
    """The gradients of the first three means, through all layers of the policy and maybe of the critic.

    Attributes:
        members: P.
        rows: B.
        sizes: int64 ``(P,)``, how many rows of each member may count; null for all.
        samples: those of :class:`LossMeans`.
        grads: ``(3, P)``, the gradients of these means.
        means: what :class:`LossMeans` has written.
        x: the input of the networks, ``(P, x_rows, D)``.
        x_rows: how many rows a member has in ``x``.
        log_std_grad: ``(P, 1, A)``, where the gradient of ``samples.log_std`` is written; null if there is none.
        scratch: ``B (L + 1)`` numbers, followed by the scratch of a backward pass.
        workspace: of the matmuls of one member.
        networks: the policy, then the critic if it is trained.
    """

    members: Int64
    rows: Int64
    sizes: Address
    samples: Samples
    grads: Address
    means: Address
    x: Address
    x_rows: Int64
    log_std_grad: Address
    scratch: Address
    workspace: Address
    networks: tuple[NetworkGrads, ...]


class AppendLogStd(NamedTuple):
    """Outputs of a Gaussian policy from the means of its network, see :mod:`pgkit.kernels.gaussian`.

    Attributes:
        members: P.
        rows: B.
        components: A.
        mean: ``(P, B, A)``.
        log_std: ``(P, 1, A)``.
        outputs: ``(P, B, 2 A)``, written.
    """

    members: Int64
    rows: Int64
    components: Int64
    mean: Address
    log_std: Address
    outputs: Address


class TimeArray(NamedTuple):
    """An input or output ``(T, P, N)`` of a scan; the stride along N belongs to the code.

    Attributes:
        base: the address of its first number.
        time_stride: from one time to the next.
        member_stride: from one member to the next.
    """

    base: Address
    time_stride: Int64
    member_stride: Int64


class Scan(NamedTuple):
    """A recursion over time, see :func:`pgkit.kernels.scan.scan`.

    Attributes:
        steps: T.
        members: P.
        count: N.
        carried: what a step hands to the next one, ``(P, N)`` each, contiguous; overwritten.
        arrays: the inputs, then the outputs.
    """

    steps: Int64
    members: Int64
    count: Int64
    carried: tuple[Address, ...]
    arrays: tuple[TimeArray, ...]
