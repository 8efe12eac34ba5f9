"""Averaging in place of a learning rate schedule (Defazio et al. 2024, arXiv 2405.15682).

Three points move: z, where plain steps lead; x, a weighted average of all z; and y = (1 - beta1) z + beta1 x between
them. The parameters are y: there a policy acts, and its gradient is taken. What is evaluated is x, which follows from y
and z, so that nobody stores it.
"""

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import ExtraArgs, Hyperparameter, Leaf, MemberValues, Scalars, Schedule, Transform
from pgkit.optim.scaling import decay
from pgkit.optim.validation import check


def schedule_free(
    lr: Hyperparameter,
    beta1: Hyperparameter,
    warmup_steps: Hyperparameter,
    r: Hyperparameter,
    weight_lr_power: Hyperparameter,
    beta1_name: str = "beta1",
) -> Transform:
    """lr_t = lr min(1, t / warmup_steps); c = w_t / (w_1 + ... + w_t), w_t = t^r max(lr_1, ..., lr_t)^weight_lr_power;
    u = c (z - y) + lr_t (beta1 (1 - c) - 1) g; then z = z - lr_t g. Last in a chain; y are the parameters.

    Evaluation parameters: x = y + (1 - 1 / beta1) (z - y).

    Raises:
        PgkitError: a number is out of range, or beta1 has a schedule: x follows from y and z at one beta1 only.
    """
    if isinstance(beta1, Schedule):
        raise PgkitError(f"{beta1_name} of a schedule-free optimizer cannot have a schedule")

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        member["steps"] = member["steps"] + 1
        rate = hyper["lr"] * (member["steps"] / hyper["warmup_steps"]).clamp(max=1.0)  # x / 0 is infinite
        member["lr_max"] = torch.maximum(member["lr_max"], rate)
        weight = _power(member["steps"], hyper["r"]) * _power(member["lr_max"], hyper["weight_lr_power"])
        member["weight_sum"] = member["weight_sum"] + weight
        c = torch.where(member["weight_sum"] > 0, weight / member["weight_sum"], 0.0)
        return {"c": c, "y_rate": rate * (hyper[beta1_name] * (1 - c) - 1), "z_rate": -rate}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        z = leaf.state["z"]
        leaf.state["z"] = torch.addcmul(z, scalars["z_rate"], grad)
        return torch.addcmul(scalars["c"] * (z - leaf.param), scalars["y_rate"], grad)

    def eval_param(leaf: Leaf, scalars: Scalars) -> Tensor:
        return torch.addcmul(leaf.param, 1 - 1 / scalars[beta1_name], leaf.state["z"] - leaf.param)

    return Transform(
        step,
        precompute,
        hyperparameters={
            "lr": check("lr", lr, above=0.0),
            beta1_name: check(beta1_name, beta1, above=0.0, below=1.0),
            "warmup_steps": check("warmup_steps", warmup_steps, least=0.0),
            "r": check("r", r, least=0.0),
            "weight_lr_power": check("weight_lr_power", weight_lr_power, least=0.0),
        },
        leaf_state={"z": "param"},
        member_state={"steps": 0.0, "lr_max": 0.0, "weight_sum": 0.0},
        step_counters=frozenset({"steps"}),
        eval_param=eval_param,
    )


def scale_by_second_moment(beta2: Hyperparameter, eps: Hyperparameter) -> Transform:
    """v = beta2 v + (1 - beta2) g^2; u = g / (sqrt(v / (1 - beta2^t)) + eps): Adam without its first moment."""

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        member["beta2_power"] = member["beta2_power"] * hyper["beta2"]
        correction = 1 - member["beta2_power"]
        return {"beta2": hyper["beta2"], "gain2": 1 - hyper["beta2"], "correction": correction, "eps": hyper["eps"]}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        v = leaf.state["v"] = torch.addcmul(scalars["beta2"] * leaf.state["v"], scalars["gain2"] * grad, grad)
        return grad / (torch.sqrt(v / scalars["correction"]) + scalars["eps"])

    return Transform(
        step,
        precompute,
        hyperparameters={"beta2": decay("beta2", beta2), "eps": check("eps", eps, least=0.0)},
        leaf_state={"v": 0.0},
        member_state={"beta2_power": 1.0},
        step_counters=frozenset({"beta2_power"}),
    )


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """``base ** exponent`` of numbers ``(P,)`` from 0 on, by functions that captured updates have."""
    power = deterministic_map(torch.exp, exponent * deterministic_map(torch.log, base))
    return torch.where(exponent == 0, 1.0, power)
