"""Numbers per member about an optimizer's state and steps, without host synchronisation."""

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import State
from pgkit.optim.reductions import inner
from pgkit.types import Params


def diagnostics(state: State) -> dict[str, Tensor]:
    """Collect what an optimizer's state says about each member, ``(P,)`` each; NaN where a member has no such number.

    >>> import torch
    >>> from pgkit.optim import diagnostics, make
    >>> state = make("momentum", lr=[0.5, 0.25]).init({"w": torch.ones(2, 3)})
    >>> list(diagnostics(state))
    ['momentum', 'dampening', 'lr', 'b_norm']

    Names: each hyperparameter at its present value (``lr``), the metrics of transforms (``grad_norm``,
    ``grad_norm_clipped``, ``clip_fraction``) and the Euclidean norms of leaf states (``m_norm``, ``v_norm``,
    ``b_norm``); with several groups of parameters ``critic/lr`` and so on.
    """
    if isinstance(state, list):
        return {key: value for part in state for key, value in diagnostics(part).items()}
    if "inner_states" in state:
        parts = {label: diagnostics(each) for label, each in state["inner_states"].items()}
        if len(parts) == 1:
            return next(iter(parts.values()))
        return {f"{label}/{key}": value for label, part in parts.items() for key, value in part.items()}
    if "group" in state:
        return _join_groups(state["group"], [diagnostics(each) for each in state["states"]])
    norms = {f"{key}_norm": _norm(leaves) for key, leaves in state["leaf_state"].items() if leaves}
    return {**state["hyperparameters"], **state["metrics"], **norms}


def step_errors(state: State) -> dict[int, str]:
    """Say what an optimizer has raised in the steps of single members, by row; most optimizers raise nothing.

    Such a member's update is NaN.
    """
    if isinstance(state, list):
        return {row: error for part in state for row, error in step_errors(part).items()}
    if "inner_states" in state:
        return step_errors(list(state["inner_states"].values()))
    if "group" not in state:
        return {row: error for row, error in enumerate(state.get("errors", ())) if error}
    errors: dict[int, str] = {}
    for index, part in enumerate(state["states"]):
        members = torch.nonzero(state["group"] == index)[:, 0].tolist()
        errors |= {members[row]: error for row, error in step_errors(part).items()}
    return errors


def _norm(leaves: Params) -> Tensor:
    return deterministic_map(torch.sqrt, inner(leaves, leaves)).double()


def _join_groups(group: Tensor, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Spread the numbers of each group's members over all members, NaN elsewhere."""
    joined: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        members = torch.nonzero(group == index)[:, 0]
        for key, value in part.items():
            if key not in joined:
                joined[key] = torch.full((len(group),), torch.nan, dtype=torch.float64, device=value.device)
            joined[key][members.to(value.device)] = value.double()
    return joined


@torch.no_grad()
def measure(grads: Params, updates: Params, params: Params) -> dict[str, Tensor]:
    """Measure norms and angles of an update, ``(P,)`` each.

    >>> import torch
    >>> from pgkit.optim import measure
    >>> ones = {"w": torch.ones(1, 4)}
    >>> measures = measure(ones, {"w": -0.5 * ones["w"]}, ones)
    >>> {name: number.item() for name, number in measures.items()}
    {'grad_norm': 2.0, 'update_norm': 1.0, 'param_norm': 2.0, 'update_ratio': 0.5, 'update_cosine': 1.0}

    Args:
        grads: the gradients that ``update`` took, leaves ``(P, ...)``, or some of them by name.
        updates: the updates that it returned, the same names.
        params: the parameters before the update.

    Returns:
        ``grad_norm``, ``update_norm``, ``param_norm``; ``update_ratio``, the update's norm over that of the parameters;
        ``update_cosine``, the cosine of the angle between the update and ``-grad`` (1 for SGD; 0 where either is 0).
    """
    squares = [
        inner(first, second)
        for first, second in ((grads, grads), (updates, updates), (params, params), (grads, updates))
    ]
    grad_norm, update_norm, param_norm = (deterministic_map(torch.sqrt, square) for square in squares[:3])
    product = grad_norm * update_norm
    cosine = torch.where(product > 0, -squares[3] / product, 0.0)
    ratio = torch.where(param_norm > 0, update_norm / param_norm, 0.0)
    return {
        "grad_norm": grad_norm,
        "update_norm": update_norm,
        "param_norm": param_norm,
        "update_ratio": ratio,
        "update_cosine": cosine,
    }
