"""TRAC: how far to follow another optimizer is learnt from the gradients, without a learning rate of its own."""

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map, erfi
from pgkit.optim.base import (
    ExtraArgs,
    Hyperparameter,
    Leaf,
    MemberValues,
    Optimizer,
    Scalars,
    State,
    StepResult,
    Transform,
    checked_grads,
    copy_leaves,
)
from pgkit.optim.fused import run_stage
from pgkit.optim.hyperparameters import members_and_device, next_hyperparameters, required_by
from pgkit.optim.reductions import inner
from pgkit.optim.validation import check
from pgkit.optim.wrapper import init_state, wrap
from pgkit.types import Params

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
"""Discounts of the six tuners, whose scales are added."""

EPS = 1e-8
"""Initial sigma, and what is added to the root of V."""

UNIT = float(erfi(torch.tensor(0.5, dtype=torch.float64).sqrt()))
"""erfi(1 / sqrt 2)."""

LARGEST = 26.0
"""The largest argument of erfi, whose value overflows float64 from 26.6 on."""


def trac(optimizer: Optimizer, trac_s_prev: Hyperparameter = 1e-8) -> Optimizer:
    """h = <D, g>; D = D + u; for each of six beta: V = beta^2 V + h^2, sigma = beta sigma - h;
    S = sum of trac_s_prev / erfi(1 / sqrt 2) erfi(sigma / (sqrt(2 V) + 1e-8)); p = p0 + max(S, 0) D.

    p0 are the parameters of the beginning, u is the update that the optimizer computes at p, D the sum of these; beta =
    0.9, 0.99, ..., 0.999999; sigma begins at 1e-8, V at 0. h is of all parameters of a member, or of those of a group.

    D is kept, where the authors' code computes it again from p - p0, which float32 cannot hold in the beginning: there,
    a small network starts dozens of steps late, or never.

    Source: Muppidi, Zhang and Yang 2024 (arXiv 2405.16642); erfi as in pytorch_optimizer, that of the authors is an
    approximation with errors up to 1 %.
    """
    hyperparameters = {"trac_s_prev": check("trac_s_prev", trac_s_prev, above=0.0)}

    def init(params: Params) -> State:
        members, device = members_and_device(params)
        zeros = torch.zeros(members, len(BETAS), dtype=torch.float64, device=device)
        return init_state(
            hyperparameters,
            params,
            member_state={"sigma": zeros + EPS, "variance": zeros},
            metrics=("trac_scale",),
            leaf_state={
                "reference": copy_leaves(params),
                "delta": {name: torch.zeros_like(leaf) for name, leaf in params.items()},
            },
        )

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        inner_state, trac_state = state
        grads = checked_grads(grads, params)
        slope = inner(trac_state["leaf_state"]["delta"], grads).double()  # before the step overwrites gradients
        updates, _, inner_state = optimizer.step(grads, inner_state, params, extra_args, False)
        hyper = next_hyperparameters(hyperparameters, trac_state, extra_args)
        member_state, scale = _tune(trac_state["member_state"], slope, hyper["trac_s_prev"])
        updates = {name: updates[name].contiguous() for name in params}
        largest = run_stage([_MOVE], updates, params, trac_state["leaf_state"], [{"scale": scale}], add=add)
        moved = {"hyperparameters": hyper, "member_state": member_state, "metrics": {"trac_scale": scale}}
        return StepResult(updates, largest, [inner_state, {**trac_state, **moved}])

    return wrap(optimizer, init, step, required_by(hyperparameters))


def _move(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    """From the optimizer's update to that of TRAC."""
    leaf.state["delta"] = leaf.state["delta"] + grad
    return leaf.state["reference"] + scalars["scale"] * leaf.state["delta"] - leaf.param


_MOVE = Transform(_move)


def _tune(member_state: MemberValues, slope: Tensor, s_prev: Tensor) -> tuple[MemberValues, Tensor]:
    """Compute the next states of the six tuners, ``(P, 6)`` each, and max(S, 0) ``(P,)``."""
    sigma = member_state["sigma"]
    betas = torch.tensor(BETAS, dtype=torch.float64, device=sigma.device).expand_as(sigma)
    slopes = slope.unsqueeze(1)
    variance = betas * betas * member_state["variance"] + slopes * slopes
    sigma = betas * sigma - slopes
    root = deterministic_map(torch.sqrt, (2 * variance).flatten()).view_as(sigma)
    argument = (sigma / (root + EPS)).clamp(-LARGEST, LARGEST)
    terms = deterministic_map(erfi, argument.flatten()).view_as(sigma).unbind(1)
    scale = s_prev / UNIT * sum(terms[1:], terms[0])
    return {"sigma": sigma, "variance": variance}, scale.clamp(min=0.0)
