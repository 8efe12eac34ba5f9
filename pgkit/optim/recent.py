"""Optimizers of 2024 and later: for matrices, and without a schedule; written as in :mod:`pgkit.optim.optimizers`."""

from pgkit.errors import PgkitError
from pgkit.optim import eigenbasis, newton_schulz, roles, scaling, transforms
from pgkit.optim.base import Hyperparameter, Optimizer
from pgkit.optim.chain import chain
from pgkit.optim.optimizers import decoupled, l2
from pgkit.optim.schedule_free import scale_by_second_moment, schedule_free
from pgkit.optim.validation import check, count, flag


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
