"""What one update did, measured on its batch, for log rows only."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pgkit import optim
from pgkit.losses import explained_variance
from pgkit.nn.policy import Policy
from pgkit.training.extra_args import Batches, kl_of_update, take_batches
from pgkit.tree import concat_members, select_members, take_tree
from pgkit.types import Params

NETWORKS = ("actor", "critic", "trunk")


@torch.no_grad()
def of_policy(
    policy: Policy, batches: Batches, before: Params, after: Params, members: Sequence[int]
) -> dict[str, Tensor]:
    """How far the policy moved on the batch, and how well the critic predicted the targets before.

    Args:
        policy: what the parameters mean.
        batches: the samples of all members.
        before: parameters ``(P, ...)``.
        after: parameters after the update.
        members: places of the members to measure.

    Returns:
        ``(P,)`` by tag, NaN for the other members.
    """
    size = len(next(iter(before.values())))
    batches = [(rows, batch.without_padding()) for rows, batch in batches]
    if len(members) == size:
        return _of_all(policy, batches, before, after)
    rows = torch.tensor(members, device=batches[0][1].obs.device)
    measured = _of_all(policy, take_batches(batches, rows), take_tree(before, rows), take_tree(after, rows))
    return {tag: number.new_full((size,), torch.nan).index_copy(0, rows, number) for tag, number in measured.items()}


def _of_all(policy: Policy, batches: Batches, before: Params, after: Params) -> dict[str, Tensor]:
    explained = [
        explained_variance(
            policy.value(select_members(before, rows), batch.obs, batch.cache), batch.target, batch.valid
        )
        for rows, batch in batches
    ]
    return {
        "policy/approx_kl": kl_of_update(policy, batches, before, after),
        "value/explained_variance": concat_members(explained, [rows for rows, _ in batches]),
    }


def of_optimizer(grads: Params, updates: Params, params: Params, state: object) -> dict[str, Tensor]:
    """Norms of gradient and update, over all parameters and for each network, and the optimizer's diagnostics.

    Args:
        grads: as they were given to the optimizer.
        updates: what it returned.
        params: before the update.
        state: the optimizer's state after it.
    """
    measures = {f"optimizer/{name}": number for name, number in optim.measure(grads, updates, params).items()}
    for network in NETWORKS:
        trees = [_only(tree, network) for tree in (grads, updates, params)]
        if trees[0]:
            measures |= {f"optimizer/{network}/{name}": number for name, number in optim.measure(*trees).items()}
    # Measured norms come last and win: an optimizer knows norms only of the members that it clips.
    return {f"optimizer/{name}": number for name, number in optim.diagnostics(state).items()} | measures


def _only(tree: Mapping[str, Tensor], network: str) -> Params:
    """The leaves of one network."""
    return {name: leaf for name, leaf in tree.items() if name.startswith(f"{network}.")}
