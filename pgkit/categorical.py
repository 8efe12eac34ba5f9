"""The categorical distribution, written down for one sample (:mod:`pgkit.elements`) and compiled."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pgkit.machine import compiles

MOST_COMPILED = 64
"""Of so many choices a distribution is written down, one after the other."""


def is_compiled(outputs: Tensor) -> bool:
    """Whether distributions with these outputs ``(..., L)`` are."""
    return outputs.shape[-1] <= MOST_COMPILED and compiles(outputs.dtype, outputs.device)


def pick(outputs: Sequence[Any], uniform: Any) -> Any:
    """The choice that a uniform number falls upon, int64."""
    weights = [torch.exp(output) for output in _below_highest(outputs)]
    sums = [weights[0]]
    for weight in weights[1:]:
        sums.append(sums[-1] + weight)
    sought, choice = uniform * sums[-1], (uniform > 1.0).to(torch.int64)  # none is
    for upto in sums[:-1]:
        choice = choice + (upto < sought).to(torch.int64)
    return choice


def compiled_sample(outputs: Tensor, uniform: Tensor) -> Tensor:
    """Choices ``(...)``, int64, by outputs ``(..., L)`` and numbers in (0, 1) of their shape but for the last axis."""
    outputs, action = outputs.contiguous(), outputs.new_empty(outputs.shape[:-1], dtype=torch.int64)
    uniform = uniform.to(outputs.dtype).expand(action.shape).contiguous()
    _sampler(outputs.shape[-1], outputs.dtype)(
        action.numel(), *_columns(outputs), uniform.data_ptr(), action.data_ptr()
    )
    return action


def compiled_evaluation(outputs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities of choices ``(...)`` by outputs ``(..., L)``, and entropies; differentiable."""
    log_prob, entropy = _Evaluation.apply(outputs, action)  # type: ignore[no-untyped-call]
    return log_prob, entropy


class _Evaluation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        outputs, action = outputs.contiguous(), action.contiguous()
        if action.shape != outputs.shape[:-1] or action.dtype != torch.int64:
            raise ValueError(
                f"expected int64 {tuple(outputs.shape[:-1])} choices, got {action.dtype} {tuple(action.shape)}"
            )
        ctx.save_for_backward(outputs, action)
        log_prob, entropy = outputs.new_empty(action.shape), outputs.new_empty(action.shape)
        tensors = action, log_prob, entropy
        evaluate, _ = _evaluators(outputs.shape[-1], outputs.dtype)
        evaluate(action.numel(), *_columns(outputs), *(tensor.data_ptr() for tensor in tensors))
        return log_prob, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        outputs, action = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody asks for second derivatives
            return torch.stack(_differentiated(outputs.unbind(-1), action, *grads), -1), None
        result, (of_log_prob, of_entropy) = torch.empty_like(outputs), (grad.contiguous() for grad in grads)
        _, differentiate = _evaluators(outputs.shape[-1], outputs.dtype)
        tensors = action, of_log_prob, of_entropy
        columns = *_columns(outputs), *(tensor.data_ptr() for tensor in tensors), *_columns(result)
        differentiate(action.numel(), *columns)
        return result, None


def _evaluated(outputs: Sequence[Any], action: Any) -> list[Any]:
    """The logarithm of a choice's probability, and the entropy."""
    logs, weights = _log_probs(outputs)
    entropy = -sum(weight * log for weight, log in zip(weights, logs, strict=True))
    return [_chosen(logs, action), entropy]


def _differentiated(outputs: Sequence[Any], action: Any, of_log_prob: Any, of_entropy: Any) -> list[Any]:
    """The gradient of the outputs from those of the results."""
    logs, weights = _log_probs(outputs)
    entropy = -sum(weight * log for weight, log in zip(weights, logs, strict=True))
    return [
        of_log_prob * (torch.where(action == choice, 1.0 - weight, -weight)) - of_entropy * weight * (log + entropy)
        for choice, (log, weight) in enumerate(zip(logs, weights, strict=True))
    ]


def _log_probs(outputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Of all choices, the logarithms of the probabilities, and the probabilities."""
    below = _below_highest(outputs)
    total = sum(torch.exp(output) for output in below)
    logs = [output - torch.log(total) for output in below]
    return logs, [torch.exp(log) for log in logs]


def _below_highest(outputs: Sequence[Any]) -> list[Any]:
    highest = outputs[0]
    for output in outputs[1:]:
        highest = torch.maximum(highest, output)
    return [output - highest for output in outputs]


def _chosen(numbers: Sequence[Any], action: Any) -> Any:
    """The number of a choice."""
    found = numbers[0]
    for choice, number in enumerate(numbers[1:], 1):
        found = torch.where(action == choice, number, found)
    return found


def _columns(matrix: Tensor) -> Sequence[int]:
    """Where the columns of a contiguous ``(..., L)`` begin."""
    size, width = matrix.element_size(), matrix.shape[-1]
    return range(matrix.data_ptr(), matrix.data_ptr() + width * size, size) if matrix.numel() else [0] * width


@lru_cache
def _sampler(choices: int, dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.elements import compile_rows  # LLVM is loaded where something is compiled

    inputs = [(dtype, choices)] * choices + [(dtype, 1)]
    return compile_rows(lambda row, *numbers: [pick(numbers[:-1], numbers[-1])], inputs, [(torch.int64, 1)])


@lru_cache
def _evaluators(choices: int, dtype: torch.dtype) -> tuple[Callable[..., None], Callable[..., None]]:
    from pgkit.elements import compile_rows

    outputs, number = [(dtype, choices)] * choices, (dtype, 1)
    inputs = [*outputs, (torch.int64, 1)]
    return (
        compile_rows(lambda row, *x: _evaluated(x[:choices], x[choices]), inputs, [number, number]),
        compile_rows(lambda row, *x: _differentiated(x[:choices], *x[choices:]), [*inputs, number, number], outputs),
    )
