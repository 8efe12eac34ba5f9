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
from pgkit.kernels.distribution import LossSpec
from pgkit.kernels.signatures import Backward, LossGradients, LossMeans, NetworkGrads, Samples

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation

NUM_LOSSES = 3
"""Means that gradients flow through: policy loss, value loss and entropy."""


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
    old_log_prob: Any = None
    old_value: Any = None
    clip_range: Any = None
    clip_range_vf: Any = None

    def read(self, builder: ir.IRBuilder, row: Index, width: int) -> "_Sample":
        """The numbers of ``width`` samples from ``row`` on, if these are columns."""

        def numbers(columns: Any) -> Any:
            is_one = isinstance(columns, Column)
            if columns is None:
                return None
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


def compile_means(spec: LossSpec, dtype: torch.dtype) -> Callable[..., None]:
    """A kernel of :class:`LossMeans`."""
    real = FLOAT_TYPES[dtype]
    builder, args = define_function(ir.Module(), "means", LossMeans, alias=True)
    rows_of = member_rows(builder, args.sizes, args.rows)
    sums = _Sums(builder, real, spec.means + 1)
    with for_range(builder, args.members) as member:
        columns = _sample_columns(builder, args.samples, (member, args.rows), spec, dtype)
        sums.reset()

        def add(row: Index, width: int) -> None:
            sample = columns.read(builder, row, width)
            sums.add(width, [*_loss_terms(spec, sample), sample.valid.to(dtype)])

        vector_loop(builder, rows_of(member), add)
        policy, *others, samples = sums.totals()
        count = torch.clamp(samples, min=1.0)
        means = [-(policy / count), *(total / count for total in others), count]
        for row, mean in enumerate(means):
            store(builder, mean, args.means, args.members * row + member)
    builder.ret_void()
    return compile_function(builder.function)


def _loss_terms(spec: LossSpec, sample: _Sample) -> list[Any]:
    """One sample's terms in the sums of :func:`pgkit.losses.actor_critic_terms`, or of the clipped losses.

    Returns:
        ``log_prob * advantage`` or the clipped surrogate, ``(value - target)^2`` or the clipped one, and the entropy;
        then the divergence from the policy that acted, and whether the ratio is outside of the interval. 0 where the
        sample is not valid.
    """
    log_prob, entropy = spec.distribution.functions.log_prob_and_entropy(sample.outputs, sample.action)
    error = sample.value - sample.target
    square = error * error
    if spec.clip_value:
        clipped_error = _clipped_error(sample, error)
        square = torch.maximum(square, clipped_error * clipped_error)
    terms = [log_prob * sample.advantage, square, entropy]
    if spec.ratio:
        log_ratio = log_prob - sample.old_log_prob
        ratio = torch.exp(log_ratio)
        terms.append((ratio - 1.0) - log_ratio)
    if spec.clip:
        terms[0] = torch.minimum(ratio * sample.advantage, _clipped(ratio, sample.clip_range) * sample.advantage)
        terms.append((torch.abs(ratio - 1.0) > sample.clip_range).to(ratio.dtype))
    return [torch.where(sample.valid, term, 0.0) for term in terms]


def _clipped(ratio: Any, limit: Any) -> Any:
    """A ratio of probabilities, limited to the interval of the clipped surrogate."""
    return torch.minimum(torch.maximum(ratio, 1.0 - limit), 1.0 + limit)


def _clipped_error(sample: _Sample, error: Any) -> Any:
    """The error of a value that has changed by no more than the limit, see :func:`pgkit.losses.clipped_value_loss`."""
    near = sample.old_value - sample.target
    change = error - near
    limit = torch.where(change < 0.0, -sample.clip_range_vf, sample.clip_range_vf)
    return torch.where(torch.abs(change) <= sample.clip_range_vf, error, near + limit)


def compile_gradients(
    activation: "Activation", spec: LossSpec, networks: int, dtype: torch.dtype
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
    distribution = spec.distribution
    size = distribution.network_outputs
    output_grad = args.scratch
    value_grad = element_pointer(builder, output_grad, real, args.rows * size)
    scratch = element_pointer(builder, value_grad, real, args.rows)
    results = [Column(element_pointer(builder, output_grad, real, k), real, size) for k in range(size)]
    results += [Column(value_grad, real)] * (networks - 1)
    log_std_sums = [Variable(builder, real) for _ in range(distribution.log_stds)]
    with for_range(builder, args.members) as member:
        columns = _sample_columns(builder, args.samples, (member, args.rows), spec, dtype)
        weights = _loss_weights(builder, args, member, spec, real)
        for variable in log_std_sums:
            variable.set(real(0.0))

        def write_gradients(row: Index, width: int) -> None:
            sample = columns.read(builder, row, width)
            output_grads, sample_value_grad = _loss_gradients(spec, sample, weights)
            for column, gradient in zip(results, [*output_grads[:size], sample_value_grad], strict=False):
                column.write(gradient, row, width)
            for variable, gradient in zip(log_std_sums, output_grads[size:], strict=True):
                _add_in_order(variable, gradient, width)

        vector_loop(builder, rows_of(member), write_gradients)
        for component, variable in enumerate(log_std_sums):
            store(builder, variable.get(), args.log_std_grad, member * distribution.log_stds + component)
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


def _loss_weights(
    builder: ir.IRBuilder, args: LossGradients, member: Index, spec: LossSpec, real: ir.Type
) -> list[ir.Value]:
    """The gradients of a member's policy loss, value loss and entropy, divided by the number of its samples."""
    count = load(builder, real, args.means, args.members * spec.means + member)
    return [builder.fdiv(load(builder, real, args.grads, args.members * k + member), count) for k in range(NUM_LOSSES)]


def _loss_gradients(spec: LossSpec, sample: _Sample, weights: Sequence[ir.Value]) -> tuple[list[Any], Any]:
    """The gradients of one sample's outputs, and that of its value; 0 where the sample is not valid.

    Args:
        spec: of the losses.
        sample: its numbers.
        weights: see :func:`_loss_weights`.
    """
    policy_grad, value_grad, entropy_grad = map(sample.value.splat, weights)
    functions = spec.distribution.functions
    weight = sample.advantage
    if spec.clip:
        log_prob, _ = functions.log_prob_and_entropy(sample.outputs, sample.action)
        ratio = torch.exp(log_prob - sample.old_log_prob)
        surrogate = ratio * weight
        weight = torch.where(surrogate <= _clipped(ratio, sample.clip_range) * weight, surrogate, 0.0)
    error = sample.value - sample.target
    if spec.clip_value:
        clipped_error = _clipped_error(sample, error)
        error = torch.where(error * error >= clipped_error * clipped_error, error, 0.0)
    gradients = functions.output_gradients(sample.outputs, sample.action, -policy_grad * weight, entropy_grad)
    gradients.append(value_grad * error * 2.0)
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
    builder: ir.IRBuilder, samples: Samples, place: tuple[Index, Index], spec: LossSpec, dtype: torch.dtype
) -> _Sample:
    """A member's samples; ``place`` is the member, and how many rows a member has."""
    member, rows = place
    real = FLOAT_TYPES[dtype]

    def column(base: ir.Value, element: ir.Type, first: Index, stride: int = 1) -> Column:
        return Column(element_address(builder, base, element, first), element, stride)

    def matrix(base: ir.Value, element: ir.Type, first: Index, width: int) -> list[Column]:
        return [column(base, element, first * width + k, width) for k in range(width)]

    distribution = spec.distribution
    size = distribution.network_outputs
    log_stds = [
        column(samples.log_std, real, member * distribution.log_stds + k, 0) for k in range(distribution.log_stds)
    ]
    action_type = IR_TYPES[distribution.action_dtype(dtype)]
    return _Sample(
        outputs=[*matrix(samples.outputs, real, member * samples.output_rows, size), *log_stds],
        value=column(samples.value, real, member * samples.value_rows),
        action=matrix(samples.action, action_type, member * rows, distribution.action_width),
        advantage=column(samples.advantage, real, member * rows),
        target=column(samples.target, real, member * rows),
        valid=column(samples.valid, IR_TYPES[torch.bool], member * rows),
        old_log_prob=column(samples.old_log_prob, real, member * rows) if spec.ratio else None,
        old_value=column(samples.old_value, real, member * rows) if spec.clip_value else None,
        clip_range=column(samples.clip_range, real, member, 0) if spec.clip else None,
        clip_range_vf=column(samples.clip_range_vf, real, member, 0) if spec.clip_value else None,
    )
