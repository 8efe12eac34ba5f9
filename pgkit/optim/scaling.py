"""The core transform of each named optimizer, with its formula: g is the incoming gradient, u the result.

u points uphill until ``scale_by_rate`` turns it around; transforms called ``..._step`` include the learning rate.
"""

import math

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import ExtraArgs, Hyperparameter, Leaf, LeafInit, MemberValues, Scalars, Transform
from pgkit.optim.validation import check


def trace(momentum: Hyperparameter, dampening: Hyperparameter = 0.0, nesterov: bool = False) -> Transform:
    """b = momentum b + (1 - dampening) g, but b = g at the first step; u = b.

    With nesterov: u = g + momentum b. With momentum 0 there is no dampening, as in PyTorch.
    """

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        gain = torch.where((member["is_first_step"] == 1) | (hyper["momentum"] == 0), 1.0, 1 - hyper["dampening"])
        member["is_first_step"] = torch.zeros_like(member["is_first_step"])
        return {"momentum": hyper["momentum"], "gain": gain}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        b = leaf.state["b"] = torch.addcmul(scalars["momentum"] * leaf.state["b"], scalars["gain"], grad)
        return torch.addcmul(grad, scalars["momentum"], b) if nesterov else b

    return Transform(
        step,
        precompute,
        hyperparameters={
            "momentum": decay("momentum", momentum),
            "dampening": check("dampening", dampening, least=0.0, most=1.0),
        },
        leaf_state={"b": 0.0},
        member_state={"is_first_step": 1.0},
    )


def scale_by_rms(
    alpha: Hyperparameter, eps: Hyperparameter, centered: bool = False, tensorflow: bool = False
) -> Transform:
    """v = alpha v + (1 - alpha) g^2 from 0; u = g / (sqrt(v) + eps).

    With tensorflow: v from 1; u = g / sqrt(v + eps).
    Centered: a = alpha a + (1 - alpha) g from 0, and v - a^2 in place of v.
    """

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        v = leaf.state["v"] = torch.addcmul(scalars["alpha"] * leaf.state["v"], scalars["gain"] * grad, grad)
        if centered:
            a = leaf.state["a"] = torch.lerp(leaf.state["a"], grad, scalars["gain"])
            v = torch.clamp(torch.addcmul(v, -a, a), min=0.0)
        return grad / (torch.sqrt(v + scalars["eps"]) if tensorflow else torch.sqrt(v) + scalars["eps"])

    leaf_state: dict[str, LeafInit] = {"v": 1.0 if tensorflow else 0.0}
    return Transform(
        step,
        lambda hyper, member, extra_args: {"alpha": hyper["alpha"], "gain": 1 - hyper["alpha"], "eps": hyper["eps"]},
        hyperparameters={"alpha": decay("alpha", alpha), "eps": check("eps", eps, least=0.0)},
        leaf_state=leaf_state | {"a": 0.0} if centered else leaf_state,
    )


def adagrad_step(
    lr: Hyperparameter, lr_decay: Hyperparameter, initial_accumulator_value: Hyperparameter, eps: Hyperparameter
) -> Transform:
    """s = s + g^2 from initial_accumulator_value; u = -lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)."""

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        rate = -hyper["lr"] / (1 + member["steps"] * hyper["lr_decay"])
        member["steps"] = member["steps"] + 1
        return {"rate": rate, "eps": hyper["eps"]}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        s = leaf.state["s"] = torch.addcmul(leaf.state["s"], grad, grad)
        return scalars["rate"] * grad / (torch.sqrt(s) + scalars["eps"])

    initial = check("initial_accumulator_value", initial_accumulator_value, least=0.0)
    return Transform(
        step,
        precompute,
        hyperparameters={
            "lr": check("lr", lr, above=0.0),
            "lr_decay": check("lr_decay", lr_decay, least=0.0),
            "initial_accumulator_value": initial,
            "eps": check("eps", eps, least=0.0),
        },
        leaf_state={"s": "initial_accumulator_value"},
        member_state={"steps": 0.0},
        step_counters=frozenset({"steps"}),
    )


def scale_by_adadelta(rho: Hyperparameter, eps: Hyperparameter) -> Transform:
    """v = rho v + (1 - rho) g^2; u = g sqrt(d + eps) / sqrt(v + eps); d = rho d + (1 - rho) u^2."""

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        d = leaf.state["d"]
        v = leaf.state["v"] = torch.addcmul(scalars["rho"] * leaf.state["v"], scalars["gain"] * grad, grad)
        u = torch.sqrt(d + scalars["eps"]) / torch.sqrt(v + scalars["eps"]) * grad
        leaf.state["d"] = torch.addcmul(scalars["rho"] * d, scalars["gain"] * u, u)
        return u

    return Transform(
        step,
        lambda hyper, member, extra_args: {"rho": hyper["rho"], "gain": 1 - hyper["rho"], "eps": hyper["eps"]},
        hyperparameters={"rho": decay("rho", rho), "eps": check("eps", eps, above=0.0)},
        leaf_state={"v": 0.0, "d": 0.0},
    )


def adam_step(
    lr: Hyperparameter, beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter, amsgrad: bool = False
) -> Transform:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    u = -lr m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    With amsgrad: the largest v so far in place of v.
    """

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        power1, power2 = _powers(hyper, member)
        return {
            **_gains(hyper),
            "rate": -hyper["lr"] / (1 - power1),
            "root": deterministic_map(torch.sqrt, 1 - power2),
            "eps": hyper["eps"],
        }

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        m, v = _moments(grad, leaf, scalars)
        if amsgrad:
            v = leaf.state["v_max"] = torch.maximum(leaf.state["v_max"], v)
        return scalars["rate"] * m / (torch.sqrt(v) / scalars["root"] + scalars["eps"])

    leaf_state: dict[str, LeafInit] = {"m": 0.0, "v": 0.0}
    return Transform(
        step,
        precompute,
        hyperparameters={"lr": check("lr", lr, above=0.0), **_betas_and_eps(beta1, beta2, eps)},
        leaf_state=leaf_state | {"v_max": 0.0} if amsgrad else leaf_state,
        member_state=_POWERS,
        step_counters=frozenset(_POWERS),
    )


def scale_by_nadam(
    beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter, momentum_decay: Hyperparameter
) -> Transform:
    """m, v as in Adam; mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2), M_t the product of mu_1 ... mu_t;
    u = (mu_(t+1) m / (1 - M_(t+1)) + (1 - mu_t) g / (1 - M_t)) / (sqrt(v / (1 - beta2^t)) + eps).
    """

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        _, power2 = _powers(hyper, member)
        fade = deterministic_map(torch.exp, hyper["momentum_decay"] * math.log(0.96))
        member["fade_power"] = member["fade_power"] * fade
        mu = hyper["beta1"] * (1 - 0.5 * member["fade_power"])
        mu_next = hyper["beta1"] * (1 - 0.5 * (member["fade_power"] * fade))
        member["mu_product"] = member["mu_product"] * mu
        return {
            **_gains(hyper),
            "grad_weight": (1 - mu) / (1 - member["mu_product"]),
            "m_weight": mu_next / (1 - member["mu_product"] * mu_next),
            "root": deterministic_map(torch.sqrt, 1 - power2),
            "eps": hyper["eps"],
        }

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        m, v = _moments(grad, leaf, scalars)
        return torch.addcmul(scalars["grad_weight"] * grad, scalars["m_weight"], m) / (
            torch.sqrt(v) / scalars["root"] + scalars["eps"]
        )

    return Transform(
        step,
        precompute,
        hyperparameters={
            **_betas_and_eps(beta1, beta2, eps),
            "momentum_decay": check("momentum_decay", momentum_decay, least=0.0),
        },
        leaf_state={"m": 0.0, "v": 0.0},
        member_state={**_POWERS, "fade_power": 1.0, "mu_product": 1.0},
        step_counters=frozenset({*_POWERS, "fade_power", "mu_product"}),
    )


def scale_by_radam(beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter) -> Transform:
    """m, v as in Adam; R = 2 / (1 - beta2) - 1; r = R - 2 t beta2^t / (1 - beta2^t);
    u = m / (1 - beta1^t), if r > 5 times sqrt((r - 4)(r - 2) R (1 - beta2^t) / ((R - 4)(R - 2) r)) / (sqrt(v) + eps).
    """

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        power1, _ = _powers(hyper, member)
        member["steps"] = member["steps"] + 1
        power2 = deterministic_map(torch.pow, hyper["beta2"], member["steps"])
        max_length = 2 / (1 - hyper["beta2"]) - 1
        length = max_length - 2 * member["steps"] * power2 / (1 - power2)
        ratio = (length - 4) * (length - 2) * max_length / ((max_length - 4) * (max_length - 2) * length)
        rectifiable = length > 5
        rectified = deterministic_map(torch.sqrt, torch.where(rectifiable, ratio * (1 - power2), 1.0))
        return {
            **_gains(hyper),
            "scale": rectified / (1 - power1),
            "rectifiable": rectifiable.double(),
            "eps": hyper["eps"],
        }

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        m, v = _moments(grad, leaf, scalars)
        return scalars["scale"] * (m / torch.where(scalars["rectifiable"] != 0, torch.sqrt(v) + scalars["eps"], 1.0))

    return Transform(
        step,
        precompute,
        hyperparameters=_betas_and_eps(beta1, beta2, eps),
        leaf_state={"m": 0.0, "v": 0.0},
        member_state={**_POWERS, "steps": 0.0},
        step_counters=frozenset({*_POWERS, "steps"}),
    )


def scale_by_adamax(beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter) -> Transform:
    """m = beta1 m + (1 - beta1) g; n = max(beta2 n, |g| + eps); u = m / (1 - beta1^t) / n."""

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        power1, _ = _powers(hyper, member)
        return {**_gains(hyper), "scale": 1 / (1 - power1), "eps": hyper["eps"]}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        m = leaf.state["m"] = torch.lerp(leaf.state["m"], grad, scalars["gain1"])
        n = leaf.state["n"] = torch.maximum(scalars["beta2"] * leaf.state["n"], torch.abs(grad) + scalars["eps"])
        return scalars["scale"] * (m / n)

    return Transform(
        step,
        precompute,
        hyperparameters=_betas_and_eps(beta1, beta2, eps),
        leaf_state={"m": 0.0, "n": 0.0},
        member_state=_POWERS,
        step_counters=frozenset(_POWERS),
    )


def scale_by_lion(beta1: Hyperparameter, beta2: Hyperparameter) -> Transform:
    """u = sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g."""

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        m = leaf.state["m"]
        leaf.state["m"] = torch.lerp(m, grad, scalars["gain2"])
        return torch.sign(torch.lerp(m, grad, scalars["gain1"]))

    return Transform(
        step,
        lambda hyper, member, extra_args: _gains(hyper),
        hyperparameters={"beta1": decay("beta1", beta1), "beta2": decay("beta2", beta2)},
        leaf_state={"m": 0.0},
    )


def decay(name: str, value: Hyperparameter) -> Hyperparameter:
    """Check a decay rate: at least 0, below 1."""
    return check(name, value, least=0.0, below=1.0)


_POWERS = {"beta1_power": 1.0, "beta2_power": 1.0}
"""beta1^t and beta2^t before the first step."""


def _powers(hyper: MemberValues, member: MemberValues) -> tuple[Tensor, Tensor]:
    """Advance beta1^t and beta2^t by one step, as running products.

    That is exact for scheduled betas, too, and gives every member the same bits at any place in the population.
    """
    for name in ("beta1", "beta2"):
        member[f"{name}_power"] = member[f"{name}_power"] * hyper[name]
    return member["beta1_power"], member["beta2_power"]


def _gains(hyper: MemberValues) -> MemberValues:
    """Compute the weights of the past and of a new gradient in the averages m and v."""
    return {"beta2": hyper["beta2"], "gain1": 1 - hyper["beta1"], "gain2": 1 - hyper["beta2"]}


def _moments(grad: Tensor, leaf: Leaf, scalars: Scalars) -> tuple[Tensor, Tensor]:
    """Update the averages m and v with a new gradient, rounded as in torch."""
    m = leaf.state["m"] = torch.lerp(leaf.state["m"], grad, scalars["gain1"])
    v = leaf.state["v"] = torch.addcmul(scalars["beta2"] * leaf.state["v"], scalars["gain2"] * grad, grad)
    return m, v


def _betas_and_eps(beta1: Hyperparameter, beta2: Hyperparameter, eps: Hyperparameter) -> dict[str, Hyperparameter]:
    return {"beta1": decay("beta1", beta1), "beta2": decay("beta2", beta2), "eps": check("eps", eps, least=0.0)}
