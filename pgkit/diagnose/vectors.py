"""Parameters as vectors, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pgkit.types import Params


def flatten_params(params: Params, names: Sequence[str]) -> Tensor:
    """The leaves ``(P, ...)`` of these names, one behind the other, ``(P, D)``."""
    return torch.cat([params[name].flatten(1) for name in names], 1)


def networks_in(params: Params) -> dict[str, list[str]]:
    """The names of the leaves by network: what stands before the first dot."""
    networks: dict[str, list[str]] = {}
    for name in params:
        networks.setdefault(name.split(".")[0], []).append(name)
    return networks
