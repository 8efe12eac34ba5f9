"""At which sharpness an optimizer's rule diverges on a quadratic, and how a measured sharpness compares.

On a quadratic of curvature k the rules below are linear. They diverge when k exceeds a threshold, at which the spectral
radius of the map is 1: 2 / lr for gradient descent, and for momentum more. Optimizers with a second moment are stable
in the preconditioned curvature ``D^-1/2 H D^-1/2``, ``D = sqrt(v) + eps``, with D held fixed. Networks that train on
full batches stay near their threshold (Cohen et al. 2021, arXiv 2103.00065; 2022, arXiv 2207.14484); with small batches
no such thing holds, so a ratio is a number to look at, and no verdict.

    threshold = 2 (1 + momentum) / rate,      Nesterov: 2 (1 + momentum) / ((1 + 2 momentum) rate)

>>> linear_rule("adam", {"lr": 0.01}).threshold  # 38 / lr
3800.0...
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pgkit.diagnose.lanczos import Product
from pgkit.diagnose.results import Quantity
from pgkit.errors import PgkitError
from pgkit.optim import spec


class LinearRule(NamedTuple):
    """What an optimizer does to a quadratic: ``b = momentum b + g; p = p - rate b`` (Nesterov: ``g + momentum b``).

    Attributes:
        rate: the learning rate, with whatever multiplies the gradient on its way into b.
        momentum: in [0, 1).
        nesterov: whether the step looks ahead.
        preconditioned: whether the gradient is divided by ``sqrt(v) + eps`` first.
    """

    rate: float
    momentum: float = 0.0
    nesterov: bool = False
    preconditioned: bool = False

    @property
    def threshold(self) -> float:
        """The largest stable curvature."""
        base = 2 * (1 + self.momentum) / self.rate
        return base / (1 + 2 * self.momentum) if self.nesterov else base


def linear_rule(name: str, settings: Mapping[str, Any]) -> LinearRule:
    """Describe an optimizer of pgkit as a linear rule.

    Weight decay is left out: added to the gradient, it adds itself to every curvature. So is Adam's bias correction,
    which is gone after 1 / (1 - beta2) steps.

    Args:
        name: such as ``"adam"``.
        settings: its hyperparameters, numbers; those that are missing have their defaults. With a schedule, the
            learning rate of that time.

    Raises:
        PgkitError: there is no such optimizer, or its stability is not known.
    """
    entry = spec(name)
    values = {**entry.defaults, **settings}
    rules = {
        "sgd": lambda: LinearRule(values["lr"]),
        "momentum": lambda: LinearRule(values["lr"] * (1 - values["dampening"]), values["momentum"]),
        "nesterov": lambda: LinearRule(values["lr"], values["momentum"], nesterov=True),
        "rmsprop": lambda: LinearRule(values["lr"], values["momentum"], preconditioned=True),
    }
    # Adam's average is momentum with dampening: m = beta1 m + (1 - beta1) g.
    for adam in ("adam", "adamw", "amsgrad"):
        rules[adam] = lambda: LinearRule(values["lr"] * (1 - values["beta1"]), values["beta1"], preconditioned=True)
    if entry.name not in rules:
        raise PgkitError(f"no threshold of stability is known for optimizer {name!r}: one of {', '.join(rules)}")
    return rules[entry.name]()


def root_radius(rule: LinearRule, sharpness: float) -> float:
    """The spectral radius of a rule on a quadratic: per step, the distance to the minimum shrinks or grows by it.

    >>> root_radius(LinearRule(rate=0.1), sharpness=15.0)  # |1 - 1.5|
    0.5

    Args:
        rule: the rule.
        sharpness: curvature of the loss, preconditioned if the rule is.
    """
    momentum = rule.momentum
    gradient_row = [momentum, sharpness]  # of the new b, from (b, p)
    step_row = [momentum * momentum, (1 + momentum) * sharpness] if rule.nesterov else gradient_row
    matrix = [gradient_row, [-rule.rate * step_row[0], 1 - rule.rate * step_row[1]]]
    return float(np.abs(np.linalg.eigvals(np.array(matrix))).max())


def loss_curvature(
    curvature: Quantity, reward_scale: float = 1.0, mean_length: float | None = None, clip_factor: float = 1.0
) -> Quantity:
    """Turn v'Hv of the expected return J into the curvature of the loss along v, whose gradient the optimizer sees.

    The loss falls where J rises, so the sign turns and the ends of the interval change places.

    >>> loss_curvature(Quantity(-100.0, -120.0, -80.0, 9), mean_length=50.0)
    Quantity(value=2.0, low=1.6, high=2.4, n=9, reason=None)

    Args:
        curvature: v'Hv of J, in units of the return.
        reward_scale: learner's reward / environment's reward.
        mean_length: of episodes, if the loss is a mean over steps; None if it is a mean over episodes.
        clip_factor: by which clipping shortens the gradient, in (0, 1].
    """
    factor = reward_scale * clip_factor / (mean_length or 1.0)
    return curvature._replace(
        value=-factor * curvature.value, low=-factor * curvature.high, high=-factor * curvature.low
    )


def sharpness_ratio(sharpness: Quantity, rule: LinearRule) -> Quantity:
    """The sharpness in units of the rule's threshold: above 1, the rule diverges on a quadratic.

    >>> sharpness_ratio(Quantity(10.0, 8.0, 12.0, 9), LinearRule(rate=0.1)).value
    0.5
    """
    limit = rule.threshold
    return sharpness._replace(value=sharpness.value / limit, low=sharpness.low / limit, high=sharpness.high / limit)


def precondition(vector: Tensor, second_moment: Tensor, eps: float) -> Tensor:
    """Compute ``D^-1/2 v``, ``D = sqrt(second_moment) + eps``.

    For a unit v, the curvature of J along the result is that of the preconditioned matrix along v.

    >>> import torch
    >>> precondition(torch.tensor([2.0]), torch.tensor([16.0]), eps=0.0)
    tensor([1.], dtype=torch.float64)

    Args:
        vector: ``(D,)``.
        second_moment: ``(D,)``, the optimizer's estimate of the gradient's square, with its bias corrected.
        eps: what the optimizer adds behind the root.

    Raises:
        ValueError: the shapes differ.
    """
    if vector.shape != second_moment.shape:
        raise ValueError(f"expected two vectors (D,), got {tuple(vector.shape)} and {tuple(second_moment.shape)}")
    return vector.double() / (second_moment.double().sqrt() + eps).sqrt()


def preconditioned(product: Product, second_moment: Tensor, eps: float) -> Product:
    """Make ``v -> D^-1/2 H D^-1/2 v`` of ``v -> H v``, for :func:`pgkit.diagnose.lanczos.lanczos`.

    Arguments as :func:`precondition`.
    """

    def apply(vector: Tensor) -> Tensor:
        return precondition(product(precondition(vector, second_moment, eps)), second_moment, eps)

    return apply
