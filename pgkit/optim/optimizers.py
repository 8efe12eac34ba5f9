"""The named optimizers: each a short chain beside its formula and source.

p are the parameters, g the gradient, t the number of this step (from 1). Every hyperparameter is one number, one per
member, or a schedule. Defaults are PyTorch's where it has the optimizer. ``weight_decay`` is added to the gradient as
weight_decay p unless the formula says otherwise. In user code these are made by name::

    from pgkit.optim import make

    optimizer = make("adam", lr=[1e-3, 1e-2])
"""

from pgkit.optim import scaling, transforms
from pgkit.optim.base import Hyperparameter, Optimizer, Transform
from pgkit.optim.chain import chain
from pgkit.optim.validation import flag, is_zero


def sgd(lr: Hyperparameter = 1e-3, weight_decay: Hyperparameter = 0.0) -> Optimizer:
    """p = p - lr g.

    Source: Robbins and Monro 1951; torch.optim.SGD.
    """
    return chain(*l2(weight_decay), transforms.scale_by_rate(lr))


def momentum(
    lr: Hyperparameter = 1e-3,
    momentum: Hyperparameter = 0.9,
    dampening: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """b = momentum b + (1 - dampening) g, b = g at first; p = p - lr b.

    Source: Polyak 1964; torch.optim.SGD(momentum=0.9).
    """
    return chain(*l2(weight_decay), scaling.trace(momentum, dampening), transforms.scale_by_rate(lr))


def nesterov(
    lr: Hyperparameter = 1e-3, momentum: Hyperparameter = 0.9, weight_decay: Hyperparameter = 0.0
) -> Optimizer:
    """b = momentum b + g; p = p - lr (g + momentum b).

    Source: Nesterov 1983, as in Sutskever et al. 2013; torch.optim.SGD(momentum=0.9, nesterov=True).
    """
    return chain(*l2(weight_decay), scaling.trace(momentum, nesterov=True), transforms.scale_by_rate(lr))


def rmsprop(
    lr: Hyperparameter = 1e-2,
    alpha: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    momentum: Hyperparameter = 0.0,
    centered: bool = False,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """v = alpha v + (1 - alpha) g^2 from 0; p = p - lr g / (sqrt(v) + eps).

    Centered: v - a^2 in place of v, with a = alpha a + (1 - alpha) g.
    With momentum: b = momentum b + g / (sqrt(v) + eps); p = p - lr b.

    Source: Tieleman and Hinton 2012; torch.optim.RMSprop.
    """
    rms = scaling.scale_by_rms(alpha, eps, flag("centered", centered))
    heavy_ball = [] if is_zero(momentum) else [scaling.trace(momentum)]
    return chain(*l2(weight_decay), rms, *heavy_ball, transforms.scale_by_rate(lr))


def rmsprop_tf(
    lr: Hyperparameter = 1e-3,
    alpha: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-10,
    momentum: Hyperparameter = 0.0,
    centered: bool = False,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """v = alpha v + (1 - alpha) g^2 from 1; b = momentum b + lr g / sqrt(v + eps); p = p - b.

    The accumulator starts at 1, epsilon is inside the root, and momentum comes behind the learning rate.
    Centered: v - a^2 in place of v, with a = alpha a + (1 - alpha) g.

    Source: tf.compat.v1.train.RMSPropOptimizer; used by A3C-style agents and the DQN family.
    """
    rms = scaling.scale_by_rms(alpha, eps, flag("centered", centered), tensorflow=True)
    heavy_ball = [] if is_zero(momentum) else [scaling.trace(momentum)]
    return chain(*l2(weight_decay), rms, transforms.scale_by_rate(lr), *heavy_ball)


def adagrad(
    lr: Hyperparameter = 1e-2,
    lr_decay: Hyperparameter = 0.0,
    initial_accumulator_value: Hyperparameter = 0.0,
    eps: Hyperparameter = 1e-10,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """s = s + g^2 from initial_accumulator_value; p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Source: Duchi, Hazan and Singer 2011; torch.optim.Adagrad; in optax and Keras s begins at 0.1.
    """
    return chain(*l2(weight_decay), scaling.adagrad_step(lr, lr_decay, initial_accumulator_value, eps))


def adadelta(
    lr: Hyperparameter = 1.0, rho: Hyperparameter = 0.9, eps: Hyperparameter = 1e-6, weight_decay: Hyperparameter = 0.0
) -> Optimizer:
    """v = rho v + (1 - rho) g^2; u = g sqrt(d + eps) / sqrt(v + eps); d = rho d + (1 - rho) u^2; p = p - lr u.

    Source: Zeiler 2012 (arXiv 1212.5701); torch.optim.Adadelta.
    """
    return chain(*l2(weight_decay), scaling.scale_by_adadelta(rho, eps), transforms.scale_by_rate(lr))


def adam(
    lr: Hyperparameter = 1e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    p = p - lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    Source: Kingma and Ba 2015 (arXiv 1412.6980); torch.optim.Adam.
    """
    return chain(*l2(weight_decay), scaling.adam_step(lr, beta1, beta2, eps))


def adamw(
    lr: Hyperparameter = 1e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 1e-2,
) -> Optimizer:
    """As adam, but weight decay does not pass through the moments: p = p - lr (weight_decay p + adam's direction).

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101); torch.optim.AdamW.
    """
    return chain(scaling.adam_step(lr, beta1, beta2, eps), *decoupled(weight_decay))


def lion(
    lr: Hyperparameter = 1e-4,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.99,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """p = p - lr (sign(beta1 m + (1 - beta1) g) + weight_decay p); then m = beta2 m + (1 - beta2) g.

    Source: Chen et al. 2023 (arXiv 2302.06675); optax.lion.
    """
    return chain(scaling.scale_by_lion(beta1, beta2), transforms.scale_by_rate(lr), *decoupled(weight_decay))


def l2(weight_decay: Hyperparameter) -> list[Transform]:
    """Weight decay added to the gradient; no transform at all where it is 0 for every member."""
    return [] if is_zero(weight_decay) else [transforms.add_weight_decay(weight_decay)]


def decoupled(weight_decay: Hyperparameter) -> list[Transform]:
    """Weight decay beside the step; no transform at all where it is 0 for every member."""
    return [] if is_zero(weight_decay) else [transforms.add_decoupled_weight_decay(weight_decay)]
