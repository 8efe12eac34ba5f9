"""The training loop: one, for every agent, optimizer and population size."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.optim.base import copy_leaves
from pgkit.optim.update import add_updates, freeze
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training import diagnostics, extra_args, failures
from pgkit.training.captured import CapturedUpdates, UpdateOutput
from pgkit.training.extra_args import Batches
from pgkit.training.monitor import Monitor
from pgkit.training.population import Population, UpdateTrace, take_config
from pgkit.training.result import TrainResult
from pgkit.tree import concat_members, select_members
from pgkit.types import Batch, Params


def run(population: Population, monitor: Monitor, debug_numerics: bool = False) -> TrainResult:
    """Train until every member has left."""
    monitor.begin()
    stretches = CapturedUpdates(compute_update, learn)
    while population.size:
        advance(population, monitor, stretches, debug_numerics)
        population = retire(population, monitor)
        monitor.maybe_checkpoint()
    return monitor.finish()


def advance(population: Population, monitor: Monitor, stretches: CapturedUpdates, debug_numerics: bool = False) -> None:
    """As many updates as nobody needs to look at, where that is possible, or one."""
    diagnose, unseen = monitor.rows_to_log(population), 0 if debug_numerics else monitor.updates_until_event(population)
    if population.rollout_steps is not None:
        unseen = min(unseen, stretches.most)
    marks, until = monitor.next_evaluation(population), monitor.next_event(population)
    gone = stretches.go(population, unseen, marks, until, bool(diagnose))
    if gone is None:
        gone = UpdateOutput(update(population, diagnose, None if debug_numerics else stretches))
    if debug_numerics:
        failures.stop_at_bad_number(population, monitor.configs, gradient)
    monitor.record_update(population, gone.metrics, gone.aside)


def update(
    population: Population, diagnose: Sequence[int] = (), stretches: CapturedUpdates | None = None
) -> dict[str, Tensor]:
    """One rollout and one optimizer step; returns metrics ``(P,)``, many more of them to ``diagnose`` members by row.

    With ``stretches`` there are no others, where learning needs no Python.
    """
    before, obs_stats = population.params, population.collector.obs_stats
    population.evidence = None  # nothing of the last update is held while the next one acts
    env_steps, pieces = population.env_steps, population.collect()
    measured = stretches.learn(population, pieces, env_steps, bool(diagnose)) if stretches else None
    if measured is not None:
        return measured
    made = learn(population, pieces, env_steps, diagnose)
    population.alive = population.collector.sound(population.alive & made.finite)
    population.params = freeze(made.params, before, population.alive)
    # The forward caches are large, and belong to the parameters before the update: the trace does without them.
    pieces = [piece.without_cache() for piece in made.pieces]
    batches = [(rows, batch._replace(cache=None)) for rows, batch in made.batches]
    population.evidence = UpdateTrace(pieces, batches, before, obs_stats, made.largest)
    population.updates += 1
    if "kl" in population.optimizer.requires:
        population.kl = extra_args.kl_of_update(population.policy, made.batches, before, population.params)
    return made.metrics


class UpdateResult(NamedTuple):
    """What an update makes; members where not ``finite`` keep the parameters that they had.

    Attributes:
        pieces: the rollouts.
        batches: what the agent makes of them.
        params: the moved parameters.
        largest: ``(L, P)``, the largest magnitude in each leaf of them.
        finite: bool ``(P,)``, whether loss and parameters are.
        metrics: ``(P,)`` each.
    """

    pieces: list[MemberRollout]
    batches: Batches
    params: Params
    largest: Tensor
    finite: Tensor
    metrics: dict[str, Tensor]


def compute_update(population: Population, diagnose: Sequence[int] = ()) -> UpdateResult:
    """One rollout and one optimizer step; the environments and the optimizer's state are one further then."""
    env_steps = population.env_steps
    return learn(population, population.collect(), env_steps, diagnose)


def learn(
    population: Population, pieces: list[MemberRollout], env_steps: Tensor, diagnose: Sequence[int] = ()
) -> UpdateResult:
    """One optimizer step by these rollouts, before which there were so many steps ``(P,)``.

    The optimizer's state is one further then.
    """
    batches = [(piece.rows, targets(population, piece)) for piece in pieces]
    loss, grads, metrics = gradient(population, batches)
    sent = extra_args.gather(population, env_steps, batches)
    moved, largest, measured = optimize(population, grads, sent, bool(diagnose))
    if diagnose:
        measured |= diagnostics.of_policy(population.policy, batches, population.params, moved, diagnose)
    finite = (loss.abs() < torch.inf) & (largest < torch.inf).all(0)  # fewer operations than isfinite
    return UpdateResult(pieces, batches, moved, largest, finite, metrics | measured)


def optimize(
    population: Population, grads: Params, sent: Mapping[str, Any], diagnose: bool
) -> tuple[Params, Tensor, dict[str, Tensor]]:
    """The moved parameters, the largest magnitude ``(L, P)`` in each leaf of them, and metrics if ``diagnose``.

    The state of the optimizer becomes the next one.
    """
    optimizer, state, before = population.optimizer, population.opt_state, population.params
    if not diagnose:
        moved, largest, population.opt_state = optimizer.apply(grads, state, before, donate=True, **sent)
        return moved, largest, {}
    # Gradients are measured below, so a copy is donated; the state is not looked at again.
    updates, population.opt_state = optimizer.update(copy_leaves(grads), state, before, donate=True, **sent)
    measured = diagnostics.of_optimizer(grads, updates, before, population.opt_state)
    return *add_updates(before, updates, donate=True), measured


@torch.no_grad()
def targets(population: Population, piece: MemberRollout) -> Batch:
    """What the agent makes of a rollout."""
    params, config = select_members(population.params, piece.rows), take_config(population.agent_config, piece.rows)
    return population.agent.targets(population.policy, params, piece.rollout, config)


def gradient(population: Population, batches: Batches) -> tuple[Tensor, Params, dict[str, Tensor]]:
    """Loss ``(P,)``, its gradient and the agent's metrics ``(P,)``, from batches of some members each.

    Members share no number, so the gradient of the sum of their losses is each member's own gradient.
    """
    parts = []
    for rows, batch in batches:
        leaves = {
            name: leaf.detach().requires_grad_() for name, leaf in select_members(population.params, rows).items()
        }
        config = take_config(population.agent_config, rows)
        loss, metrics = population.agent.loss(population.policy, leaves, batch, config)
        of_each = torch.ones_like(loss)
        grads = torch.autograd.grad(loss, list(leaves.values()), of_each, materialize_grads=True)
        detached = {tag: metric.detach() for tag, metric in metrics.items()}
        parts.append((loss.detach(), dict(zip(leaves, grads, strict=True)), detached))
    return concat_members(parts, [rows for rows, _ in batches])


def retire(population: Population, monitor: Monitor) -> Population:
    """The population without the members that have used their budget or have failed; the monitor keeps those."""
    stay = (population.env_steps < population.budget) & population.alive
    if stay.all():
        return population
    reasons = failures.explain(population, (~population.alive).nonzero().squeeze(1).tolist(), gradient)
    leaving, staying = (population.take(rows.nonzero().squeeze(1)) for rows in (~stay, stay))
    monitor.retire(leaving, staying, reasons)
    return staying
