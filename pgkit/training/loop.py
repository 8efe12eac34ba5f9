"""The training loop: one, for every agent, optimizer and population size.

An update collects rollouts, and computes from them targets, the gradient and new parameters (:func:`update`). On CPU,
:func:`compute_update` is also traced and then repeated without Python, see :mod:`pgkit.training.captured`: there is no
second definition of an update.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pgkit.optim.base import copy_leaves
from pgkit.optim.update import add_updates, freeze
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.training import diagnostics, extra_args, failures
from pgkit.training.captured import CapturedUpdates, UpdateOutput
from pgkit.training.extra_args import Batches
from pgkit.training.messages import StateSaved
from pgkit.training.minibatches import for_each_minibatch
from pgkit.training.monitor import Monitor
from pgkit.training.population import Population, UpdateResult, UpdateTrace, take_config
from pgkit.training.result import TrainResult
from pgkit.tree import concat_members, select_members
from pgkit.types import Batch, Params


def run(population: Population, monitor: Monitor, debug_numerics: bool = False) -> TrainResult:
    """Train until every member has used its budget or has failed."""
    captured = CapturedUpdates(compute_update)
    monitor.begin()
    population = retire(population, monitor)  # a callback may stop it before the first update
    while population.size:
        advance(population, monitor, captured, debug_numerics)
        population = retire(population, monitor)
        monitor.maybe_checkpoint()
    return monitor.finish()


def run_until(population: Population, monitor: Monitor, env_steps: float) -> StateSaved:
    """Train until every member has used so many environment steps, or has left; returns from where they train on.

    Members stop between two updates, so some have trained a little longer.
    """
    captured = CapturedUpdates(compute_update)
    monitor.begin()
    population = retire(population, monitor)
    while population.size and population.env_steps.min() < env_steps:
        advance(population, monitor, captured)
        population = retire(population, monitor)
    return monitor.pause()


def advance(population: Population, monitor: Monitor, captured: CapturedUpdates, debug_numerics: bool = False) -> None:
    """Make as many updates without Python as the monitor need not see, or else one with it; then log."""
    diagnose = monitor.rows_to_measure(population)
    max_updates = 0 if debug_numerics else monitor.updates_until_event(population)
    if population.rollout_steps is not None:  # for whole episodes the monitor counts steps: log rows keep their order
        max_updates = min(max_updates, captured.max_updates)
    snapshot_at = monitor.next_evaluation(population)
    output = captured.run(population, max_updates, snapshot_at, monitor.next_event(population), bool(diagnose))
    if output is None:
        output = UpdateOutput(
            update(population, diagnose, None if debug_numerics else captured, monitor.record_rollouts)
        )
    if debug_numerics:
        failures.stop_at_bad_number(population, monitor.configs, gradient)
    monitor.record_update(population, output.metrics, output.snapshots)


def update(
    population: Population,
    diagnose: Sequence[int] = (),
    captured: CapturedUpdates | None = None,
    on_rollouts: Callable[[Population, Sequence[MemberRollout]], None] | None = None,
) -> dict[str, Tensor]:
    """Collect one rollout of every member, and learn from it.

    Args:
        population: is changed.
        diagnose: rows of the members of whom more is measured.
        captured: does the part after the rollouts without Python, where that is possible.
        on_rollouts: called before the members learn.

    Returns:
        Metrics ``(P,)`` by tag. Without Python there are none unless a member is to be diagnosed.
    """
    params, obs_stats = population.params, population.collector.state.obs_stats
    population.trace = None  # frees what the last update computed from, before members act
    rollouts = population.collect()
    if on_rollouts is not None:
        on_rollouts(population, rollouts)
    metrics = captured.update_from_rollouts(population, rollouts, bool(diagnose)) if captured else None
    if metrics is not None:
        return metrics
    result = compute_update(population, rollouts, diagnose)
    population.alive = population.collector.finite(population.alive & result.finite)
    population.params = freeze(result.params, params, population.alive)
    population.opt_state = result.opt_state
    population.kl = result.kl
    # Forward caches are large, and belong to the parameters before the update: the trace does without them.
    kept_rollouts = [rollout.without_cache() for rollout in rollouts]
    kept_batches = [(rows, batch._replace(cache=None)) for rows, batch in result.batches]
    population.trace = UpdateTrace(kept_rollouts, kept_batches, result.before, obs_stats, result.largest)
    population.updates += 1
    return result.metrics


def compute_update(
    population: Population, rollouts: Sequence[MemberRollout], diagnose: Sequence[int] = ()
) -> UpdateResult:
    """Compute new parameters from rollouts: targets, then an optimizer step for each minibatch of each epoch.

    This is the function that is captured. It leaves the population as it is, but for the optimizer's state, whose
    buffers the new state may reuse.
    """
    batches = [(rollout.rows, targets(population, rollout)) for rollout in rollouts]
    if population.passes.steps == 1:
        result = optimizer_step(population, rollouts, batches, diagnose)
    else:
        result = for_each_minibatch(population, rollouts, batches, optimizer_step, diagnose)
    if diagnose:
        moved = diagnostics.of_policy(population.policy, batches, population.params, result.params, diagnose)
        result = result._replace(metrics=result.metrics | moved)
    return result


def optimizer_step(
    population: Population,
    rollouts: Sequence[MemberRollout],
    batches: Batches,
    diagnose: Sequence[int] = (),
    is_first: Tensor | None = None,
) -> UpdateResult:
    """Compute the loss of batches, its gradient, and new parameters; the arguments are those of ``for_each_minibatch``
    and :func:`pgkit.training.extra_args.gather`."""
    params = population.params
    loss, grads, metrics = gradient(population, batches)
    extra = extra_args.gather(population, rollouts, batches, is_first)
    if not diagnose:
        moved, largest, opt_state = population.optimizer.apply(
            grads, population.opt_state, params, donate=True, **extra
        )
    else:
        # A copy of the gradients is donated, because they are measured afterwards.
        updates, opt_state = population.optimizer.update(
            copy_leaves(grads), population.opt_state, params, donate=True, **extra
        )
        metrics |= diagnostics.of_optimizer(grads, updates, params, opt_state)
        moved, largest = add_updates(params, updates, donate=True)
    finite = (loss.abs() < torch.inf) & (largest < torch.inf).all(0)  # fewer operations than isfinite
    kl = population.kl
    if "kl" in population.optimizer.requires:
        kl = extra_args.kl_of_update(population.policy, batches, params, moved)
    return UpdateResult(batches, params, moved, opt_state, largest, finite, kl, metrics)


@torch.no_grad()
def targets(population: Population, rollout: MemberRollout) -> Batch:
    """Returns and advantages of a rollout, as the agent computes them."""
    params = select_members(population.params, rollout.rows)
    config = take_config(population.agent_config, rollout.rows)
    return population.agent.targets(population.policy, params, rollout.rollout, config)


def gradient(population: Population, batches: Batches) -> tuple[Tensor, Params, dict[str, Tensor]]:
    """Loss ``(P,)``, its gradient, leaves ``(P, ...)``, and the agent's metrics ``(P,)`` by tag.

    Members share no number, so the gradient of the sum of their losses holds each member's gradient.
    """
    parts = []
    for rows, batch in batches:
        leaves = {
            name: leaf.detach().requires_grad_() for name, leaf in select_members(population.params, rows).items()
        }
        config = take_config(population.agent_config, rows)
        loss, metrics = population.agent.loss(population.policy, leaves, batch, config)
        # A sum, because PyTorch imports SymPy for a second when it gets grad_outputs.
        total = loss if len(loss) == 1 else loss.sum()
        grads = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        detached = {tag: metric.detach() for tag, metric in metrics.items()}
        parts.append((loss.detach(), dict(zip(leaves, grads, strict=True)), detached))
    return concat_members(parts, [rows for rows, _ in batches])


def retire(population: Population, monitor: Monitor) -> Population:
    """The population without the members that have used their budget or have failed; the monitor keeps those.

    When all have left, those take their place that had left before and have been given more steps since.
    """
    if not population.size:
        return monitor.start_next_part()
    stay = monitor.staying(population)
    if stay.all():
        return population
    reasons = failures.explain(population, (~population.alive).nonzero().squeeze(1).tolist(), gradient)
    leaving, staying = (population.take(rows.nonzero().squeeze(1)) for rows in (~stay, stay))
    monitor.retire(leaving, staying, reasons)
    return staying if staying.size else monitor.start_next_part()
