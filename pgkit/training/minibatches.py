"""Several optimizer steps from one rollout: epochs, minibatches, and the early stop by ``target_kl``.

In each epoch each sample of a member is in exactly one minibatch. Their order comes from the member's own stream, at
the position that the number of the epoch says, counted over the whole run, which follows from how many rollouts the
member has made. So it is the same alone, among others, and after a resume.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pgkit.compiler.control_flow import capturing, repeat
from pgkit.errors import PgkitError
from pgkit.kernels.shuffle import shuffled_order, take_rows
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training.extra_args import Batches
from pgkit.training.population import Population, UpdateResult
from pgkit.tree import where_tree
from pgkit.types import Batch, Params

KL = "update/approx_kl"
"""The metric of the agent that ``target_kl`` limits, see :meth:`pgkit.nn.policy.Policy.losses`."""

STEPS = "update/optimizer_steps"
"""The metric of how many steps were made."""

KL_TOLERANCE = 1.5
"""Steps end beyond this many times ``target_kl``, as in OpenAI's Spinning Up and in Stable-Baselines3."""

OptimizerStep = Callable[[Population, Sequence[MemberRollout], Batches, Sequence[int], Tensor], UpdateResult]
"""See :func:`pgkit.training.loop.optimizer_step`."""


def for_each_minibatch(
    population: Population,
    rollouts: Sequence[MemberRollout],
    batches: Batches,
    optimizer_step: OptimizerStep,
    diagnose: Sequence[int],
) -> UpdateResult:
    """Make an optimizer step for each minibatch of each epoch.

    Args:
        population: before the update; it stays as it is, but for the optimizer's state.
        rollouts: of all members.
        batches: what the agent has computed from them.
        optimizer_step: makes one step of a population from such batches.
        diagnose: rows of the members of whom more is measured.

    Returns:
        As one step; metrics are means over the steps that a member has made.

    Raises:
        PgkitError: there is a ``target_kl``, and the agent does not measure the divergence.
    """
    ((_, batch),) = batches  # of fixed length: all members have one
    minibatches = Minibatches.of(population, batch)
    failure = _FirstFailure()

    def step(carried: Any) -> tuple[Any, dict[str, Tensor]]:
        at = replace(population, **{name: carried[name] for name in ("params", "opt_state", "kl")})
        kept_state = None if at.passes.target_kl is None else at.optimizer.copy(at.opt_state)
        minibatch = minibatches.take(carried["number"])
        is_first = (carried["number"] == 0).expand(at.size)
        result = optimizer_step(at, rollouts, [(None, minibatch)], diagnose, is_first)
        failure.note(carried["finite"], minibatch, at.params, result.largest)
        result, stopped = _without_stopped(at, result, carried["stopped"], kept_state)
        metrics = {**result.metrics, STEPS: torch.ones_like(at.kl)} if diagnose else {}
        terms = {tag: torch.where(stopped, 0.0, metric) for tag, metric in metrics.items()}
        finite = carried["finite"] & result.finite
        return _carried(result, carried["number"] + 1, finite, stopped), terms

    alive = torch.ones_like(population.alive)
    start = _carried(population, torch.zeros(1, dtype=torch.int64, device=alive.device), alive, ~alive)
    until = None if population.passes.target_kl is None else "stopped"
    end, totals = repeat(population.passes.steps, step, start, until)
    return UpdateResult(
        batches=[(None, failure.minibatch or batch)],
        before=failure.before or population.params,
        params=end["params"],
        opt_state=end["opt_state"],
        largest=failure.largest,
        finite=end["finite"],
        kl=end["kl"],
        metrics=_means(totals, end["stopped"]),
    )


def _carried(at: Population | UpdateResult, number: Tensor, finite: Tensor, stopped: Tensor) -> dict[str, Any]:
    """What a step hands to the next one.

    Args:
        at: parameters, optimizer state and divergence.
        number: int64 ``(1,)``, of the next minibatch.
        finite: bool ``(P,)``, members whose numbers have all been finite.
        stopped: bool ``(P,)``, members that make no more steps.
    """
    state = {"params": at.params, "opt_state": at.opt_state, "kl": at.kl}
    return {**state, "number": number, "finite": finite, "stopped": stopped}


def _without_stopped(
    population: Population, result: UpdateResult, stopped: Tensor, kept_state: Any
) -> tuple[UpdateResult, Tensor]:
    """Undo the step of members whose policy has gone too far by then; returns who has stopped, too."""
    limit = population.passes.target_kl
    if limit is None:
        return result, stopped
    if KL not in result.metrics:
        name = getattr(population.agent, "__name__", "this agent")
        raise PgkitError(f"target_kl = {limit} needs the metric {KL!r}, which {name} does not give")
    stopped = stopped | (result.metrics[KL] > KL_TOLERANCE * limit)
    undone = result._replace(
        params=where_tree(stopped, population.params, result.params),
        opt_state=population.optimizer.where(stopped, kept_state, result.opt_state),
        kl=torch.where(stopped, population.kl, result.kl),
        finite=result.finite | stopped,
    )
    return undone, stopped


def _means(totals: dict[str, Tensor], stopped: Tensor) -> dict[str, Tensor]:
    """Metrics from their sums over the steps that were made."""
    if not totals:
        return {}
    steps = totals.pop(STEPS)
    means = {tag: total / steps.to(total.dtype).clamp(min=1.0) for tag, total in totals.items()}
    return {**means, STEPS: steps, "update/stopped": stopped.to(steps.dtype)}


@dataclass(frozen=True)
class Minibatches:
    """The samples of an update, and in which order they come.

    Attributes:
        batch: all B samples of each member, contiguous.
        order: int64 ``(P, E B)``, indices of samples; None if a minibatch is the whole batch.
        rows: samples of a minibatch.
    """

    batch: Batch
    order: Tensor | None
    rows: int

    @classmethod
    def of(cls, population: Population, batch: Batch) -> "Minibatches":
        """The minibatches that a population makes of a batch, with log-probabilities of the policy that acted."""
        if batch.log_prob is None:
            batch = batch._replace(log_prob=population.policy.log_prob(population.params, batch))
        epochs, count, _ = population.passes
        samples = batch.valid.shape[1]
        batch = batch._replace(cache=None)  # which is of the first step's parameters
        if count == 1:
            return cls(batch, None, samples)
        order = _shuffled(population, epochs, samples)
        columns = {name: column.contiguous() for name, column in batch.columns.items()}
        return cls(Batch.of_columns(columns), order, samples // count)

    def take(self, number: Tensor) -> Batch:
        """Minibatch ``number``, int64 ``(1,)``, counted over all epochs."""
        if self.order is None:
            return self.batch
        columns = self.batch.columns
        taken = take_rows(list(columns.values()), self.order, number, self.rows)
        return Batch.of_columns(dict(zip(columns, taken, strict=True)))


def _shuffled(population: Population, epochs: int, samples: int) -> Tensor:
    """The order of the samples, int64 ``(P, epochs * samples)``, in which minibatches take them.

    The samples of a recurrent policy are sequences, one for each environment, which stay whole: environments are
    shuffled, and a minibatch has all steps of some of them, in the order of the steps.
    """
    counters = population.collector.state.counters
    if not population.policy.memory:
        return shuffled_order(population.shuffle_keys, counters, epochs, samples)
    count = population.collector.envs_per_member
    steps = samples // count
    parts = epochs * population.passes.minibatches
    envs = shuffled_order(population.shuffle_keys, counters, epochs, count).view(population.size, parts, 1, -1)
    first = torch.arange(steps, device=envs.device).view(1, 1, -1, 1) * count
    return (envs + first).flatten(1).contiguous()


class _FirstFailure:
    """The step in which a member's numbers were first not finite, from which its failure can be explained.

    Attributes:
        minibatch: of that step; of the last one where all is finite.
        before: the parameters before it.
        largest: ``(L, P)``, the largest magnitudes of the parameters after it.
    """

    def __init__(self) -> None:
        self.minibatch: Batch | None = None
        self.before: Params | None = None
        self.largest = torch.empty(0)

    def note(self, finite: Tensor, minibatch: Batch, before: Params, largest: Tensor) -> None:
        """Take in a step of members that were ``finite`` before it; a graph fails without an explanation."""
        if self.minibatch is None or capturing() or (finite.is_cpu and finite.all()):
            self.minibatch, self.before, self.largest = minibatch, before, largest
            return
        assert self.before is not None
        self.minibatch = Batch.of_columns(where_tree(finite, minibatch.columns, self.minibatch.columns))
        self.before = where_tree(finite, before, self.before)
        self.largest = torch.where(finite, largest, self.largest)
