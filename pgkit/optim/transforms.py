"""Transforms that any recipe may use; each states its formula with g for what comes in and u for what goes out."""

from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import Columns, Hyperparameter, Leaf, Optimizer, Signals, Transform, Vectors, per_leaf, signal
from pgkit.optim.chain import chain
from pgkit.optim.reductions import inner, row_sum
from pgkit.optim.validation import check
from pgkit.types import Params


def scale_by_rate(lr: Hyperparameter) -> Transform:
    """u = -lr g: turns what points uphill into an update to be added."""
    return Transform(
        step=lambda grad, leaf, c: c["rate"] * grad,
        numbers=lambda h, v, signals: {"rate": -h["lr"]},
        hyper={"lr": check("lr", lr, above=0.0)},
    )


def add_weight_decay(weight_decay: Hyperparameter) -> Transform:
    """u = g + weight_decay p: L2 regularisation, before the moments see the gradient."""
    return Transform(
        step=lambda grad, leaf, c: torch.addcmul(grad, c["weight_decay"], leaf.param),
        numbers=lambda h, v, signals: {"weight_decay": h["weight_decay"]},
        hyper={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
    )


def add_decoupled_weight_decay(weight_decay: Hyperparameter) -> Transform:
    """u = g - lr weight_decay p, behind the learning rate (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
    return Transform(
        step=lambda grad, leaf, c: torch.addcmul(grad, c["shrink"], leaf.param),
        numbers=lambda h, v, signals: {"shrink": -h["lr"] * h["weight_decay"]},
        hyper={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
    )


def clip_by_global_norm(max_grad_norm: Hyperparameter) -> Transform:
    """u = g min(1, max_grad_norm / (|g| + 1e-6)) with the norm over all parameters of a member, as in PyTorch.

    Reports ``grad_norm``, ``grad_norm_clipped`` and ``clip_fraction`` (1 where the norm was cut, else 0).
    """

    def survey(grads: Params) -> Vectors:
        return {"grad_norm": deterministic_map(torch.sqrt, inner(grads, grads))}

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        norm = signals["grad_norm"].double()
        share = (h["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0)
        v["grad_norm"], v["grad_norm_clipped"], v["clip_fraction"] = norm, norm * share, (share < 1.0).double()
        return {"share": share}

    return Transform(
        step=lambda grad, leaf, c: c["share"] * grad,
        numbers=numbers,
        survey=survey,
        hyper={"max_grad_norm": check("max_grad_norm", max_grad_norm, above=0.0)},
        vectors={"grad_norm": 0.0, "grad_norm_clipped": 0.0, "clip_fraction": 0.0},
    )


def clip_by_layer_norm(max_layer_norm: Hyperparameter) -> Transform:
    """The same with the norm of each leaf for itself."""

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        norm = per_leaf(row_sum(grad.square()).sqrt(), grad)
        return grad * (c["max_layer_norm"] / (norm + 1e-6)).clamp(max=1.0)

    return Transform(
        step=step,
        numbers=lambda h, v, signals: {"max_layer_norm": h["max_layer_norm"]},
        hyper={"max_layer_norm": check("max_layer_norm", max_layer_norm, above=0.0)},
        elementwise=False,
    )


def clip_by_value(max_grad_value: Hyperparameter) -> Transform:
    """u = g cut to [-max_grad_value, max_grad_value], element by element."""
    return Transform(
        step=lambda grad, leaf, c: torch.clamp(grad, -c["max_grad_value"], c["max_grad_value"]),
        numbers=lambda h, v, signals: {"max_grad_value": h["max_grad_value"]},
        hyper={"max_grad_value": check("max_grad_value", max_grad_value, above=0.0)},
    )


def centralize() -> Transform:
    """u = g minus its mean over the inputs of each output, for weights ``(P, in, out)``; others pass.

    Yong et al. 2020 (arXiv 2004.01461).
    """

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        return grad - grad.sum(1, keepdim=True) / grad.shape[1] if grad.dim() == 3 and grad.shape[1] > 1 else grad

    return Transform(step=step, elementwise=False)


def lookahead(steps: Hyperparameter, alpha: Hyperparameter = 0.5) -> Transform:
    """Every ``steps`` updates slow = slow + alpha (p + g - slow) and u = slow - p; else u = g. Last in a chain.

    Zhang et al. 2019 (arXiv 1907.08610).
    """

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        v["_lookahead"] = v["_lookahead"] + 1
        meet = v["_lookahead"] >= h["lookahead_steps"]
        v["_lookahead"] = torch.where(meet, 0.0, v["_lookahead"])
        return {"meet": meet.double(), "alpha": h["lookahead_alpha"]}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        slow, meet = leaf.slots["slow"], c["meet"] != 0
        target = leaf.slots["slow"] = torch.where(meet, slow + c["alpha"] * (leaf.param + grad - slow), slow)
        return torch.where(meet, target - leaf.param, grad)

    return Transform(
        step=step,
        numbers=numbers,
        hyper={
            "lookahead_steps": check("lookahead_steps", steps, least=1.0),
            "lookahead_alpha": check("lookahead_alpha", alpha, above=0.0, most=1.0),
        },
        slots={"slow": "param"},
        vectors={"_lookahead": 0.0},
    )


def restart(optimizer: Optimizer, what: str, every: Hyperparameter | str) -> Optimizer:
    """A chain that forgets at chosen times: before an update, as if it were the first.

    Args:
        optimizer: a chain.
        what: ``"moments"``: all that it keeps (Asadi et al. 2023, arXiv 2306.17833); ``"step"``: only how many steps
            there were, so that bias corrections begin anew (Adam-Rel, Ellis et al. 2024, arXiv 2412.17113).
        every: after that many updates, 0 for never; or ``"rollout"``, wherever the signal ``rollout_start`` is true:
            at the first update of each rollout.
    """
    if not optimizer.transforms:
        raise PgkitError(f"reset_{what} is for recipes made of transforms; this optimizer is none")
    vectors = {name: value for part in optimizer.transforms for name, value in part.vectors.items()}
    slots = {name: value for part in optimizer.transforms for name, value in part.slots.items()}
    if what == "step":
        vectors, slots = {name: value for name, value in vectors.items() if name.startswith("_step")}, {}
    count, key = f"_since_{what}_reset", f"reset_{what}"

    def due(h: Vectors, v: Vectors, signals: Signals) -> Tensor:
        if every == "rollout":
            return signal("rollout_start", signals, next(iter(h.values()))) != 0
        now = (v[count] >= h[key]) & (h[key] > 0)
        v[count] = torch.where(now, 0.0, v[count]) + 1
        return now

    def numbers(h: Vectors, v: Vectors, signals: Signals) -> Vectors:
        now = due(h, v, signals)
        for name, value in vectors.items():
            v[name] = torch.where(now, value, v[name])
        first = {f"first {name}": h[value] for name, value in slots.items() if value in h}
        return {"now": now.double(), **first}

    def step(grad: Tensor, leaf: Leaf, c: Columns) -> Tensor:
        now = c["now"] != 0
        for name, value in slots.items():
            first: Any = leaf.param if value == "param" else c.get(f"first {name}", value)
            leaf.slots[name] = torch.where(now, first, leaf.slots[name])
        return grad

    if every == "rollout":
        return chain(Transform(step, numbers, needs=frozenset({"rollout_start"})), optimizer)
    if isinstance(every, str):
        raise PgkitError(f"{key} is {every!r}; it must be a number of updates, or 'rollout'")
    hyper = {key: check(key, every, least=0.0)}
    return chain(Transform(step, numbers, hyper=hyper, vectors={count: 0.0}), optimizer)
