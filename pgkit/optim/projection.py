"""Normalize-and-Project: weights that a layer norm follows keep the length of their beginning."""

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import ExtraArgs, Hyperparameter, Optimizer, State, StepResult, per_leaf
from pgkit.optim.hyperparameters import next_hyperparameters, required_by
from pgkit.optim.reductions import inner
from pgkit.optim.update import finish
from pgkit.optim.validation import check
from pgkit.optim.wrapper import init_state, wrap
from pgkit.types import Params


def normalize_and_project(optimizer: Optimizer, normalize_and_project: Hyperparameter = 1) -> Optimizer:
    """After every so many steps (W, b) = (W, b) |(W0, b0)| / |(W, b)|, for each layer that a layer norm follows.

    W0 and b0 are the weight and the bias of the beginning. A layer norm makes the function of such a layer independent
    of the length of (W, b) together, so the projection changes no output; growing weights would make steps smaller and
    smaller. Heads have no norm behind them and are left alone, as are the scales and offsets of norms. The optimizer
    does not learn of the projection: its moments stay.

    Source: Lyle et al. 2024 (arXiv 2407.01800), for weights without biases, and with a schedule of lr.

    Args:
        optimizer: any.
        normalize_and_project: steps from one projection to the next.

    Raises:
        PgkitError: the number is below 1; or, from ``init``, no layer norm follows any weight: then lengths matter.
    """
    hyperparameters = {"normalize_and_project": check("normalize_and_project", normalize_and_project, least=1.0)}

    def init(params: Params) -> State:
        layers = _layers(params)
        if not layers:
            raise PgkitError(
                "normalize_and_project is for weights that a layer norm follows, and there are none, "
                "so the length of every weight matters: set policy.layer_norm = true"
            )
        norms = {f"norm of {layer}": _norm(_of_layer(params, layer)) for layer in layers}
        steps = torch.zeros_like(next(iter(norms.values())))
        return init_state(hyperparameters, params, member_state={"steps_since_projection": steps, **norms})

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        inner_state, own_state = state
        updates, _, inner_state = optimizer.step(grads, inner_state, params, extra_args, False)
        hyper = next_hyperparameters(hyperparameters, own_state, extra_args)
        member = dict(own_state["member_state"])
        steps = member["steps_since_projection"] + 1
        now = steps >= hyper["normalize_and_project"]
        member["steps_since_projection"] = torch.where(now, 0.0, steps)
        for layer in _layers(params):
            leaves = _of_layer(params, layer)
            updates = {**updates, **_projected(updates, leaves, member[f"norm of {layer}"], now)}
        own_state = {**own_state, "hyperparameters": hyper, "member_state": member}
        return finish(updates, [inner_state, own_state], params, add)

    return wrap(optimizer, init, step, required_by(hyperparameters))


def _layers(params: Params) -> list[str]:
    """Names of the layers that a layer norm follows, such as ``actor.0`` before ``actor.0.norm``."""
    names = [name.removesuffix(".norm.weight") for name in params if name.endswith(".norm.weight")]
    return [name for name in names if f"{name}.weight" in params]


def _of_layer(params: Params, layer: str) -> Params:
    """The weight of a layer, and its bias if it has one."""
    return {name: params[name] for name in (f"{layer}.weight", f"{layer}.bias") if name in params}


def _norm(leaves: Params) -> Tensor:
    """The length of all leaves together, float64 ``(P,)``."""
    return deterministic_map(torch.sqrt, inner(leaves, leaves).double())


def _projected(updates: Params, leaves: Params, target: Tensor, now: Tensor) -> Params:
    """The updates of a layer that end at the length ``target`` for members where ``now``, ``(P,)`` each."""
    moved = {name: leaf + updates[name] for name, leaf in leaves.items()}
    norm = _norm(moved)
    factor = torch.where(norm > 0, target / norm, 1.0)

    def project(name: str, leaf: Tensor) -> Tensor:
        projected = per_leaf(factor.to(leaf.dtype), leaf) * moved[name] - leaf
        return torch.where(per_leaf(now, leaf), projected, updates[name])

    return {name: project(name, leaf) for name, leaf in leaves.items()}
