"""Members that share an optimizer, and whether it is worth trying to capture their updates."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.nn.policy import Policy
from pgkit.optim.base import Optimizer
from pgkit.rollouts.collector import Collector
from pgkit.system.cpu import use_compiled
from pgkit.training.population import Population

MOST_SAMPLES = 2**16
"""Of whole episodes, of one member: a program has room for the longest that there may be."""


class OptimizerGroup(NamedTuple):
    """Members that share an optimizer.

    Attributes:
        number: of the optimizer.
        optimizer: theirs.
        rows: int64 ``(M,)``, theirs in the population.
        state: of the optimizer, with rows for them alone.
    """

    number: int
    optimizer: Optimizer
    rows: Tensor
    state: Any


def group_by_optimizer(population: Population, acts: bool) -> list[OptimizerGroup]:
    """The kinds that have members; none if it is clear that nothing can be captured."""
    optimizer, state, collector = population.optimizer, population.opt_state, population.collector
    on_cpu = use_compiled(torch.float32, population.members.device)
    if not on_cpu or "kl" in optimizer.requires or not _is_pure(optimizer):
        return []
    if population.rollout_steps is None and not (acts and _are_episodes_captured(collector, population.policy)):
        return []
    if "group" not in state:
        return [OptimizerGroup(0, optimizer, torch.arange(population.size), state)]
    rows = [(state["group"] == index).nonzero().squeeze(1) for index in range(len(optimizer.parts))]
    kinds = zip(range(len(rows)), optimizer.parts, rows, state["states"], strict=True)
    return [OptimizerGroup(*kind) for kind in kinds if len(kind[2])]


def _are_episodes_captured(collector: Collector, policy: Policy) -> bool:
    """Whether environments wait for a new episode, and a program of whole ones would not be too large."""
    longest = collector.envs.info.max_episode_steps
    fits = longest is not None and longest * collector.count <= MOST_SAMPLES
    return collector.waiting and policy.supports_packing and fits


def _is_pure(optimizer: Optimizer) -> bool:
    """Whether all that it knows is in its state, as tensors."""
    return bool(optimizer.transforms) or (bool(optimizer.parts) and all(map(_is_pure, optimizer.parts)))
