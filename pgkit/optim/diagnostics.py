"""What an optimizer does, in numbers per member, without host synchronisation."""

import torch
from torch import Tensor

from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim.base import State
from pgkit.optim.reductions import inner
from pgkit.types import Params


def diagnostics(state: State) -> dict[str, Tensor]:
    """What an optimizer's state tells, each ``(P,)``; members that have no such number hold NaN.

    Names: each hyperparameter at its present value (``lr``), what transforms report (``grad_norm``,
    ``grad_norm_clipped``, ``clip_fraction``) and the norms of the moments (``m_norm``, ``v_norm``, ``b_norm``);
    with several groups of parameters ``critic/lr`` and so on.
    """
    if isinstance(state, list):
        return {key: value for part in state for key, value in diagnostics(part).items()}
    if "groups" in state:
        parts = {label: diagnostics(own) for label, own in state["groups"].items()}
        if len(parts) == 1:
            return next(iter(parts.values()))
        return {f"{label}/{key}": value for label, part in parts.items() for key, value in part.items()}
    if "kind" in state:
        return _of_kinds(state["kind"], [diagnostics(own) for own in state["states"]])
    vectors = state["vectors"]
    norms = {f"{slot}_norm": _norm(leaves) for slot, leaves in state["slots"].items()}
    return {**state["hyper"], **{name: value for name, value in vectors.items() if name[0] != "_"}, **norms}


def _norm(leaves: Params) -> Tensor:
    return deterministic_map(torch.sqrt, inner(leaves, leaves)).double()


def _of_kinds(kind: Tensor, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        members = torch.nonzero(kind == index)[:, 0]
        for key, value in part.items():
            whole = merged.setdefault(
                key, torch.full((len(kind),), torch.nan, dtype=torch.float64, device=value.device)
            )
            whole[members.to(value.device)] = value.double()
    return merged


def snapshot(grads: Params) -> Params:
    """A copy of gradients, for :func:`measure`: an update may write into the ones that it is given."""
    return {name: grad.clone() for name, grad in grads.items()}


@torch.no_grad()
def measure(grads: Params, updates: Params, params: Params) -> dict[str, Tensor]:
    """Norms and angles, each ``(P,)``.

    Args:
        grads: what was given to ``update`` (a :func:`snapshot`), or a part of it by name.
        updates: what came back, the same names, before :func:`~pgkit.optim.update.apply_updates` takes their buffers.
        params: what they are added to.

    Returns:
        ``grad_norm``, ``update_norm``, ``param_norm``; ``update_ratio``, the update's norm over the parameters';
        ``update_cosine``, the cosine between the update and the downhill direction ``-grad`` (1 for SGD; 0 where one
        of them vanishes).
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
