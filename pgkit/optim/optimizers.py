"""The named optimizers: each a short chain beside its formula and source.

p are the parameters, g the gradient, t the number of this step (from 1). Every hyperparameter is one number, one per
member, or a schedule. Defaults are PyTorch's where it has the optimizer. ``weight_decay`` is added to the gradient as
weight_decay p unless the formula says otherwise. In user code these are made by name::

    from pgkit.optim import make

    optimizer = make("adam", lr=[1e-3, 1e-2])
"""

from pgkit.errors import PgkitError
from pgkit.optim import eigenbasis, newton_schulz, roles, scaling, transforms
from pgkit.optim.base import Hyperparameter, Optimizer, Transform
from pgkit.optim.chain import chain
from pgkit.optim.schedule_free import scale_by_second_moment, schedule_free
from pgkit.optim.validation import check, count, flag, is_zero


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


def muon(
    lr: Hyperparameter = 1e-3,
    momentum: Hyperparameter = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    eps: Hyperparameter = 1e-7,
    adjust_lr_fn: str = "original",
    weight_decay: Hyperparameter = 0.1,
    adam_lr: Hyperparameter = 3e-4,
    adam_beta1: Hyperparameter = 0.9,
    adam_beta2: Hyperparameter = 0.95,
    adam_eps: Hyperparameter = 1e-10,
    adam_weight_decay: Hyperparameter = 0.0,
) -> Optimizer:
    """Hidden matrices (in, out): b = b + (1 - momentum)(g - b); n = g + momentum (b - g);
    p = p - lr (weight_decay p + sqrt(max(1, out / in)) NS(n / max(|n|, eps))). Other leaves: adamw with adam_lr etc.

    NS makes all singular values about 1, by ns_steps iterations of Newton and Schulz
    (:func:`pgkit.optim.newton_schulz.newton_schulz`). Without nesterov n = b. adjust_lr_fn = "match_rms_adamw" has
    0.2 sqrt(max(in, out)) in place of the root, so that lr is about that of adamw. Hidden are the weights of a policy's
    layers between the first and the last, see :mod:`pgkit.optim.roles`. A schedule of lr is not one of adam_lr.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); torch.optim.Muon, in the parameters' dtype instead
    of bfloat16; match_rms_adamw by Liu et al. 2025 (arXiv 2502.16982); adam's defaults are those of Jordan's code.
    """
    if adjust_lr_fn not in ("original", "match_rms_adamw"):
        raise PgkitError(f"adjust_lr_fn is {adjust_lr_fn!r}; it must be 'original' or 'match_rms_adamw'")
    check("adam_lr", adam_lr, above=0.0)
    hidden = [
        newton_schulz.average(momentum, flag("nesterov", nesterov)),
        newton_schulz.orthogonalize(eps, count("ns_steps", ns_steps), adjust_lr_fn == "match_rms_adamw"),
        transforms.scale_by_rate(lr),
        *decoupled(weight_decay),
    ]
    other = [scaling.adam_step(adam_lr, adam_beta1, adam_beta2, adam_eps), *decoupled(adam_weight_decay)]
    return chain(*roles.for_roles(roles.NOT_HIDDEN, other, "adam_"), *roles.for_roles(roles.HIDDEN, hidden))


def soap(
    lr: Hyperparameter = 3e-3,
    beta1: Hyperparameter = 0.95,
    beta2: Hyperparameter = 0.95,
    shampoo_beta: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.01,
    precondition_frequency: Hyperparameter = 10,
    max_precond_dim: int = 10_000,
) -> Optimizer:
    """Matrices (in, out): L, R average g g^T, g^T g; QL, QR are their eigenvectors; h = QL^T g QR;
    m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) h^2; u = QL (QL^T m QR / (sqrt(v) + eps)) QR^T;
    p = p - lr sqrt(1 - beta2^(t - 1)) / (1 - beta1^(t - 1)) u; p = (1 - lr weight_decay) p. Step 1 only sets L, R, Q.

    The averages' decay is shampoo_beta, by default beta2. Every precondition_frequency updates Q = qr(L Q), its columns
    and that axis of v sorted by diag(Q^T L Q). Vectors, and sides longer than max_precond_dim, have Q = 1; a weight
    with one row counts as a vector.

    A member has the same bits alone and in a population, and stopped and resumed, on one machine. On another processor
    it goes another way: eigenvectors and QR come from LAPACK, whose code depends on the processor, and in the first
    steps, when L and R have fewer independent columns than rows, every basis of the rest is right. As LAPACK cannot be
    captured either, Python takes part in every update.

    Source: Vyas et al. 2024 (arXiv 2409.11321), code github.com/nikhilvyas/SOAP, in the parameters' dtype throughout.
    """
    rotated = eigenbasis.adam_in_eigenbasis(
        beta1, beta2, shampoo_beta, eps, precondition_frequency, count("max_precond_dim", max_precond_dim)
    )
    return chain(rotated, eigenbasis.soap_rate(lr), eigenbasis.soap_decay(weight_decay))


def schedule_free_sgd(
    lr: Hyperparameter = 1.0,
    momentum: Hyperparameter = 0.9,
    weight_decay: Hyperparameter = 0.0,
    warmup_steps: Hyperparameter = 0,
    r: Hyperparameter = 0,
    weight_lr_power: Hyperparameter = 2,
) -> Optimizer:
    """c = w_t / (w_1 + ... + w_t); p = p + c (z - p) + lr_t (momentum (1 - c) - 1) g; then z = z - lr_t g, z = p at
    first; with lr_t = lr min(1, t / warmup_steps), w_t = t^r max(lr_1, ..., lr_t)^weight_lr_power.

    Evaluated, and saved as the policy, is the average x = (p - (1 - momentum) z) / momentum of all z; rollouts act, and
    gradients are taken, at p.

    Source: Defazio et al. 2024 (arXiv 2405.15682); schedulefree.SGDScheduleFree 1.4.1.
    """
    return chain(*l2(weight_decay), schedule_free(lr, momentum, warmup_steps, r, weight_lr_power, "momentum"))


def schedule_free_adamw(
    lr: Hyperparameter = 2.5e-3,
    beta1: Hyperparameter = 0.9,
    beta2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    warmup_steps: Hyperparameter = 0,
    r: Hyperparameter = 0,
    weight_lr_power: Hyperparameter = 2,
) -> Optimizer:
    """v = beta2 v + (1 - beta2) g^2; then as schedule_free_sgd, with beta1 for momentum and
    g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay p for g.

    Source: Defazio et al. 2024 (arXiv 2405.15682); schedulefree.AdamWScheduleFree 1.4.1.
    """
    return chain(
        scale_by_second_moment(beta2, eps),
        *l2(weight_decay),
        schedule_free(lr, beta1, warmup_steps, r, weight_lr_power),
    )


def l2(weight_decay: Hyperparameter) -> list[Transform]:
    """Weight decay added to the gradient; no transform at all where it is 0 for every member."""
    return [] if is_zero(weight_decay) else [transforms.add_weight_decay(weight_decay)]


def decoupled(weight_decay: Hyperparameter) -> list[Transform]:
    """Weight decay beside the step; no transform at all where it is 0 for every member."""
    return [] if is_zero(weight_decay) else [transforms.add_decoupled_weight_decay(weight_decay)]
