"""The transforms that make an optimizer what it is; each states its formula, g for what comes in, u for what goes out.

A direction points uphill until ``scale_by_rate``; those called ``..._step`` have the learning rate in them already.
"""

import math

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import Columns, Hyperparameter, Leaf, Signals, Transform, Vectors
from pgkit.optim.validation import check


def trace(momentum: Hyperparameter, dampening: Hyperparameter = 0.0, nesterov: bool = False) -> Transform:
    """b = momentum b + (1 - dampening) g, but b = g at the first step; u = b, or g + momentum b with Nesterov.

    With momentum 0 there is no dampening, as in PyTorch.
    """

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        gain = torch.where((v["_first"] == 1) | (h["momentum"] == 0), 1.0, 1 - h["dampening"])
        v["_first"] = torch.zeros_like(v["_first"])
        return {"momentum": h["momentum"], "gain": gain}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        b = leaf.slots["b"] = torch.addcmul(c["momentum"] * leaf.slots["b"], c["gain"], grad)
        return torch.addcmul(grad, c["momentum"], b) if nesterov else b

    return Transform(
        step,
        numbers,
        hyper={
            "momentum": decay("momentum", momentum),
            "dampening": check("dampening", dampening, least=0.0, most=1.0),
        },
        slots={"b": 0.0},
        vectors={"_first": 1.0},
    )


def scale_by_rms(
    alpha: Hyperparameter, eps: Hyperparameter, centered: bool = False, tensorflow: bool = False
) -> Transform:
    """v = alpha v + (1 - alpha) g^2 from 0; u = g / (sqrt(v) + eps). TensorFlow: v from 1; u = g / sqrt(v + eps).

    Centered: a = alpha a + (1 - alpha) g from 0, and v - a^2 in place of v.
    """

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        v = leaf.slots["v"] = torch.addcmul(c["alpha"] * leaf.slots["v"], c["gain"] * grad, grad)
        if centered:
            a = leaf.slots["a"] = torch.lerp(leaf.slots["a"], grad, c["gain"])
            v = torch.clamp(torch.addcmul(v, -a, a), min=0.0)
        return grad / (torch.sqrt(v + c["eps"]) if tensorflow else torch.sqrt(v) + c["eps"])

    slots: dict[str, float | str] = {"v": 1.0 if tensorflow else 0.0}
    return Transform(
        step,
        lambda h, v, signals: {"alpha": h["alpha"], "gain": 1 - h["alpha"], "eps": h["eps"]},
        hyper={"alpha": decay("alpha", alpha), "eps": check("eps", eps, least=0.0)},
        slots=slots | {"a": 0.0} if centered else slots,
    )


def adagrad_step(
    lr: Hyperparameter, lr_decay: Hyperparameter, initial_accumulator_value: Hyperparameter, eps: Hyperparameter
) -> Transform:
    """s = s + g^2 from initial_accumulator_value; u = -lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)."""

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        rate = -h["lr"] / (1 + v["_step"] * h["lr_decay"])
        v["_step"] = v["_step"] + 1
        return {"rate": rate, "eps": h["eps"]}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        s = leaf.slots["s"] = torch.addcmul(leaf.slots["s"], grad, grad)
        return c["rate"] * grad / (torch.sqrt(s) + c["eps"])

    initial = check("initial_accumulator_value", initial_accumulator_value, least=0.0)
    return Transform(
        step,
        numbers,
        hyper={
            "lr": check("lr", lr, above=0.0),
            "lr_decay": check("lr_decay", lr_decay, least=0.0),
            "initial_accumulator_value": initial,
            "eps": check("eps", eps, least=0.0),
        },
        slots={"s": "initial_accumulator_value"},
        vectors={"_step": 0.0},
    )


def scale_by_adadelta(rho: Hyperparameter, eps: Hyperparameter) -> Transform:
    """v = rho v + (1 - rho) g^2; u = g sqrt(d + eps) / sqrt(v + eps); d = rho d + (1 - rho) u^2."""

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        d = leaf.slots["d"]
        v = leaf.slots["v"] = torch.addcmul(c["rho"] * leaf.slots["v"], c["gain"] * grad, grad)
        u = torch.sqrt(d + c["eps"]) / torch.sqrt(v + c["eps"]) * grad
        leaf.slots["d"] = torch.addcmul(c["rho"] * d, c["gain"] * u, u)
        return u

    return Transform(
        step,
        lambda h, v, signals: {"rho": h["rho"], "gain": 1 - h["rho"], "eps": h["eps"]},
        hyper={"rho": decay("rho", rho), "eps": check("eps", eps, above=0.0)},
        slots={"v": 0.0, "d": 0.0},
    )


def adam_step(
    lr: Hyperparameter, beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter, amsgrad: bool = False
) -> Transform:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    u = -lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    AMSGrad: the largest v so far in place of v.
    """

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        power1, power2 = _powers(h, v)
        return {
            **_gains(h),
            "rate": -h["lr"] / (1 - power1),
            "root": deterministic_map(torch.sqrt, 1 - power2),
            "eps": h["eps"],
        }

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        m, v = _moments(grad, leaf, c)
        if amsgrad:
            v = leaf.slots["v_max"] = torch.maximum(leaf.slots["v_max"], v)
        return c["rate"] * m / (torch.sqrt(v) / c["root"] + c["eps"])

    slots: dict[str, float | str] = {"m": 0.0, "v": 0.0}
    return Transform(
        step,
        numbers,
        hyper={"lr": check("lr", lr, above=0.0), **_adam_hyper(beta1, beta2, eps)},
        slots=slots | {"v_max": 0.0} if amsgrad else slots,
        vectors=_POWERS,
    )


def scale_by_nadam(
    beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter, momentum_decay: Hyperparameter
) -> Transform:
    """m, v as Adam's; mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2), M_t the product of mu_1 ... mu_t;
    u = (mu_(t+1) m / (1 - M_(t+1)) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v / (1 - beta2^t)) + eps).
    """

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        _, power2 = _powers(h, v)
        fade = deterministic_map(torch.exp, h["momentum_decay"] * math.log(0.96))
        v["_step_fade"] = v["_step_fade"] * fade
        mu, mu_next = (h["beta1"] * (1 - 0.5 * faded) for faded in (v["_step_fade"], v["_step_fade"] * fade))
        v["_step_mu"] = v["_step_mu"] * mu
        return {
            **_gains(h),
            "of_grad": (1 - mu) / (1 - v["_step_mu"]),
            "of_m": mu_next / (1 - v["_step_mu"] * mu_next),
            "root": deterministic_map(torch.sqrt, 1 - power2),
            "eps": h["eps"],
        }

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        m, v = _moments(grad, leaf, c)
        return torch.addcmul(c["of_grad"] * grad, c["of_m"], m) / (torch.sqrt(v) / c["root"] + c["eps"])

    return Transform(
        step,
        numbers,
        hyper={
            **_adam_hyper(beta1, beta2, eps),
            "momentum_decay": check("momentum_decay", momentum_decay, least=0.0),
        },
        slots={"m": 0.0, "v": 0.0},
        vectors={**_POWERS, "_step_fade": 1.0, "_step_mu": 1.0},
    )


def scale_by_radam(beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter) -> Transform:
    """m, v as Adam's; R = 2 / (1 - beta2) - 1; r = R - 2 t beta2^t / (1 - beta2^t);
    u = m / (1 - beta1^t), if r > 5 times sqrt((r - 4)(r - 2) R (1 - beta2^t) / ((R - 4)(R - 2) r)) / (sqrt(v) + eps).
    """

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        power1, _ = _powers(h, v)
        v["_step"] = v["_step"] + 1
        power2 = deterministic_map(torch.pow, h["beta2"], v["_step"])
        most = 2 / (1 - h["beta2"]) - 1
        length = most - 2 * v["_step"] * power2 / (1 - power2)
        ratio = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
        known = length > 5
        rectified = deterministic_map(torch.sqrt, torch.where(known, ratio * (1 - power2), 1.0))
        return {**_gains(h), "scale": rectified / (1 - power1), "known": known.double(), "eps": h["eps"]}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        m, v = _moments(grad, leaf, c)
        return c["scale"] * (m / torch.where(c["known"] != 0, torch.sqrt(v) + c["eps"], 1.0))

    return Transform(
        step,
        numbers,
        hyper=_adam_hyper(beta1, beta2, eps),
        slots={"m": 0.0, "v": 0.0},
        vectors={**_POWERS, "_step": 0.0},
    )


def scale_by_adamax(beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter) -> Transform:
    """m = beta1 m + (1 - beta1) g; n = max(beta2 n, |g| + eps); u = m / (1 - beta1^t) / n."""

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        power1, _ = _powers(h, v)
        return {**_gains(h), "scale": 1 / (1 - power1), "eps": h["eps"]}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        m = leaf.slots["m"] = torch.lerp(leaf.slots["m"], grad, c["gain1"])
        n = leaf.slots["n"] = torch.maximum(c["beta2"] * leaf.slots["n"], torch.abs(grad) + c["eps"])
        return c["scale"] * (m / n)

    return Transform(step, numbers, hyper=_adam_hyper(beta1, beta2, eps), slots={"m": 0.0, "n": 0.0}, vectors=_POWERS)


def scale_by_lion(beta1: Hyperparameter, beta2: Hyperparameter) -> Transform:
    """u = sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g."""

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        m = leaf.slots["m"]
        leaf.slots["m"] = torch.lerp(m, grad, c["gain2"])
        return torch.sign(torch.lerp(m, grad, c["gain1"]))

    return Transform(
        step,
        lambda h, v, signals: _gains(h),
        hyper={"beta1": decay("beta1", beta1), "beta2": decay("beta2", beta2)},
        slots={"m": 0.0},
    )


def decay(name: str, value: Hyperparameter) -> Hyperparameter:
    """A decay rate: at least 0, below 1."""
    return check(name, value, least=0.0, below=1.0)


_POWERS = {"_step_beta1": 1.0, "_step_beta2": 1.0}


def _powers(h: Vectors, v: Vectors) -> tuple[Tensor, Tensor]:
    """beta1^t and beta2^t, as running products: exact for betas that move, and the same bits at any place."""
    for name in ("beta1", "beta2"):
        v[f"_step_{name}"] = v[f"_step_{name}"] * h[name]
    return v["_step_beta1"], v["_step_beta2"]


def _gains(h: Vectors) -> Vectors:
    """What the past and a new gradient weigh in the averages m and v."""
    return {"beta2": h["beta2"], "gain1": 1 - h["beta1"], "gain2": 1 - h["beta2"]}


def _moments(grad: Tensor, leaf: Leaf, c: Columns) -> tuple[Tensor, Tensor]:
    """m and v with a new gradient, rounded as torch does."""
    m = leaf.slots["m"] = torch.lerp(leaf.slots["m"], grad, c["gain1"])
    v = leaf.slots["v"] = torch.addcmul(c["beta2"] * leaf.slots["v"], c["gain2"] * grad, grad)
    return m, v


def _adam_hyper(beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter) -> dict[str, Hyperparameter]:
    return {"beta1": decay("beta1", beta1), "beta2": decay("beta2", beta2), "eps": check("eps", eps, least=0.0)}
