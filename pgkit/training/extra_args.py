"""What the training loop tells an optimizer beside the gradients: the signals that it needs, and no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pgkit import optim
from pgkit.losses import masked_mean
from pgkit.nn.policy import Policy
from pgkit.optim.natural_gradient import FisherVectorProduct
from pgkit.training.population import Population
from pgkit.tree import MemberRows, concat_members, select_members, take_tree
from pgkit.types import Batch, Params

Batches = Sequence[tuple[MemberRows, Batch]]
"""The batches of an update, those of some members each: every member is in exactly one."""


def gather(population: Population, env_steps: Tensor, batches: Batches) -> dict[str, Any]:
    """The signals of an update, by name; ``env_steps`` ``(P,)`` are those before its rollout.

    ``progress`` is the share of the budget that was used by then; ``kl`` the divergence of the policy over
    the last update, NaN before the first; ``rollout_start`` whether the update is the first of its rollout, as all are
    that take a rollout in one batch; ``fisher_vector_product`` a :class:`Fisher`.
    """
    signals: dict[str, Callable[[], Any]] = {
        "progress": lambda: (env_steps / population.budget).clamp(max=1.0),
        "kl": lambda: population.kl,
        "rollout_start": lambda: torch.ones_like(population.alive),
        "fisher_vector_product": lambda: Fisher(population.policy, population.params, batches),
    }
    return {name: signals[name]() for name in signals if name in population.optimizer.requires}


def take_batches(batches: Batches, members: Tensor) -> Batches:
    """Those of some members (int64 ``(M,)``), who are counted in that order then."""
    if batches[0][0] is None:
        return [(None, batches[0][1].take(members))]
    found = [torch.where(rows[:, None] == members) for rows, _ in batches if rows is not None]
    pairs = zip(found, batches, strict=True)
    return [(place, batch.take(here)) for (here, place), (_, batch) in pairs if len(here)]


@torch.no_grad()
def kl_of_update(policy: Policy, batches: Batches, before: Params, after: Params) -> Tensor:
    """Mean KL(old || new) of the policy over the samples of an update, ``(P,)``."""
    parts = []
    for rows, batch in batches:
        old, new = select_members(before, rows), select_members(after, rows)
        batch = batch.without_padding()
        kl = policy.head.kl(policy.outputs(old, batch.obs, batch.cache), policy.outputs(new, batch.obs))
        parts.append(masked_mean(kl, batch.valid))
    return concat_members(parts, [rows for rows, _ in batches])


@dataclass(frozen=True)
class Fisher:
    """``v -> F v``, F the Fisher matrix of each member's policy over the samples of its batch.

    The parameters of the policy are those of the actor and of a shared trunk; ``v`` holds some of them by name.

    Attributes:
        policy: what the parameters mean.
        params: leaves ``(P, ...)``.
        batches: the samples.
    """

    policy: Policy
    params: Params
    batches: Batches

    def __call__(self, vector: Params) -> Params:
        """F v, leaves ``(P, ...)`` as those of ``vector``."""
        rows = [rows for rows, _ in self.batches]
        parts = [product(select_members(vector, own)) for own, product in zip(rows, self._products, strict=True)]
        return concat_members(parts, rows)

    def take(self, members: Tensor) -> "Fisher":
        """That of some members (int64 ``(M,)``), in that order."""
        members = members.to(next(iter(self.params.values())).device)
        return Fisher(self.policy, take_tree(self.params, members), take_batches(self.batches, members))

    @cached_property
    def _products(self) -> list[FisherVectorProduct]:
        """One for each batch; made when first asked for, after all taking."""
        return [self._product(select_members(self.params, rows), batch) for rows, batch in self.batches]

    def _product(self, params: Params, batch: Batch) -> FisherVectorProduct:
        of_policy = {name: leaf for name, leaf in params.items() if not name.startswith("critic.")}
        with torch.no_grad():
            old = self.policy.outputs(of_policy, batch.obs)

        def kl(moved: Params) -> Tensor:
            return masked_mean(self.policy.head.kl(old, self.policy.outputs(moved, batch.obs)), batch.valid)

        return optim.fisher_vector_product(kl, of_policy)
