"""Recursions over time: on CPU one compiled loop, elsewhere tensor operations time by time."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pgkit.system.cpu import use_compiled

COMPILED = (torch.float32, torch.float64, torch.int64, torch.bool)
"""What a compiled step can be of; one that does arithmetic with real numbers of two kinds cannot be compiled."""


def scan(
    step: Callable[..., Sequence[Any]],
    carried: Sequence[Tensor],
    inputs: Sequence[Tensor],
    outputs: Sequence[torch.dtype] = (),
    reverse: bool = False,
) -> list[Tensor]:
    """Go through time, as ``jax.lax.scan`` does, for each environment of each member by itself.

    Args:
        step: ``step(*carried, *inputs) -> [*carried, *outputs]`` at one time, written down for one element
            (:mod:`pgkit.compiler.tracer`); the same function each time, because code is kept by it.
        carried: ``(P, N)``, contiguous: what a step hands on to the next; changed in place.
        inputs: ``(T, P, N)``.
        outputs: what the outputs are.
        reverse: begin with the last time.

    Returns:
        the outputs, ``(T, P, N)`` each; on CPU the numbers of a member are one behind the other.
    """
    tensors = (*carried, *inputs)
    written = all(tensor.dtype in COMPILED and not tensor.requires_grad for tensor in tensors)
    if not written or not use_compiled(torch.float32, inputs[0].device):
        return _on_tensors(step, carried, inputs, reverse)
    inputs = [tensor if tensor.stride(2) in (0, 1) else tensor.contiguous() for tensor in inputs]
    shape = inputs[0].shape
    if any(tensor.shape != shape for tensor in inputs) or any(tensor.shape != shape[1:] for tensor in carried):
        raise ValueError(
            f"expected (T, P, N) and (P, N), got {[tuple(tensor.shape) for tensor in (*inputs, *carried)]}"
        )
    length, members, count = shape
    results = [inputs[0].new_empty(members, length, count, dtype=dtype).transpose(0, 1) for dtype in outputs]
    moving = [number for tensor in (*inputs, *results) for number in (tensor.data_ptr(), *tensor.stride()[:2])]
    kinds = tuple(tensor.dtype for tensor in carried), tuple((tensor.dtype, tensor.stride(2)) for tensor in inputs)
    _kernel(step, *kinds, tuple(outputs), reverse)(*shape, *(tensor.data_ptr() for tensor in carried), *moving)
    return results


def total(numbers: Tensor) -> Tensor:
    """``(P, B) -> (P,)``, on CPU added up one after the other, so that it can be captured
    (:mod:`pgkit.compiler.graph_ops`)."""
    if numbers.requires_grad or not use_compiled(numbers.dtype, numbers.device):
        return numbers.sum(1)
    sums = numbers.new_zeros(len(numbers), 1)
    scan(_added, [sums], [numbers.mT.unsqueeze(2)])
    return sums.squeeze(1)


def _added(total: Any, number: Any) -> list[Any]:
    return [total + number]


def _on_tensors(
    step: Callable[..., Sequence[Any]], carried: Sequence[Tensor], inputs: Sequence[Tensor], reverse: bool
) -> list[Tensor]:
    now: Sequence[Any] = carried
    record = []
    for time in sorted(range(len(inputs[0])), reverse=reverse):
        results = step(*now, *(tensor[time] for tensor in inputs))
        now = results[: len(carried)]
        record.append(results[len(carried) :])
    for tensor, last in zip(carried, now, strict=True):
        tensor.copy_(last.detach())
    columns = zip(*(record[::-1] if reverse else record), strict=True)
    return [torch.stack(column) for column in columns]


@lru_cache
def _kernel(step: Callable[..., Sequence[Any]], *form: Any) -> Callable[..., None]:
    from pgkit.kernels.codegen.scan import compile_scan  # LLVM is loaded where something is compiled

    return compile_scan(step, *form)
