"""What one update did, measured on its own batch: for log rows, not on the path of every update."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pgkit import optim
from pgkit.losses import explained_variance, masked_mean
from pgkit.policies import Policy
from pgkit.rollout import Rows, join, select
from pgkit.types import Batch, Params

NETWORKS = ("actor", "critic")


@torch.no_grad()
def of_policy(
    policy: Policy, batches: Sequence[tuple[Rows, Batch]], before: Params, after: Params
) -> dict[str, Tensor]:
    """How far the policy moved on the batch, and how well the critic had predicted its targets; ``(P,)`` each."""
    parts = []
    for rows, batch in batches:
        old, new = select(before, rows), select(after, rows)
        kl = policy.head.kl(policy.outputs(old, batch.obs), policy.outputs(new, batch.obs))
        value = policy.value(old, batch.obs)
        parts.append(
            {
                "policy/approx_kl": masked_mean(kl, batch.valid),
                "value/explained_variance": explained_variance(value, batch.target, batch.valid),
            }
        )
    return parts[0] if batches[0][0] is None else join(parts, [rows for rows, _ in batches if rows is not None])


def of_optimizer(grads: Params, updates: Params, params: Params, state: object) -> dict[str, Tensor]:
    """Norms of gradient and update, together and for each network, and what the optimizer knows of itself."""
    measures = {f"optimizer/{name}": number for name, number in optim.measure(grads, updates, params).items()}
    for network in NETWORKS:
        own = [_only(tree, network) for tree in (grads, updates, params)]
        if own[0]:
            measures |= {f"optimizer/{network}/{name}": number for name, number in optim.measure(*own).items()}
    return measures | {f"optimizer/{name}": number for name, number in optim.diagnostics(state).items()}


def _only(tree: Mapping[str, Tensor], network: str) -> Params:
    return {name: leaf for name, leaf in tree.items() if name.startswith(f"{network}.")}
