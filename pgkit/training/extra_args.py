"""Extra arguments of an optimizer's update, beside gradients, state and parameters: those that it requires."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pgkit import optim
from pgkit.losses import masked_mean, surrogate_gain
from pgkit.nn.policy import Policy
from pgkit.optim.natural_gradient import FisherVectorProduct
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training.population import Population
from pgkit.tree import MemberRows, concat_members, select_members, take_tree
from pgkit.types import Batch, Params

Batches = Sequence[tuple[MemberRows, Batch]]
"""The batches of an update, each of some members: every member is in exactly one. Rows are None for all."""


def gather(
    population: Population, rollouts: Sequence[MemberRollout], batches: Batches, is_first: Tensor | None
) -> dict[str, Any]:
    """The extra arguments that the population's optimizer requires, by name.

    ``progress`` is the share of the budget that was used before the rollouts, ``(P,)``; ``kl`` the divergence of each
    policy over its last optimizer step, ``(P,)``, NaN before the first; ``rollout_start`` whether this step is the
    first from its rollout, bool ``(P,)``; ``fisher_vector_product`` a :class:`Fisher`; ``trial`` a :class:`Trial`.

    Args:
        population: before the step.
        rollouts: what it did.
        batches: the samples of the step.
        is_first: bool ``(P,)``, whether the step is the first from its rollout; None where each rollout is one batch.
    """

    def progress() -> Tensor:
        steps: Tensor = concat_members([rollout.steps_before for rollout in rollouts], [rows for rows, _ in batches])
        return (steps / population.budget).clamp(max=1.0)

    extra_args: dict[str, Callable[[], Any]] = {
        "progress": progress,
        "kl": lambda: population.kl,
        "rollout_start": lambda: torch.ones_like(population.alive) if is_first is None else is_first,
        "fisher_vector_product": lambda: Fisher(population.policy, population.params, batches),
        "trial": lambda: Trial(population.policy, population.params, batches),
    }
    return {name: extra_args[name]() for name in extra_args if name in population.optimizer.requires}


def take_batches(batches: Batches, members: Tensor) -> Batches:
    """The batches of some members, int64 ``(M,)``; their rows become places in ``members``."""
    if batches[0][0] is None:
        return [(None, batches[0][1].take(members))]
    taken = []
    for rows, batch in batches:
        assert rows is not None  # or there would be one batch
        places_in_batch, places_in_members = torch.where(rows[:, None] == members)
        if len(places_in_batch):
            taken.append((places_in_members, batch.take(places_in_batch)))
    return taken


@torch.no_grad()
def kl_of_update(policy: Policy, batches: Batches, before: Params, after: Params) -> Tensor:
    """Mean KL(old || new) of the policy over the samples of an update, ``(P,)``."""
    parts = []
    for rows, batch in batches:
        old = select_members(before, rows)
        new = select_members(after, rows)
        batch = batch.without_padding()
        kl = policy.head.kl(policy.outputs(old, batch.obs, batch.cache), policy.outputs(new, batch.obs))
        parts.append(masked_mean(kl, batch.valid))
    return concat_members(parts, [rows for rows, _ in batches])


@dataclass(frozen=True)
class Fisher:
    """The product ``v -> F v`` with the Fisher matrix F of each member's policy, over the samples of its batch.

    The policy's parameters are those of the actor and of a shared trunk; ``v`` holds some of them by name.

    Attributes:
        policy: what the parameters mean.
        params: leaves ``(P, ...)``.
        batches: the samples.
    """

    policy: Policy
    params: Params
    batches: Batches

    def __call__(self, vector: Params) -> Params:
        """F v, by the same names and in the same shapes as ``vector``, leaves ``(P, ...)``."""
        rows_of_batches = [rows for rows, _ in self.batches]
        pairs = zip(rows_of_batches, self._products, strict=True)
        return concat_members([product(select_members(vector, rows)) for rows, product in pairs], rows_of_batches)

    def take(self, members: Tensor) -> "Fisher":
        """The product for some members, int64 ``(M,)``, in that order."""
        members = members.to(next(iter(self.params.values())).device)
        return Fisher(self.policy, take_tree(self.params, members), take_batches(self.batches, members))

    @cached_property
    def _products(self) -> list[FisherVectorProduct]:
        """One for each batch; computed at the first call, when members have been taken."""
        return [self._product(select_members(self.params, rows), batch) for rows, batch in self.batches]

    def _product(self, params: Params, batch: Batch) -> FisherVectorProduct:
        policy_params = {name: leaf for name, leaf in params.items() if not name.startswith("critic.")}
        with torch.no_grad():
            old = self.policy.outputs(policy_params, batch.obs)

        def kl(moved: Params) -> Tensor:
            return masked_mean(self.policy.head.kl(old, self.policy.outputs(moved, batch.obs)), batch.valid)

        return optim.fisher_vector_product(kl, policy_params)


@dataclass(frozen=True)
class Trial:
    """Where a step would end, for line searches: see :mod:`pgkit.optim.trust_region`.

    Attributes:
        policy: what the parameters mean.
        params: before the step, leaves ``(P, ...)``.
        batches: the samples.
    """

    policy: Policy
    params: Params
    batches: Batches

    @torch.no_grad()
    def __call__(self, moved: Params) -> tuple[Tensor, Tensor]:
        """The rise of the surrogate, and mean KL(old || new), ``(P,)`` each, with these parameters in place of some."""
        parts = []
        for (rows, _), (batch, old, old_log_prob) in zip(self.batches, self._before, strict=True):
            outputs = self.policy.outputs(select_members({**self.params, **moved}, rows), batch.obs)
            log_prob = self.policy.head.log_prob(outputs, batch.action)
            gain = surrogate_gain(log_prob, old_log_prob, batch.advantage, batch.valid)
            parts.append((gain, masked_mean(self.policy.head.kl(old, outputs), batch.valid)))
        return concat_members(parts, [rows for rows, _ in self.batches])

    def take(self, members: Tensor) -> "Trial":
        """The trial for some members, int64 ``(M,)``, in that order."""
        members = members.to(next(iter(self.params.values())).device)
        return Trial(self.policy, take_tree(self.params, members), take_batches(self.batches, members))

    @cached_property
    def _before(self) -> list[tuple[Batch, Tensor, Tensor]]:
        """Of each batch the samples without padding, the policy's outputs, and log-probabilities of the actions."""
        before = []
        for rows, padded in self.batches:
            batch = padded.without_padding()
            outputs = self.policy.outputs(select_members(self.params, rows), batch.obs, batch.cache)
            before.append((batch, outputs, self.policy.head.log_prob(outputs, batch.action)))
        return before
