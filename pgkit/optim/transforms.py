"""Transforms for any optimizer, each with its formula: g is the incoming gradient, u the result."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import (
    ExtraArgs,
    Hyperparameter,
    Leaf,
    LeafInit,
    MemberValues,
    Optimizer,
    Scalars,
    Transform,
    extra_arg,
    per_leaf,
)
from pgkit.optim.chain import chain
from pgkit.optim.reductions import inner, row_sum
from pgkit.optim.validation import check
from pgkit.types import Params


def scale_by_rate(lr: Hyperparameter) -> Transform:
    """u = -lr g: turn a direction that points uphill into an update to be added."""
    return Transform(
        step=lambda grad, leaf, scalars: scalars["rate"] * grad,
        precompute=lambda hyper, member, extra_args: {"rate": -hyper["lr"]},
        hyperparameters={"lr": check("lr", lr, above=0.0)},
    )


def add_weight_decay(weight_decay: Hyperparameter) -> Transform:
    """u = g + weight_decay p: L2 regularisation, which passes through the moments behind it."""
    return Transform(
        step=lambda grad, leaf, scalars: torch.addcmul(grad, scalars["weight_decay"], leaf.param),
        precompute=lambda hyper, member, extra_args: {"weight_decay": hyper["weight_decay"]},
        hyperparameters={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
    )


def add_decoupled_weight_decay(weight_decay: Hyperparameter) -> Transform:
    """u = g - lr weight_decay p, behind the learning rate.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101).
    """
    return Transform(
        step=_shrink,
        precompute=lambda hyper, member, extra_args: {"shrink": -hyper["lr"] * hyper["weight_decay"]},
        hyperparameters={"weight_decay": check("weight_decay", weight_decay, least=0.0)},
    )


def _shrink(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    return torch.addcmul(grad, scalars["shrink"], leaf.param)


def shrink_moved(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    """The step of a decoupled decay of the new parameters: u = g + shrink (p + g)."""
    return torch.addcmul(grad, scalars["shrink"], leaf.param + grad)


def is_decoupled_decay(transform: Transform) -> bool:
    """Whether a transform is :func:`add_decoupled_weight_decay`, or its step is :func:`shrink_moved`."""
    return transform.step in (_shrink, shrink_moved)


def clip_by_global_norm(max_grad_norm: Hyperparameter) -> Transform:
    """u = g min(1, max_grad_norm / (|g| + 1e-6)) with the norm over all parameters of a member, as in PyTorch.

    Metrics: ``grad_norm``, ``grad_norm_clipped`` and ``clip_fraction`` (1 where the norm was clipped, else 0).

    Source: Pascanu, Mikolov and Bengio 2013 (arXiv 1211.5063); torch.nn.utils.clip_grad_norm_.
    """

    def reduce(grads: Params) -> MemberValues:
        return {"grad_norm": deterministic_map(torch.sqrt, inner(grads, grads))}

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        norm = extra_args["grad_norm"].double()
        share = (hyper["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0)
        member["grad_norm"] = norm
        member["grad_norm_clipped"] = norm * share
        member["clip_fraction"] = (share < 1.0).double()
        return {"share": share}

    return Transform(
        step=lambda grad, leaf, scalars: scalars["share"] * grad,
        precompute=precompute,
        reduce=reduce,
        hyperparameters={"max_grad_norm": check("max_grad_norm", max_grad_norm, above=0.0)},
        metrics={"grad_norm": 0.0, "grad_norm_clipped": 0.0, "clip_fraction": 0.0},
    )


def clip_by_layer_norm(max_layer_norm: Hyperparameter) -> Transform:
    """u = g min(1, max_layer_norm / (|g| + 1e-6)) with the norm of each leaf of a member by itself.

    Source: torch.nn.utils.clip_grad_norm_, called for each parameter.
    """

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        norm = per_leaf(row_sum(grad.square()).sqrt(), grad)
        return grad * (scalars["max_layer_norm"] / (norm + 1e-6)).clamp(max=1.0)

    return Transform(
        step=step,
        precompute=lambda hyper, member, extra_args: {"max_layer_norm": hyper["max_layer_norm"]},
        hyperparameters={"max_layer_norm": check("max_layer_norm", max_layer_norm, above=0.0)},
        elementwise=False,
    )


def clip_by_value(max_grad_value: Hyperparameter) -> Transform:
    """u = g clipped to [-max_grad_value, max_grad_value], element by element.

    Source: torch.nn.utils.clip_grad_value_.
    """
    return Transform(
        step=lambda grad, leaf, scalars: torch.clamp(grad, -scalars["max_grad_value"], scalars["max_grad_value"]),
        precompute=lambda hyper, member, extra_args: {"max_grad_value": hyper["max_grad_value"]},
        hyperparameters={"max_grad_value": check("max_grad_value", max_grad_value, above=0.0)},
    )


def centralize() -> Transform:
    """u = g minus its mean over the inputs of each output, for weights ``(P, in, out)``; other leaves pass unchanged.

    Source: Yong et al. 2020 (arXiv 2004.01461).
    """

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        return grad - grad.sum(1, keepdim=True) / grad.shape[1] if grad.dim() == 3 and grad.shape[1] > 1 else grad

    return Transform(step=step, elementwise=False)


def lookahead(steps: Hyperparameter, alpha: Hyperparameter = 0.5) -> Transform:
    """Every lookahead_steps updates slow = slow + lookahead_alpha (p + g - slow) and u = slow - p; else u = g.

    Last in a chain.

    Source: Zhang et al. 2019 (arXiv 1907.08610).
    """

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        steps_since_sync = member["steps_since_sync"] + 1
        sync = steps_since_sync >= hyper["lookahead_steps"]
        member["steps_since_sync"] = torch.where(sync, 0.0, steps_since_sync)
        return {"sync": sync.double(), "alpha": hyper["lookahead_alpha"]}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        slow = leaf.state["slow"]
        sync = scalars["sync"] != 0
        target = torch.where(sync, slow + scalars["alpha"] * (leaf.param + grad - slow), slow)
        leaf.state["slow"] = target
        return torch.where(sync, target - leaf.param, grad)

    return Transform(
        step=step,
        precompute=precompute,
        hyperparameters={
            "lookahead_steps": check("lookahead_steps", steps, least=1.0),
            "lookahead_alpha": check("lookahead_alpha", alpha, above=0.0, most=1.0),
        },
        leaf_state={"slow": "param"},
        member_state={"steps_since_sync": 0.0},
    )


def restart(optimizer: Optimizer, what: str, every: Hyperparameter | str) -> Optimizer:
    """Make a chain forget its state at chosen times, before an update, as if that were the first; or only the number of
    steps, so that bias corrections begin anew.

    Source: moments: Asadi et al. 2023 (arXiv 2306.17833); steps: Ellis et al. 2024 (arXiv 2412.17113).

    Args:
        optimizer: a chain.
        what: ``"moments"`` forgets all state; ``"step"`` only the number of steps, as Adam-Rel does.
        every: forget after that many updates, 0 for never; or ``"rollout"``: wherever the extra argument
            ``rollout_start`` is true, which is the first update of each rollout.

    Raises:
        PgkitError: the optimizer is not a chain of transforms, or ``every`` is another text.
    """
    if not optimizer.transforms:
        raise PgkitError(f"reset_{what} needs an optimizer made of transforms; this one is not")
    key = f"reset_{what}"
    if isinstance(every, str) and every != "rollout":
        raise PgkitError(f"{key} is {every!r}; it must be a number of updates, or 'rollout'")
    member_state, leaf_state = _state_to_reset(optimizer, what)
    counter = f"steps_since_{key}"

    def precompute(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
        if every == "rollout":
            now = extra_arg("rollout_start", extra_args, next(iter(hyper.values()))) != 0
        else:
            now = (member[counter] >= hyper[key]) & (hyper[key] > 0)
            member[counter] = torch.where(now, 0.0, member[counter]) + 1
        for name, value in member_state.items():
            member[name] = torch.where(now, value, member[name])
        names = {name: value for name, value in leaf_state.items() if isinstance(value, str)}
        initial = {f"initial {name}": hyper[value] for name, value in names.items() if value in hyper}
        return {"now": now.double(), **initial}

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        now = scalars["now"] != 0
        for name, value in leaf_state.items():
            if name in leaf.state:
                initial = _initial(value, leaf, scalars.get(f"initial {name}"))
                leaf.state[name] = torch.where(now, initial, leaf.state[name])
        return grad

    front = Transform(step, precompute, elementwise=not any(map(callable, leaf_state.values())))
    if isinstance(every, str):
        return chain(replace(front, requires=frozenset({"rollout_start"})), optimizer)
    hyperparameters = {key: check(key, every, least=0.0)}
    return chain(replace(front, hyperparameters=hyperparameters, member_state={counter: 0.0}), optimizer)


def _initial(value: LeafInit, leaf: Leaf, of_hyperparameter: Tensor | None) -> Any:
    """The initial value of a leaf state: a tensor, or a number for all elements."""
    if callable(value):
        return value(leaf.param)
    if value == "param":
        return leaf.param
    return value if of_hyperparameter is None else of_hyperparameter


def _state_to_reset(optimizer: Optimizer, what: str) -> tuple[dict[str, float], dict[str, LeafInit]]:
    """Collect the initial values of the state that a restart puts back: per member, and shaped like leaves."""
    if what == "step":
        counters = {name: part.member_state[name] for part in optimizer.transforms for name in part.step_counters}
        return counters, {}
    member_state: dict[str, float] = {}
    leaf_state: dict[str, LeafInit] = {}
    for part in optimizer.transforms:
        member_state |= {**part.member_state, **part.metrics}
        leaf_state |= part.leaf_state
    return member_state, leaf_state
