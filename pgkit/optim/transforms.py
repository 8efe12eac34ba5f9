"""The pieces that recipes are made of; each states its formula with g for what comes in and u for what goes out.

A recipe's direction points uphill until :func:`scale_by_rate` turns it into an update to be added.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pgkit.optim.core import Hyper, Rows, Signals, Transform, Vectors, row_sum
from pgkit.optim.hyperparameters import check

Columns = Mapping[str, Tensor]


def scale_by_rate(lr: Hyper) -> Transform:
    """u = -lr g."""
    return Transform(
        step=lambda grad, rows, c: grad.mul_(c["rate"]),
        numbers=lambda h, v, signals: {"rate": -h["lr"]},
        hyper={"lr": check("lr", lr, above=0.0)},
    )


def add_weight_decay(weight_decay: Hyper) -> Transform:
    """u = g + weight_decay p: L2 regularisation, before the moments see the gradient."""
    return Transform(
        step=lambda grad, rows, c: grad.add_(_param(rows) * c["weight_decay"]),
        numbers=lambda h, v, signals: {"weight_decay": h["weight_decay"]},
        hyper={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
        needs_param=True,
    )


def clip_by_global_norm(max_grad_norm: Hyper) -> Transform:
    """u = g min(1, max_grad_norm / (|g| + 1e-6)) with the norm over all parameters of a member, as in PyTorch.

    Reports ``grad_norm``, ``grad_norm_clipped`` and ``clip_fraction`` (1 where the norm was cut, else 0).
    """

    def step(grad: Tensor, rows: Rows, c: Columns) -> Tensor:
        norm = row_sum(grad.square()).sqrt()
        share = (c["max_grad_norm"][:, 0] / (norm + 1e-6)).clamp(max=1.0)
        rows.log["grad_norm"] = norm
        rows.log["grad_norm_clipped"] = norm * share
        rows.log["clip_fraction"] = (share < 1.0).to(norm.dtype)
        return grad.mul_(share.unsqueeze(1))

    return Transform(
        step=step,
        numbers=lambda h, v, signals: {"max_grad_norm": h["max_grad_norm"]},
        hyper={"max_grad_norm": check("max_grad_norm", max_grad_norm, above=0.0)},
    )


def trace(momentum: Hyper, dampening: Hyper = 0.0, nesterov: bool = False) -> Transform:
    """b = momentum b + (1 - dampening) g, but b = g at the first step; u = b, or g + momentum b with Nesterov."""

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        first, v["trace_first"] = v["trace_first"], torch.zeros_like(v["trace_first"])
        return {"momentum": h["momentum"], "gain": torch.where(first != 0, 1.0, 1 - h["dampening"])}

    def step(grad: Tensor, rows: Rows, c: Columns) -> Tensor:
        buffer = rows["trace"].mul_(c["momentum"]).add_(grad * c["gain"])
        return grad.add_(buffer * c["momentum"]) if nesterov else grad.copy_(buffer)

    return Transform(
        step=step,
        numbers=numbers,
        hyper={
            "momentum": check("momentum", momentum, least=0.0, below=1.0),
            "dampening": check("dampening", dampening, least=0.0, most=1.0),
        },
        slots={"trace": 0.0},
        vectors={"trace_first": 1.0},
    )


def scale_by_rms(alpha: Hyper, eps: Hyper, centered: bool = False) -> Transform:
    """v = alpha v + (1 - alpha) g^2; u = g / (sqrt(v) + eps).

    Centered: a = alpha a + (1 - alpha) g; u = g / (sqrt(v - a^2) + eps).
    """

    def step(grad: Tensor, rows: Rows, c: Columns) -> Tensor:
        v = average_square(rows["v"], grad, c["alpha"], c["gain"])
        if centered:
            a = rows["a"]
            a.add_((grad - a).mul_(c["gain"]))
            v = v - a.square()
        return grad.div_(v.sqrt().add_(c["eps"]))

    return Transform(
        step=step,
        numbers=lambda h, v, signals: {"alpha": h["alpha"], "gain": 1 - h["alpha"], "eps": h["eps"]},
        hyper={"alpha": check("alpha", alpha, least=0.0, below=1.0), "eps": check("eps", eps, least=0.0)},
        slots={"v": 0.0, "a": 0.0} if centered else {"v": 0.0},
    )


def scale_by_adam(beta1: Hyper, beta2: Hyper, eps: Hyper) -> Transform:
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)."""

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        v["beta1_power"], v["beta2_power"] = v["beta1_power"] * h["beta1"], v["beta2_power"] * h["beta2"]
        correction = 1 - v["beta1_power"]
        return {
            "gain1": 1 - h["beta1"],
            "beta2": h["beta2"],
            "gain2": 1 - h["beta2"],
            "scale": correction / (1 - v["beta2_power"]).sqrt(),
            "eps": h["eps"] * correction,
        }

    def step(grad: Tensor, rows: Rows, c: Columns) -> Tensor:
        m = rows["m"]
        v = average_square(rows["v"], grad, c["beta2"], c["gain2"])
        m.add_(grad.sub_(m).mul_(c["gain1"]))
        return torch.div(m, v.sqrt().mul_(c["scale"]).add_(c["eps"]), out=grad)

    return Transform(
        step=step,
        numbers=numbers,
        hyper={
            "beta1": check("beta1", beta1, least=0.0, below=1.0),
            "beta2": check("beta2", beta2, least=0.0, below=1.0),
            "eps": check("eps", eps, least=0.0),
        },
        slots={"m": 0.0, "v": 0.0},
        vectors={"beta1_power": 1.0, "beta2_power": 1.0},
    )


def average_square(v: Tensor, grad: Tensor, decay: Tensor, gain: Tensor) -> Tensor:
    """v = decay v + gain g^2 in place."""
    return v.mul_(decay).add_((grad * gain).mul_(grad))


def _param(rows: Rows) -> Tensor:
    assert rows.param is not None, "a transform that reads the parameters says so: needs_param=True"
    return rows.param
