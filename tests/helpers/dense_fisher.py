"""Small policies in float64, and their Fisher matrices written out."""

import torch
from torch import Tensor

from pgkit.nn.distributions import categorical, gaussian
from pgkit.nn.policy import Policy
from pgkit.types import Params

HEADS = {"categorical": categorical(3), "gaussian": gaussian(2)}


def policy_of(head: str) -> Policy:
    """Make a policy of about 30 parameters."""
    return Policy(obs_dim=3, head=HEADS[head], hidden=(4,))


def parameters(policy: Policy, members: int) -> Params:
    """Draw parameters of the actor, float64, away from the initial near-uniform policy."""
    params = policy.init(range(members))
    random = torch.Generator().manual_seed(1)
    return {
        name: leaf.double() + 0.5 * torch.randn(leaf.shape, generator=random, dtype=torch.float64)
        for name, leaf in params.items()
        if name.startswith("actor.")
    }


def numbers_like(params: Params) -> Params:
    random = torch.Generator().manual_seed(4)
    return {name: torch.randn(leaf.shape, generator=random, dtype=leaf.dtype) for name, leaf in params.items()}


def observations(members: int, samples: int = 40) -> Tensor:
    return torch.randn(members, samples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def kl_from(policy: Policy, params: Params, obs: Tensor, other: Params) -> Tensor:
    """Compute the mean over states of KL(params || other), ``(P,)``."""
    return policy.head.kl(policy.outputs(params, obs), policy.outputs(other, obs)).mean(1)


def flat(tree: Params, k: int) -> Tensor:
    return torch.cat([leaf[k].flatten() for leaf in tree.values()])


def dense_fisher(policy: Policy, params: Params, obs: Tensor, k: int) -> Tensor:
    """Compute E[J^T M J] of member k: M is the head's Fisher matrix in its outputs, J the derivative of the outputs."""
    single = {name: leaf[k : k + 1] for name, leaf in params.items()}
    names, sizes = list(single), [leaf.numel() for leaf in single.values()]

    def outputs(vector: Tensor) -> Tensor:
        leaves = zip(names, vector.split(sizes), strict=True)
        return policy.outputs({name: part.view(single[name].shape) for name, part in leaves}, obs[k : k + 1])[0]

    jacobian = torch.autograd.functional.jacobian(outputs, flat(single, 0))  # (B, L, K)
    out = outputs(flat(single, 0))
    if policy.head.name == "categorical":
        p = torch.softmax(out, -1)
        metric = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    else:
        log_std = out.chunk(2, -1)[1]
        metric = torch.diag_embed(torch.cat([(-2 * log_std).exp(), torch.full_like(log_std, 2.0)], -1))
    return torch.einsum("bik,bij,bjl->kl", jacobian, metric, jacobian) / len(out)
