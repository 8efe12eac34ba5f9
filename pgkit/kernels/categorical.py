"""The categorical distribution: of tensors, and written down for one sample (:mod:`pgkit.compiler.tracer`) and
compiled."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pgkit.system.cpu import use_compiled

MAX_COMPILED_CHOICES = 64
"""Of so many choices a distribution is written down, one after the other."""


def is_compiled(outputs: Tensor) -> bool:
    """Whether distributions with these outputs ``(..., L)`` are."""
    return outputs.shape[-1] <= MAX_COMPILED_CHOICES and use_compiled(outputs.dtype, outputs.device)


def log_probs(outputs: Tensor) -> Tensor:
    """``(..., B, L) -> (..., L, B)``: down columns, a softmax runs as vector code."""
    return torch.log_softmax(outputs.mT, -2)


def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
    """Of actions ``(..., B)``, by outputs ``(..., B, L)``."""
    return log_probs(outputs).gather(-2, action.unsqueeze(-2)).squeeze(-2)


def entropy(outputs: Tensor) -> Tensor:
    """``(..., B, L) -> (..., B)``, in nats."""
    logs = log_probs(outputs)
    return -(logs.exp() * logs).sum(-2)


def sample(outputs: Sequence[Any], uniform: Any) -> Any:
    """The choice that a uniform number falls upon, int64."""
    weights = [torch.exp(output) for output in _below_highest(outputs)]
    sums = [weights[0]]
    for weight in weights[1:]:
        sums.append(sums[-1] + weight)
    sought, choice = uniform * sums[-1], (uniform > 1.0).to(torch.int64)  # none is
    for upto in sums[:-1]:
        choice = choice + (upto < sought).to(torch.int64)
    return choice


def most_likely(outputs: Sequence[Any]) -> Any:
    """The first of the choices with the highest output, int64."""
    highest, choice = outputs[0], (outputs[0] > outputs[0]).to(torch.int64)  # it is not: 0
    for number, output in enumerate(outputs[1:], 1):
        choice = torch.where(output > highest, number, choice)
        highest = torch.maximum(highest, output)
    return choice


def compiled_sample(outputs: Tensor, uniform: Tensor) -> Tensor:
    """Choices ``(...)``, int64, by outputs ``(..., L)`` and numbers in (0, 1) of their shape but for the last axis."""
    outputs, action = outputs.contiguous(), outputs.new_empty(outputs.shape[:-1], dtype=torch.int64)
    uniform = uniform.to(outputs).expand(action.shape).contiguous()
    _sampler(outputs.shape[-1], outputs.dtype)(
        action.numel(), *_columns(outputs), uniform.data_ptr(), action.data_ptr()
    )
    return action


def compiled_kl(outputs: Tensor, other: Tensor) -> Tensor:
    """``(..., L) -> (...)``, see :func:`divergence`."""
    pair, results = (outputs.contiguous(), other.contiguous()), outputs.new_empty(outputs.shape[:-1])
    columns = [place for matrix in pair for place in _columns(matrix)]
    _diverging(outputs.shape[-1], outputs.dtype)(results.numel(), *columns, results.data_ptr())
    return results


def divergence(outputs: Sequence[Any], other: Sequence[Any]) -> Any:
    """KL(outputs || other), in nats."""
    (logs, weights), (others, _) = _logs_and_weights(outputs), _logs_and_weights(other)
    return sum(weight * (log - own) for weight, log, own in zip(weights, logs, others, strict=True))


def terms(outputs: Sequence[Any], value: Any, action: Any, advantage: Any, target: Any, valid: Any) -> list[Any]:
    """What a sample adds to the sums that the means of :func:`pgkit.losses.actor_critic_terms` are made of."""
    logs, weights = _logs_and_weights(outputs)
    taken = logs[0]
    for choice, log in enumerate(logs[1:], 1):
        taken = torch.where(action == choice, log, taken)
    error = value - target
    of_sample = taken * advantage, error * error, _entropy_of(logs, weights)
    return [torch.where(valid, term, 0.0) for term in of_sample]


def gradients(
    outputs: Sequence[Any], value: Any, action: Any, advantage: Any, target: Any, valid: Any, *of: Any
) -> list[Any]:
    """Those of a sample's outputs and value, by those of the three means over the number of samples."""
    (logs, weights), (of_policy, of_error, of_entropy) = _logs_and_weights(outputs), of
    of_log_prob, own_entropy = -of_policy * advantage, _entropy_of(logs, weights)
    of_outputs = [
        of_log_prob * torch.where(action == choice, 1.0 - weight, -weight) - of_entropy * weight * (log + own_entropy)
        for choice, (log, weight) in enumerate(zip(logs, weights, strict=True))
    ]
    return [torch.where(valid, grad, 0.0) for grad in (*of_outputs, of_error * (value - target) * 2.0)]


def _entropy_of(logs: Sequence[Any], weights: Sequence[Any]) -> Any:
    return -sum(weight * log for weight, log in zip(weights, logs, strict=True))


def _logs_and_weights(outputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Of all choices, the logarithms of the probabilities, and the probabilities."""
    below = _below_highest(outputs)
    total: Any = sum(torch.exp(output) for output in below)
    log_total = torch.log(total)
    logs = [output - log_total for output in below]
    return logs, [torch.exp(log) for log in logs]


def _below_highest(outputs: Sequence[Any]) -> list[Any]:
    highest = outputs[0]
    for output in outputs[1:]:
        highest = torch.maximum(highest, output)
    return [output - highest for output in outputs]


def _columns(matrix: Tensor) -> Sequence[int]:
    """Where the columns of a contiguous ``(..., L)`` begin."""
    size, width = matrix.element_size(), matrix.shape[-1]
    return range(matrix.data_ptr(), matrix.data_ptr() + width * size, size) if matrix.numel() else [0] * width


@lru_cache
def _sampler(choices: int, dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.compiler.elementwise import compile_elementwise  # LLVM is loaded where something is compiled

    inputs = [(dtype, choices)] * choices + [(dtype, 1)]
    return compile_elementwise(lambda *numbers: [sample(numbers[:-1], numbers[-1])], inputs, [(torch.int64, 1)])


@lru_cache
def _diverging(choices: int, dtype: torch.dtype) -> Callable[..., None]:
    from pgkit.compiler.elementwise import compile_elementwise

    def of_row(*numbers: Any) -> list[Any]:
        return [divergence(numbers[:choices], numbers[choices:])]

    return compile_elementwise(of_row, [(dtype, choices)] * 2 * choices, [(dtype, 1)])
