"""Recursions over time: on CPU one compiled loop, elsewhere tensor operations for one time after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import flatten
from pgkit.kernels.signatures import Scan, TimeArray
from pgkit.system.cpu import use_compiled

COMPILED_DTYPES = (torch.float32, torch.float64, torch.int64, torch.bool)
"""The dtypes of compiled scans. Arithmetic between float32 and float64 cannot be compiled."""

_kernel = lazy_kernel("pgkit.kernels.codegen.scan:compile_scan")


def scan(
    step: Callable[..., Sequence[Any]],
    carried: Sequence[Tensor],
    inputs: Sequence[Tensor],
    outputs: Sequence[torch.dtype] = (),
    reverse: bool = False,
) -> list[Tensor]:
    """Go through time, as ``jax.lax.scan`` does, in each environment of each member.

    Discounted returns, ``G[t] = r[t] + gamma G[t + 1]``::

        def step(following, reward):
            value = reward + 0.99 * following
            return [value, value]

        (returns,) = scan(step, [torch.zeros(P, N)], [rewards], [torch.float32], reverse=True)

    Args:
        step: ``step(*carried, *inputs) -> [*carried, *outputs]`` of one environment at one time, see
            :mod:`pgkit.compiler.tracer`. Pass the same function object each time: its code is cached by it.
        carried: ``(P, N)`` each, contiguous, what a step hands to the next one; overwritten by what the last one does.
        inputs: ``(T, P, N)`` each.
        outputs: the dtypes of the outputs.
        reverse: begin with the last time.

    Returns:
        The outputs, ``(T, P, N)`` each; on CPU each member's numbers are contiguous.

    Raises:
        ValueError: the shapes do not fit together.
    """
    tensors = (*carried, *inputs)
    can_compile = all(tensor.dtype in COMPILED_DTYPES and not tensor.requires_grad for tensor in tensors)
    if not can_compile or not use_compiled(torch.float32, inputs[0].device):
        return _on_tensors(step, carried, inputs, reverse)
    inputs = [tensor if tensor.stride(2) in (0, 1) else tensor.contiguous() for tensor in inputs]
    shape = inputs[0].shape
    if any(tensor.shape != shape for tensor in inputs) or any(tensor.shape != shape[1:] for tensor in carried):
        shapes = [tuple(tensor.shape) for tensor in (*inputs, *carried)]
        raise ValueError(f"expected (T, P, N) and (P, N), got {shapes}")
    steps, members, count = shape
    results = [inputs[0].new_empty(members, steps, count, dtype=dtype).transpose(0, 1) for dtype in outputs]
    arguments = Scan(
        steps=steps,
        members=members,
        count=count,
        carried=tuple(tensor.data_ptr() for tensor in carried),
        arrays=tuple(TimeArray(tensor.data_ptr(), *tensor.stride()[:2]) for tensor in (*inputs, *results)),
    )
    carried_dtypes = tuple(tensor.dtype for tensor in carried)
    input_types = tuple((tensor.dtype, tensor.stride(2)) for tensor in inputs)
    _kernel(step, carried_dtypes, input_types, tuple(outputs), reverse)(*flatten(arguments))
    return results


def total(numbers: Tensor) -> Tensor:
    """The sum of each member's numbers, ``(P, B) -> (P,)``.

    On CPU they are added one after the other, so that the sum can be captured (:mod:`pgkit.compiler.graph_ops`) and
    zeros at the end do not change its bits.
    """
    if numbers.requires_grad or not use_compiled(numbers.dtype, numbers.device):
        return numbers.sum(1)
    sums = numbers.new_zeros(len(numbers), 1)
    scan(_add, [sums], [numbers.mT.unsqueeze(2)])
    return sums.squeeze(1)


def _add(total: Any, number: Any) -> list[Any]:
    return [total + number]


def _on_tensors(
    step: Callable[..., Sequence[Any]], carried: Sequence[Tensor], inputs: Sequence[Tensor], reverse: bool
) -> list[Tensor]:
    """The same by tensor operations, differentiable by autograd."""
    state: Sequence[Any] = carried
    rows = []
    for time in sorted(range(len(inputs[0])), reverse=reverse):
        results = step(*state, *(tensor[time] for tensor in inputs))
        state = results[: len(carried)]
        rows.append(results[len(carried) :])
    for tensor, last in zip(carried, state, strict=True):
        tensor.copy_(last.detach())
    columns = zip(*(rows[::-1] if reverse else rows), strict=True)
    return [torch.stack(column) for column in columns]
