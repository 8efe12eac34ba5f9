"""Populations whose updates are captured, against the same updates by Python."""

import torch
from torch import Tensor

from pgkit.training.population import Population
from pgkit.tree import map_tree


def tensors(population: Population) -> list[Tensor]:
    """Everything that an update may change."""
    leaves: list[Tensor] = []
    map_tree(leaves.append, population.state())
    return leaves


def assert_same(one: Population, other: Population) -> None:
    assert one.updates == other.updates
    assert_equal(tensors(one), tensors(other))


def assert_equal(some: list[Tensor], others: list[Tensor]) -> None:
    assert len(some) > 20
    for tensor, other in zip(some, others, strict=True):
        assert torch.equal(tensor.nan_to_num(7.0), other.nan_to_num(7.0))


def no_snapshots(population: Population) -> Tensor:
    """Environment steps that no member ever reaches."""
    return torch.full((population.size,), torch.inf, dtype=torch.float64)
