"""The pieces that recipes are made of; each states its formula with g for what comes in and u for what goes out.

A direction points uphill until the learning rate turns it into an update to be added.
"""

import torch
from torch import Tensor

from pgkit.optim.core import Columns, Hyper, Leaf, Signals, Transform, Vectors, inner
from pgkit.optim.hyperparameters import check
from pgkit.types import Params


def scale_by_rate(lr: Hyper) -> Transform:
    """u = -lr g."""
    return Transform(
        step=lambda grad, leaf, c: grad.mul_(c["rate"]),
        numbers=lambda h, v, signals: {"rate": -h["lr"]},
        hyper={"lr": check("lr", lr, above=0.0)},
    )


def add_weight_decay(weight_decay: Hyper) -> Transform:
    """u = g + weight_decay p: L2 regularisation, before the moments see the gradient."""
    return Transform(
        step=lambda grad, leaf, c: grad.add_(leaf.param * c["weight_decay"]),
        numbers=lambda h, v, signals: {"weight_decay": h["weight_decay"]},
        hyper={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
    )


def clip_by_global_norm(max_grad_norm: Hyper) -> Transform:
    """u = g min(1, max_grad_norm / (|g| + 1e-6)) with the norm over all parameters of a member, as in PyTorch.

    Reports ``grad_norm``, ``grad_norm_clipped`` and ``clip_fraction`` (1 where the norm was cut, else 0).
    """

    def survey(grads: Params) -> Vectors:
        return {"grad_norm": inner(grads, grads).sqrt()}

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        norm = signals["grad_norm"].double()
        share = (h["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0)
        v["grad_norm"], v["grad_norm_clipped"], v["clip_fraction"] = norm, norm * share, (share < 1.0).double()
        return {"share": share}

    return Transform(
        step=lambda grad, leaf, c: grad.mul_(c["share"]),
        numbers=numbers,
        survey=survey,
        hyper={"max_grad_norm": check("max_grad_norm", max_grad_norm, above=0.0)},
        vectors={"grad_norm": 0.0, "grad_norm_clipped": 0.0, "clip_fraction": 0.0},
    )


def trace(momentum: Hyper, dampening: Hyper = 0.0, nesterov: bool = False) -> Transform:
    """b = momentum b + (1 - dampening) g, but b = g at the first step; u = b, or g + momentum b with Nesterov."""

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        gain = torch.where(v["_first"] == 1, 1.0, 1 - h["dampening"])
        v["_first"] = torch.zeros_like(v["_first"])
        return {"momentum": h["momentum"], "gain": gain}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        b = leaf.slots["b"].mul_(c["momentum"]).add_(grad * c["gain"])
        return grad.add_(b * c["momentum"]) if nesterov else grad.copy_(b)

    return Transform(
        step=step,
        numbers=numbers,
        hyper={
            "momentum": check("momentum", momentum, least=0.0, below=1.0),
            "dampening": check("dampening", dampening, least=0.0, most=1.0),
        },
        slots={"b": 0.0},
        vectors={"_first": 1.0},
    )


def scale_by_rms(alpha: Hyper, eps: Hyper, centered: bool = False) -> Transform:
    """v = alpha v + (1 - alpha) g^2; u = g / (sqrt(v) + eps).

    Centered: a = alpha a + (1 - alpha) g; u = g / (sqrt(v - a^2) + eps).
    """

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        v = leaf.slots["v"].mul_(c["alpha"]).add_((grad * c["gain"]).mul_(grad))
        if centered:
            a = leaf.slots["a"]
            a.add_((grad - a).mul_(c["gain"]))
            v = v - a.square()
        return grad.div_(v.sqrt().add_(c["eps"]))

    return Transform(
        step=step,
        numbers=lambda h, v, signals: {"alpha": h["alpha"], "gain": 1 - h["alpha"], "eps": h["eps"]},
        hyper={"alpha": check("alpha", alpha, least=0.0, below=1.0), "eps": check("eps", eps, least=0.0)},
        slots={"v": 0.0, "a": 0.0} if centered else {"v": 0.0},
    )


def adam_step(lr: Hyper, beta1: Hyper, beta2: Hyper, eps: Hyper) -> Transform:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    u = -lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    The slots hold m / (1 - beta1) and v / (1 - beta2), and all factors are gathered into one: u = rate m / (sqrt(v) + eps').
    That spares a third of the passes over memory.
    """

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        decay1, decay2 = decay_of_sum(v, "m", h["beta1"]), decay_of_sum(v, "v", h["beta2"])
        v["_beta1_power"], v["_beta2_power"] = v["_beta1_power"] * h["beta1"], v["_beta2_power"] * h["beta2"]
        root = (v["_v_unit"] / (1 - v["_beta2_power"])).sqrt()
        rate = -h["lr"] * v["_m_unit"] / ((1 - v["_beta1_power"]) * root)
        return {"decay1": decay1, "decay2": decay2, "rate": rate, "eps": h["eps"] / root}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        m, v = leaf.slots["m"], leaf.slots["v"]
        m.mul_(c["decay1"]).add_(grad)
        v.mul_(c["decay2"]).add_(grad.mul_(grad))
        return torch.div(m, torch.sqrt(v, out=grad).add_(c["eps"]), out=grad).mul_(c["rate"])

    return Transform(
        step=step,
        numbers=numbers,
        hyper={
            "lr": check("lr", lr, above=0.0),
            "beta1": check("beta1", beta1, least=0.0, below=1.0),
            "beta2": check("beta2", beta2, least=0.0, below=1.0),
            "eps": check("eps", eps, least=0.0),
        },
        slots={"m": 0.0, "v": 0.0},
        vectors={"_m_unit": 1.0, "_v_unit": 1.0, "_beta1_power": 1.0, "_beta2_power": 1.0},
    )


def decay_of_sum(v: Vectors, slot: str, beta: Tensor) -> Tensor:
    """Decay of a slot that holds an average in units of 1 - beta, so that it is a plain sum: s = decay s + x.

    It is beta itself as long as beta stays; the unit goes along in ``v``.
    """
    unit = 1 - beta
    decay = beta * (v[f"_{slot}_unit"] / unit)
    v[f"_{slot}_unit"] = unit
    return decay
