"""How sharp the loss is at a point, over what the optimizer in its present state can stand."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.diagnose.curvature import EpisodeSamples, directional_derivatives
from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.lanczos import Product, lanczos
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.stability import (
    LinearRule,
    linear_rule,
    loss_curvature,
    precondition,
    preconditioned,
    sharpness_ratio,
)
from pgkit.diagnose.vectors import actor_names, flatten_params
from pgkit.errors import PgkitError
from pgkit.nn.policy import Policy
from pgkit.optim.from_config import describe

LANCZOS_STEPS = 8
"""Products that the direction of the preconditioned end is searched with; what is stated is measured along it."""


class OptimizerState(NamedTuple):
    """What the actor's optimizer does at a point.

    Attributes:
        rule: on a quadratic, at the present learning rate.
        clip_factor: by which its last gradient was shortened, in (0, 1].
        second_moment: ``(D,)`` of an optimizer that divides by its root, with the bias corrected; else None.
        eps: what is added to the root.
    """

    rule: LinearRule
    clip_factor: float
    second_moment: Tensor | None
    eps: float


def sharpness(
    point: Point, policy: Policy, search: Product, fresh: EpisodeSamples, bottom: Quantity, generator: torch.Generator
) -> dict[str, Quantity]:
    """The largest curvature of the loss, ``sharpness``, and that over the rule's threshold, ``sharpness_ratio``.

    Of an optimizer with second moments it is the curvature of ``D^-1/2 H D^-1/2``, ``D = sqrt(v) + eps``. Like every
    curvature along a direction it is a lower bound of the largest one. Cohen et al. 2021 (arXiv 2103.00065), 2022
    (arXiv 2207.14484).

    Args:
        point: the point, with its optimizer's state.
        policy: what its parameters mean.
        search: ``v -> H v`` of J on some episodes.
        fresh: other episodes.
        bottom: v'Hv of J along the bottom of the spectrum, measured on the fresh ones.
        generator: of the start of the search.
    """
    length = float(fresh.sums(torch.ones_like(fresh.weight)).mean())
    plain = loss_curvature(bottom, mean_length=length)
    try:
        optimizer = optimizer_state(point)
    except PgkitError as error:
        return {"sharpness": plain, "sharpness_ratio": Quantity.missing(str(error))}
    if optimizer.second_moment is not None:
        product = preconditioned(search, optimizer.second_moment, optimizer.eps)
        start = torch.randn(len(optimizer.second_moment), generator=generator, dtype=torch.float64)
        end = lanczos(product, start, LANCZOS_STEPS).vectors[0]
        vector = precondition(end, optimizer.second_moment, optimizer.eps)
        bottom = mean_quantity(directional_derivatives(policy, point.params, fresh, vector).curvature.numpy())
    seen = loss_curvature(bottom, mean_length=length, clip_factor=optimizer.clip_factor)
    return {"sharpness": seen, "sharpness_ratio": sharpness_ratio(seen, optimizer.rule)}


def optimizer_state(point: Point) -> OptimizerState:
    """Read what the actor's optimizer would do next.

    Raises:
        PgkitError: no threshold of stability is known for it, or the scale of its gradients is not.
    """
    table = describe(point.config.optimizer)["main"]
    linear_rule(table["name"], table)  # refuses what it does not know
    if point.config.agent.get("normalize_advantage"):
        raise PgkitError("advantages are normalized: the scale of the loss changes with each batch")
    state = _of_actor(point)
    settings = {name: float(value[0]) for name, value in state["hyperparameters"].items()}
    rule = linear_rule(table["name"], {**table, **settings})
    moment = _second_moment(state, actor_names(point.params)) if rule.preconditioned else None
    return OptimizerState(rule, _clip_factor(state["metrics"]), moment, settings.get("eps", 0.0))


def _of_actor(point: Point) -> Mapping[str, Any]:
    """The state of the one optimizer that moves the actor."""
    state = point.opt_state
    if isinstance(state, list):
        raise PgkitError("a KL limit shortens the steps, whatever the curvature")
    if "inner_states" in state:
        groups = [label for label in state["inner_states"] if not label.startswith("critic")]
        if groups != ["main"]:
            raise PgkitError("the actor's parameters are in several groups, each with settings of its own")
        state = state["inner_states"]["main"]
    return state


def _clip_factor(metrics: Mapping[str, Tensor]) -> float:
    """By how much clipping shortened the last gradient."""
    if "grad_norm_clipped" not in metrics or not float(metrics["grad_norm"][0]) > 0:
        return 1.0
    return float(metrics["grad_norm_clipped"][0] / metrics["grad_norm"][0])


def _second_moment(state: Mapping[str, Any], names: Sequence[str]) -> Tensor:
    """What the optimizer divides by the root of, ``(D,)`` float64."""
    leaves = state["leaf_state"]
    moment = flatten_params(leaves.get("v_max", leaves["v"]), names)[0]
    if "a" in leaves:  # centered
        moment = (moment - flatten_params(leaves["a"], names)[0].square()).clamp(min=0.0)
    power = state["member_state"].get("beta2_power")
    if power is not None:
        if float(power[0]) == 1.0:
            raise PgkitError("the optimizer has made no step: it has no second moments")
        moment = moment / (1.0 - float(power[0]))
    return moment
