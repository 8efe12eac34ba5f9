"""Members that share an optimizer, and whether it is worth trying to capture their updates."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.optim.base import Optimizer
from pgkit.system.cpu import use_compiled
from pgkit.training.population import Population

MAX_SAMPLES = 2**16
"""Of one member's whole episodes: a captured update has memory for the longest episodes that there can be."""


class OptimizerGroup(NamedTuple):
    """Members that share an optimizer.

    Attributes:
        number: of the optimizer among those of the population.
        optimizer: the optimizer.
        rows: int64 ``(M,)``, places of the members in the population.
        state: the optimizer's state, with rows for these members alone.
    """

    number: int
    optimizer: Optimizer
    rows: Tensor
    state: Any


def group_by_optimizer(population: Population, acts: bool) -> list[OptimizerGroup]:
    """The groups of a population that have members.

    Args:
        population: the members.
        acts: whether rollouts are to be captured, too.

    Returns:
        Nothing if it is clear that no update can be captured.
    """
    optimizer = population.optimizer
    state = population.opt_state
    on_cpu = use_compiled(torch.float32, population.members.device)
    if not on_cpu or "kl" in optimizer.requires or not _has_plain_state(optimizer):
        return []
    if population.rollout_steps is None and not (acts and _episodes_fit(population)):
        return []
    if "group" not in state:
        return [OptimizerGroup(0, optimizer, torch.arange(population.size), state)]
    groups = []
    for index, (part, part_state) in enumerate(zip(optimizer.parts, state["states"], strict=True)):
        rows = (state["group"] == index).nonzero().squeeze(1)
        if len(rows):
            groups.append(OptimizerGroup(index, part, rows, part_state))
    return groups


def _episodes_fit(population: Population) -> bool:
    """Whether all environments wait for a new episode, and the longest one would not take too much memory."""
    collector = population.collector
    horizon = collector.envs.info.max_episode_steps
    fits = horizon is not None and horizon * collector.envs_per_member <= MAX_SAMPLES
    return collector.state.waiting and population.policy.supports_packing and fits


def _has_plain_state(optimizer: Optimizer) -> bool:
    """Whether all that the optimizer remembers is in its state, as tensors."""
    return bool(optimizer.transforms) or (bool(optimizer.parts) and all(map(_has_plain_state, optimizer.parts)))
