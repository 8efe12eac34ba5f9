"""What one update did, measured on its own batch: for log rows, not on the path of every update."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pgkit import optim
from pgkit.losses import explained_variance
from pgkit.policies import Policy
from pgkit.rollout import join_pieces, select
from pgkit.signals import Batches, kl_of_update
from pgkit.types import Params

NETWORKS = ("actor", "critic", "trunk")


@torch.no_grad()
def of_policy(policy: Policy, batches: Batches, before: Params, after: Params) -> dict[str, Tensor]:
    """How far the policy moved on the batch, and how well the critic had predicted its targets; ``(P,)`` each."""
    explained = [
        explained_variance(policy.value(select(before, rows), batch.obs, batch.tapes), batch.target, batch.valid)
        for rows, batch in batches
    ]
    return {
        "policy/approx_kl": kl_of_update(policy, batches, before, after),
        "value/explained_variance": join_pieces(explained, [rows for rows, _ in batches]),
    }


def of_optimizer(grads: Params, updates: Params, params: Params, state: object) -> dict[str, Tensor]:
    """Norms of gradient and update, together and for each network, and what the optimizer knows of itself."""
    measures = {f"optimizer/{name}": number for name, number in optim.measure(grads, updates, params).items()}
    for network in NETWORKS:
        own = [_only(tree, network) for tree in (grads, updates, params)]
        if own[0]:
            measures |= {f"optimizer/{network}/{name}": number for name, number in optim.measure(*own).items()}
    # What was measured stands: an optimizer knows its norms only of the members that it clips.
    return {f"optimizer/{name}": number for name, number in optim.diagnostics(state).items()} | measures


def _only(tree: Mapping[str, Tensor], network: str) -> Params:
    return {name: leaf for name, leaf in tree.items() if name.startswith(f"{network}.")}
