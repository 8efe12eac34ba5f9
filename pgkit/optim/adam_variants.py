"""Optimizers that change one thing about Adam, written as in :mod:`pgkit.optim.optimizers`."""

from pgkit.optim import scaling, transforms
from pgkit.optim.base import Hyperparameter, Optimizer
from pgkit.optim.chain import chain
from pgkit.optim.optimizers import adam, l2
from pgkit.optim.validation import check


def adam_rel(
    lr: Hyperparameter = 1e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """As adam, but t begins anew at the first step from each rollout, which is a new objective; m and v stay.

    It is adam with reset_step = "rollout". Where each rollout gives one step, t stays 1, and steps are shorter:
    0.316 lr under a constant gradient.

    Source: Ellis et al. 2024 (arXiv 2412.17113).
    """
    return transforms.restart(adam(lr, beta1, beta2, eps, weight_decay), "step", "rollout")


def adam_equal(
    lr: Hyperparameter = 1e-3,
    beta: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """As adam, with beta1 = beta2 = beta: then |m| <= sqrt(v), and no step is longer than lr.

    Source: Dohare, Lan and Mahmood 2023 (Overcoming policy collapse in deep reinforcement learning, EWRL 16); beta of
    Dohare et al. 2024 (Nature 632).
    """
    rate = check("beta", beta, least=0.0, below=1.0)
    return adam(lr, rate, rate, eps, weight_decay)


def amsgrad(
    lr: Hyperparameter = 1e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """m, v as adam; w = max(w, v); p = p - lr m / (1 - beta1^t) / (sqrt(w / (1 - beta2^t)) + eps).

    Source: Reddi, Kale and Kumar 2018 (arXiv 1904.09237); torch.optim.Adam(amsgrad=True), with the maximum before the
    bias correction as there; optax has it behind.
    """
    return chain(*l2(weight_decay), scaling.adam_step(lr, beta1, beta2, eps, amsgrad=True))


def nadam(
    lr: Hyperparameter = 2e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    momentum_decay: Hyperparameter = 4e-3,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """m, v as adam; mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2), M_t = mu_1 ... mu_t;
    p = p - lr (mu_(t+1) m / (1 - M_(t+1)) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v / (1 - beta2^t)) + eps).

    Source: Dozat 2016; torch.optim.NAdam.
    """
    return chain(
        *l2(weight_decay), scaling.scale_by_nadam(beta1, beta2, eps, momentum_decay), transforms.scale_by_rate(lr)
    )


def radam(
    lr: Hyperparameter = 1e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """m, v as adam; R = 2 / (1 - beta2) - 1; r = R - 2 t beta2^t / (1 - beta2^t); p = p - lr m / (1 - beta1^t),
    where r > 5 times sqrt((r - 4)(r - 2) R (1 - beta2^t) / ((R - 4)(R - 2) r)) / (sqrt(v) + eps).

    Source: Liu et al. 2020 (arXiv 1908.03265); torch.optim.RAdam, with epsilon before the bias correction as there;
    optax has it behind.
    """
    return chain(*l2(weight_decay), scaling.scale_by_radam(beta1, beta2, eps), transforms.scale_by_rate(lr))


def adamax(
    lr: Hyperparameter = 2e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """m as adam; n = max(beta2 n, |g| + eps); p = p - lr m / (1 - beta1^t) / n.

    Source: Kingma and Ba 2015 (arXiv 1412.6980, section 7); torch.optim.Adamax.
    """
    return chain(*l2(weight_decay), scaling.scale_by_adamax(beta1, beta2, eps), transforms.scale_by_rate(lr))
