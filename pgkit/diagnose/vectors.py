"""Parameters of a policy as flat vectors, and back.

>>> params = {"actor.0.weight": torch.ones(1, 2, 3), "critic.0.weight": torch.zeros(1, 2, 1)}
>>> flatten_params(params, actor_names(params)).shape  # P = 1, D = 6
torch.Size([1, 6])
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pgkit.types import Params


def actor_names(params: Mapping[str, Tensor]) -> tuple[str, ...]:
    """List the leaves that actions depend on: those of the actor, and what it shares with the critic.

    These are ``"actor.*"`` with the Gaussian's ``"actor.log_std"``, ``"trunk.*"``, and networks in front of the layers,
    ``"network.*"`` or ``"actor.network.*"``: all but ``"critic.*"``.

    >>> leaf = torch.zeros(1, 2)
    >>> actor_names({"network.0.weight": leaf, "actor.log_std": leaf, "critic.network.0.weight": leaf})
    ('network.0.weight', 'actor.log_std')
    """
    return tuple(name for name in params if not name.startswith("critic."))


def flatten_params(params: Mapping[str, Tensor], names: Sequence[str] | None = None) -> Tensor:
    """Write the leaves of each member one behind the other, ``(P, D)`` float64.

    Args:
        params: leaves ``(P, ...)``: parameters, gradients or updates.
        names: which leaves, in this order; default: all.

    Raises:
        KeyError: there is no leaf of such a name.
        ValueError: no leaves.
    """
    leaves = [params[name] for name in (params if names is None else names)]
    if not leaves:
        raise ValueError("expected at least one leaf")
    return torch.cat([leaf.detach().double().flatten(1) for leaf in leaves], 1)


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> Params:
    """Turn ``(P, D)`` into leaves ``(P, ...)`` with the names, shapes and dtypes of ``like``.

    >>> like = {"a": torch.zeros(1, 2), "b": torch.zeros(1, 1, 1)}
    >>> unflatten(torch.tensor([[1.0, 2.0, 3.0]]), like)
    {'a': tensor([[1., 2.]]), 'b': tensor([[[3.]]])}

    Args:
        vector: ``(P, D)``, as :func:`flatten_params` returns it.
        like: leaves of any number of members, in the order of the vector.

    Raises:
        ValueError: D is not the number of parameters of one member.
    """
    sizes = [math.prod(leaf.shape[1:]) for leaf in like.values()]
    if vector.dim() != 2 or vector.shape[1] != sum(sizes):
        raise ValueError(f"expected a vector of shape (P, D) with D = {sum(sizes)}, got {tuple(vector.shape)}")
    parts = zip(like.items(), vector.split(sizes, 1), strict=True)
    return {name: part.reshape(-1, *leaf.shape[1:]).to(leaf.dtype) for (name, leaf), part in parts}


def moved(params: Mapping[str, Tensor], changes: Tensor) -> Params:
    """Add changes of the actor to the parameters of one member, leaves ``(K, ...)`` of K policies.

    >>> params = {"actor.0.weight": torch.ones(1, 2), "critic.0.weight": torch.zeros(1, 1)}
    >>> moved(params, torch.tensor([[0.0, 0.0], [0.5, 1.0]]))["actor.0.weight"]
    tensor([[1.0000, 1.0000],
            [1.5000, 2.0000]])

    Args:
        params: leaves ``(1, ...)``.
        changes: ``(K, D)`` in the order of :func:`actor_names`.
    """
    parts = unflatten(changes, {name: params[name] for name in actor_names(params)})
    return {
        name: leaf + parts[name] if name in parts else leaf.expand(len(changes), *leaf.shape[1:]).contiguous()
        for name, leaf in params.items()
    }


def networks_in(params: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """List the leaves of each network, which stands before the first dot of their names.

    >>> networks_in({"actor.0.weight": torch.zeros(1), "actor.0.bias": torch.zeros(1), "critic.0.bias": torch.zeros(1)})
    {'actor': ['actor.0.weight', 'actor.0.bias'], 'critic': ['critic.0.bias']}
    """
    networks: dict[str, list[str]] = {}
    for name in params:
        networks.setdefault(name.split(".")[0], []).append(name)
    return networks
