"""Generate the code of :mod:`pgkit.nn.policy_loss`: the losses of a policy and its critic, and their gradients through
all layers."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import VECTOR_WIDTH, Column, element_address, vector_loop
from pgkit.compiler.ir import (
    FLOAT_TYPES,
    Index,
    Variable,
    call,
    define_function,
    element_pointer,
    for_range,
    lane_sum,
    load,
    store,
)
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.codegen.mlp import define_member_backward, member_rows
from pgkit.kernels.distribution import Distribution
from pgkit.kernels.signatures import Backward, LossGradients, LossMeans, NetworkGrads, Samples

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation

NUM_MEANS = 4
"""Rows of ``means``: policy loss, value loss, entropy, and the number of samples."""


class _Sample(NamedTuple):
    """The numbers of one sample, or their columns.

    Attributes:
        outputs: all outputs of the distribution.
        value: the critic's.
        action: its numbers.
        advantage: as in :class:`Samples`, as the following.
    """

    outputs: Sequence[Any]
    value: Any
    action: Sequence[Any]
    advantage: Any
    target: Any
    valid: Any

    def read(self, builder: ir.IRBuilder, row: Index, width: int) -> "_Sample":
        """The numbers of ``width`` samples from ``row`` on, if these are columns."""

        def numbers(columns: Any) -> Any:
            is_one = isinstance(columns, Column)
            return columns.read(builder, row, width) if is_one else [numbers(column) for column in columns]

        return _Sample(*(numbers(columns) for columns in self))


class _Sums:
    """Sums over the samples of a member.

    Vectors of samples go to a vector of partial sums, the samples that are left to scalars. So a sum has as many parts
    on every processor, whatever a register holds.
    """

    def __init__(self, builder: ir.IRBuilder, real: ir.Type, count: int) -> None:
        self._builder = builder
        types = {1: real, VECTOR_WIDTH: ir.VectorType(real, VECTOR_WIDTH)}
        self._parts = {width: [Variable(builder, ir_type) for _ in range(count)] for width, ir_type in types.items()}

    def reset(self) -> None:
        """Begin from 0."""
        for variable in (*self._parts[1], *self._parts[VECTOR_WIDTH]):
            variable.set(ir.Constant(variable.ir_type, None))

    def add(self, width: int, terms: Sequence[TracedScalar]) -> None:
        """Add the terms of ``width`` samples, one term for each sum."""
        for variable, term in zip(self._parts[width], terms, strict=True):
            variable.set(self._builder.fadd(variable.get(), term.ir_value))

    def totals(self) -> list[Any]:
        """The sums."""
        return [
            TracedScalar(self._builder, self._builder.fadd(lane_sum(self._builder, partial.get()), rest.get()))
            for partial, rest in zip(self._parts[VECTOR_WIDTH], self._parts[1], strict=True)
        ]


def compile_means(distribution: Distribution, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`LossMeans`."""
    real = FLOAT_TYPES[dtype]
    builder, args = define_function(ir.Module(), "means", LossMeans, alias=True)
    rows_of = member_rows(builder, args.sizes, args.rows)
    sums = _Sums(builder, real, NUM_MEANS)
    with for_range(builder, args.members) as member:
        columns = _sample_columns(builder, args.samples, (member, args.rows), distribution, dtype)
        sums.reset()

        def add(row: Index, width: int) -> None:
            sample = columns.read(builder, row, width)
            sums.add(width, [*_loss_terms(distribution, sample), sample.valid.to(dtype)])

        vector_loop(builder, rows_of(member), add)
        totals = sums.totals()
        count = torch.clamp(totals[-1], min=1.0)
        means = [-(totals[0] / count), totals[1] / count, totals[2] / count, count]
        for row, mean in enumerate(means):
            store(builder, mean, args.means, args.members * row + member)
    builder.ret_void()
    return compile_function(builder.function)


def _loss_terms(distribution: Distribution, sample: _Sample) -> list[Any]:
    """One sample's terms in the sums of :func:`pgkit.losses.actor_critic_terms`.

    Returns:
        ``log_prob * advantage``, ``(value - target)^2`` and the entropy; 0 where the sample is not valid.
    """
    log_prob, entropy = distribution.functions.log_prob_and_entropy(sample.outputs, sample.action)
    error = sample.value - sample.target
    terms = log_prob * sample.advantage, error * error, entropy
    return [torch.where(sample.valid, term, 0.0) for term in terms]


def compile_gradients(
    activation: "Activation", distribution: Distribution, networks: int, dtype: torch.dtype
) -> Callable[..., None]:
    """A kernel of :class:`LossGradients`, for a policy (1 network) or a policy and a critic (2 networks).

    Each member's samples are turned into gradients of outputs and values, which go back through the layers at once.
    """
    module = ir.Module()
    real = FLOAT_TYPES[dtype]
    backward = define_member_backward(module, real, activation)
    builder, args = define_function(module, "gradients", LossGradients, {"networks": networks}, alias=True)
    rows_of = member_rows(builder, args.sizes, args.rows)
    # Scratch memory: gradients of the network's outputs (B, L), of values (B,), then what backward passes need.
    size = distribution.size
    output_grad = args.scratch
    value_grad = element_pointer(builder, output_grad, real, args.rows * size)
    scratch = element_pointer(builder, value_grad, real, args.rows)
    results = [Column(element_pointer(builder, output_grad, real, k), real, size) for k in range(size)]
    results += [Column(value_grad, real)] * (networks - 1)
    log_std_sums = [Variable(builder, real) for _ in range(distribution.log_stds)]
    with for_range(builder, args.members) as member:
        columns = _sample_columns(builder, args.samples, (member, args.rows), distribution, dtype)
        weights = _loss_weights(builder, args, member, real)
        for variable in log_std_sums:
            variable.set(real(0.0))

        def write_gradients(row: Index, width: int) -> None:
            sample = columns.read(builder, row, width)
            output_grads, sample_value_grad = _loss_gradients(distribution, sample, weights)
            for column, gradient in zip(results, [*output_grads[:size], sample_value_grad], strict=False):
                column.write(gradient, row, width)
            for variable, gradient in zip(log_std_sums, output_grads[size:], strict=True):
                _add_in_order(variable, gradient, width)

        vector_loop(builder, rows_of(member), write_gradients)
        for component, variable in enumerate(log_std_sums):
            store(builder, variable.get(), args.log_std_grad, member * size + component)
        grads = (output_grad, args.samples.output_rows), (value_grad, args.samples.value_rows)
        for network, (grad, output_rows) in zip(args.networks, grads, strict=False):
            rows = rows_of(member)
            call(builder, backward, _backward_arguments(args, network, (member, rows, output_rows), grad, scratch))
    builder.ret_void()
    return compile_function(builder.function)


def _add_in_order(variable: Variable, numbers: TracedScalar, width: int) -> None:
    """Add one sample after the other, as gradients of biases are: zeros of padding between them change no bit."""
    builder = variable.builder
    total = variable.get()
    for lane in range(width):
        number = numbers.ir_value if width == 1 else builder.extract_element(numbers.ir_value, ir.IntType(32)(lane))
        total = builder.fadd(total, number)
    variable.set(total)


def _loss_weights(builder: ir.IRBuilder, args: LossGradients, member: Index, real: ir.Type) -> list[ir.Value]:
    """The gradients of a member's policy loss, value loss and entropy, divided by the number of its samples."""
    count = load(builder, real, args.means, args.members * (NUM_MEANS - 1) + member)
    return [
        builder.fdiv(load(builder, real, args.grads, args.members * k + member), count) for k in range(NUM_MEANS - 1)
    ]


def _loss_gradients(distribution: Distribution, sample: _Sample, weights: Sequence[ir.Value]) -> tuple[list[Any], Any]:
    """The gradients of one sample's outputs, and that of its value; 0 where the sample is not valid.

    Args:
        distribution: of the policy.
        sample: its numbers.
        weights: see :func:`_loss_weights`.
    """
    policy_grad, value_grad, entropy_grad = map(sample.value.splat, weights)
    log_prob_grad = -policy_grad * sample.advantage
    gradients = distribution.functions.output_gradients(sample.outputs, sample.action, log_prob_grad, entropy_grad)
    gradients.append(value_grad * (sample.value - sample.target) * 2.0)
    *output_grads, value_gradient = (torch.where(sample.valid, gradient, 0.0) for gradient in gradients)
    return output_grads, value_gradient


def _backward_arguments(
    args: LossGradients, network: NetworkGrads, counts: tuple[Index, Index, Index], grad: ir.Value, scratch: ir.Value
) -> Backward:
    """The backward pass of one member through one network."""
    member, rows, output_rows = counts
    return Backward(
        members=member,
        rows=rows,
        output_rows=output_rows,
        x_rows=args.x_rows,
        x=args.x,
        grad=grad,
        layers=network.layers,
        leaf_grads=network.leaf_grads,
        x_grad=network.x_grad,
        scratch=scratch,
        workspace=args.workspace,
    )


def _sample_columns(
    builder: ir.IRBuilder, samples: Samples, place: tuple[Index, Index], distribution: Distribution, dtype: torch.dtype
) -> _Sample:
    """A member's samples; ``place`` is the member, and how many rows a member has."""
    member, rows = place
    real = FLOAT_TYPES[dtype]

    def column(base: ir.Value, element: ir.Type, first: Index, stride: int = 1) -> Column:
        return Column(element_address(builder, base, element, first), element, stride)

    def matrix(base: ir.Value, element: ir.Type, first: Index, width: int) -> list[Column]:
        return [column(base, element, first * width + k, width) for k in range(width)]

    size = distribution.size
    log_stds = [column(samples.log_std, real, member * size + k, 0) for k in range(distribution.log_stds)]
    action_type = IR_TYPES[distribution.action_dtype(dtype)]
    return _Sample(
        outputs=[*matrix(samples.outputs, real, member * samples.output_rows, size), *log_stds],
        value=column(samples.value, real, member * samples.value_rows),
        action=matrix(samples.action, action_type, member * rows, distribution.action_width),
        advantage=column(samples.advantage, real, member * rows),
        target=column(samples.target, real, member * rows),
        valid=column(samples.valid, IR_TYPES[torch.bool], member * rows),
    )
