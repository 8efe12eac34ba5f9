"""The named optimizers: each a short chain beside its formula.

p parameters, g gradient, t the number of this step (from 1); every hyperparameter is a number, one per member, or a
schedule. Defaults are those of PyTorch.
"""

from pgkit.optim.chain import chain
from pgkit.optim.core import Hyper, Optimizer, Transform
from pgkit.optim.hyperparameters import is_zero
from pgkit.optim.transforms import adam_step, add_weight_decay, scale_by_rate, scale_by_rms, trace


def sgd(lr: Hyper = 1e-3, weight_decay: Hyper = 0.0) -> Optimizer:
    """p = p - lr g.

    Source: Robbins and Monro 1951; torch.optim.SGD.
    """
    return chain(*l2(weight_decay), scale_by_rate(lr))


def momentum(lr: Hyper = 1e-3, momentum: Hyper = 0.9, dampening: Hyper = 0.0, weight_decay: Hyper = 0.0) -> Optimizer:
    """b = momentum b + (1 - dampening) g, b = g at first; p = p - lr b.

    Source: Polyak 1964; torch.optim.SGD(momentum=...).
    """
    return chain(*l2(weight_decay), trace(momentum, dampening), scale_by_rate(lr))


def nesterov(lr: Hyper = 1e-3, momentum: Hyper = 0.9, weight_decay: Hyper = 0.0) -> Optimizer:
    """b = momentum b + g; p = p - lr (g + momentum b).

    Source: Nesterov 1983 in the form of Sutskever et al. 2013; torch.optim.SGD(nesterov=True).
    """
    return chain(*l2(weight_decay), trace(momentum, nesterov=True), scale_by_rate(lr))


def rmsprop(
    lr: Hyper = 1e-2,
    alpha: Hyper = 0.99,
    eps: Hyper = 1e-8,
    momentum: Hyper = 0.0,
    centered: bool = False,
    weight_decay: Hyper = 0.0,
) -> Optimizer:
    """v = alpha v + (1 - alpha) g^2 from 0; p = p - lr g / (sqrt(v) + eps).

    Centered: v minus the square of a = alpha a + (1 - alpha) g. With momentum: b = momentum b + g / (sqrt(v) + eps);
    p = p - lr b.

    Source: Tieleman and Hinton 2012; torch.optim.RMSprop.
    """
    parts = [scale_by_rms(alpha, eps, centered), *([] if is_zero(momentum) else [trace(momentum)]), scale_by_rate(lr)]
    return chain(*l2(weight_decay), *parts)


def adam(
    lr: Hyper = 1e-3, beta1: Hyper = 0.9, beta2: Hyper = 0.999, eps: Hyper = 1e-8, weight_decay: Hyper = 0.0
) -> Optimizer:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    Source: Kingma and Ba 2015 (arXiv 1412.6980); torch.optim.Adam.
    """
    return chain(*l2(weight_decay), adam_step(lr, beta1, beta2, eps))


def l2(weight_decay: Hyper) -> list[Transform]:
    """Weight decay coupled to the gradient; nothing at all where every member has none."""
    return [] if is_zero(weight_decay) else [add_weight_decay(weight_decay)]
