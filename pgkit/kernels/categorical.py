"""The categorical distribution: by tensor operations, and for one sample, from which kernels are compiled.

``outputs`` are unnormalised log-probabilities (logits) of L choices. The first functions work on tensors. Those of a
``Sequence`` of outputs describe one sample: they are traced (:mod:`pgkit.compiler.tracer`) and become loops over
samples, in :mod:`pgkit.kernels.distribution`, in rollouts, and in the losses of policies.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_COMPILED_CHOICES = 64
"""The largest number of choices that is compiled: the code has a few instructions for each choice, without a loop."""

LOWEST_LOG = torch.finfo(torch.float32).min
"""Log-probabilities are at least this where they are multiplied by their probability: 0 times -inf is 0 here, not NaN.

A choice has no probability at all if its logit is -inf, or below the highest by more than the largest number.
"""


def log_probs(outputs: Tensor) -> Tensor:
    """Log-probabilities, ``(..., B, L) -> (..., L, B)``: PyTorch vectorizes a softmax down columns, not along rows."""
    return torch.log_softmax(outputs.mT, -2)


def log_prob(outputs: Tensor, action: Tensor) -> Tensor:
    """Log-probabilities of actions, ``(..., B, L), (..., B) -> (..., B)``."""
    return log_probs(outputs).gather(-2, action.unsqueeze(-2)).squeeze(-2)


def entropy(outputs: Tensor) -> Tensor:
    """Entropies in nats, ``(..., B, L) -> (..., B)``."""
    logs = log_probs(outputs)
    return -(logs.exp() * logs.clamp(min=LOWEST_LOG)).sum(-2)


def kl(outputs: Tensor, other: Tensor) -> Tensor:
    """KL(outputs || other) in nats, two ``(..., B, L) -> (..., B)``; inf where only ``other`` excludes a choice."""
    logs = log_probs(outputs)
    probs = logs.exp()
    return (probs * torch.where(probs == 0, 0.0, logs - log_probs(other))).sum(-2)


def sample(outputs: Sequence[Any], uniforms: Sequence[Any]) -> list[Any]:
    """The choice of one sample, int64, by inverting the cumulative distribution at a uniform number."""
    (uniform,) = uniforms
    weights = [torch.exp(output) for output in _below_highest(outputs)]
    cumulative = [weights[0]]
    for weight in weights[1:]:
        cumulative.append(cumulative[-1] + weight)
    threshold = uniform * cumulative[-1]
    choice = (uniform > 1.0).to(torch.int64)  # 0: a traced value has to begin with a traced value
    for bound in cumulative[:-1]:
        choice = choice + (bound < threshold).to(torch.int64)
    return [choice]


def mode(outputs: Sequence[Any]) -> list[Any]:
    """The choice with the highest output, int64; of several the first."""
    highest = outputs[0]
    choice = (highest > highest).to(torch.int64)  # 0, as above
    for number, output in enumerate(outputs[1:], 1):
        choice = torch.where(output > highest, number, choice)
        highest = torch.maximum(highest, output)
    return [choice]


def kl_divergence(outputs: Sequence[Any], other: Sequence[Any]) -> Any:
    """KL(outputs || other) of one sample, in nats."""
    logs, probs = _logs_and_probs(outputs)
    other_logs, _ = _logs_and_probs(other)
    return sum(
        prob * torch.where(prob == 0.0, 0.0, log - other_log)
        for prob, log, other_log in zip(probs, logs, other_logs, strict=True)
    )


def log_prob_and_entropy(outputs: Sequence[Any], action: Sequence[Any]) -> tuple[Any, Any]:
    """The log-probability of one action and the entropy, in nats."""
    logs, probs = _logs_and_probs(outputs)
    (chosen,) = action
    log_prob_of_action = logs[0]
    for choice, log in enumerate(logs[1:], 1):
        log_prob_of_action = torch.where(chosen == choice, log, log_prob_of_action)
    return log_prob_of_action, _entropy(logs, probs)


def output_gradients(outputs: Sequence[Any], action: Sequence[Any], log_prob_grad: Any, entropy_grad: Any) -> list[Any]:
    """The gradients of one sample's outputs.

    With p the probabilities and H the entropy, d log p[a] / d output[i] = (i = a) - p[i], and
    dH / d output[i] = -p[i] (log p[i] + H).

    Args:
        outputs: of L choices.
        action: the choice.
        log_prob_grad: the gradient of the action's log-probability.
        entropy_grad: the gradient of the entropy.
    """
    logs, probs = _logs_and_probs(outputs)
    (chosen,) = action
    sample_entropy = _entropy(logs, probs)
    return [
        log_prob_grad * torch.where(chosen == choice, 1.0 - prob, -prob)
        - entropy_grad * prob * (_multipliable(log) + sample_entropy)
        for choice, (log, prob) in enumerate(zip(logs, probs, strict=True))
    ]


def _entropy(logs: Sequence[Any], probs: Sequence[Any]) -> Any:
    return -sum(prob * _multipliable(log) for prob, log in zip(probs, logs, strict=True))


def _multipliable(log: Any) -> Any:
    return torch.where(log < LOWEST_LOG, LOWEST_LOG, log)


def _logs_and_probs(outputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Log-probabilities and probabilities of all choices."""
    shifted = _below_highest(outputs)
    total: Any = sum(torch.exp(output) for output in shifted)
    log_total = torch.log(total)
    logs = [output - log_total for output in shifted]
    return logs, [torch.exp(log) for log in logs]


def _below_highest(outputs: Sequence[Any]) -> list[Any]:
    """The outputs minus the highest one, so that no exponential overflows."""
    highest = outputs[0]
    for output in outputs[1:]:
        highest = torch.maximum(highest, output)
    return [output - highest for output in outputs]
