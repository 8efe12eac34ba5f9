"""The training loop: one, for every agent, optimizer and population size."""

from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from pgkit import causes, diagnosis, optim, signals
from pgkit.config import TrainConfig
from pgkit.observe import Observer, TrainResult
from pgkit.optim.core import apply_updates, freeze
from pgkit.population import Evidence, Population, build, take_config
from pgkit.rollout import Piece, join_pieces, select
from pgkit.rundir import check_run_directory, new_run
from pgkit.signals import Batches
from pgkit.types import Batch, Params


def train(
    configs: Sequence[TrainConfig],
    directory: Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
    on_steps: Callable[[float], None] | None = None,
    debug_numerics: bool = False,
) -> TrainResult:
    """Train one member for each configuration, all at once; each gets the bits that it would get alone.

    Args:
        configs: P of them, which may differ in seed, optimizer and the agent's real numbers;
            see :func:`pgkit.config.members` for the seeds of one configuration.
        directory: where the run is recorded; None records nothing.
        progress: show a progress bar.
        overwrite: replace a run that is already there.
        on_steps: called after each update with the environment steps of all members so far.
        debug_numerics: stop at the first number that is not finite, at about twice the cost.

    Raises:
        PgkitError: the configurations do not fit together, or cannot run here.
        Stopped: Ctrl-C or SIGTERM while a run is recorded; :func:`pgkit.resuming.resume` continues it.
        BadNumber: ``debug_numerics``, and there was one.
    """
    if directory is not None:
        check_run_directory(directory, overwrite)
    population = build(configs)
    with (
        closing(population.collector.envs),
        nullcontext() if directory is None else new_run(directory, overwrite),
        Observer([population], configs, directory, progress, on_steps) as observer,
    ):
        return run(population, observer, debug_numerics)


def run(population: Population, observer: Observer, debug_numerics: bool = False) -> TrainResult:
    """Train until every member has left."""
    observer.begin()
    while population.size:
        metrics = update(population, diagnose=observer.wants_diagnosis)
        if debug_numerics:
            causes.stop_at_bad_number(population, observer.configs, gradient)
        observer.see(population, metrics)
        population = retire(population, observer)
        observer.pause()
    return observer.finish()


def update(population: Population, diagnose: bool = False) -> dict[str, Tensor]:
    """One rollout and one optimizer step; returns metrics ``(P,)``, many more of them if ``diagnose``."""
    before, progress, obs_stats = population.params, population.progress, population.collector.obs_stats
    population.evidence = None  # nothing of the last update is held while the next one acts
    pieces = population.collect()
    batches = [(piece.rows, targets(population, piece)) for piece in pieces]
    loss, grads, metrics = gradient(population, batches)
    raw = optim.snapshot(grads) if diagnose else {}  # the optimizer may write into the gradients
    sent = signals.gather(population, progress, batches)
    updates, population.opt_state = population.optimizer.update(grads, population.opt_state, before, **sent)
    if diagnose:
        metrics |= diagnosis.of_optimizer(raw, updates, before, population.opt_state)
    moved = apply_updates(before, updates)
    sums = torch.stack([leaf.flatten(1).sum(1) for leaf in moved.values()])
    population.alive = population.alive & loss.isfinite() & sums.isfinite().all(0) & population.collector.sound
    population.params = freeze(moved, before, population.alive)
    population.evidence = Evidence(pieces, batches, before, obs_stats, sums)
    population.updates += 1
    if "kl" in population.optimizer.needs:
        population.kl = signals.kl_of_update(population.policy, batches, before, population.params)
    if diagnose:
        metrics |= diagnosis.of_policy(population.policy, batches, before, population.params)
    return metrics


@torch.no_grad()
def targets(population: Population, piece: Piece) -> Batch:
    """What the agent makes of a rollout."""
    params, config = select(population.params, piece.rows), take_config(population.agent_config, piece.rows)
    return population.agent.targets(population.policy, params, piece.rollout, config)


def gradient(population: Population, batches: Batches) -> tuple[Tensor, Params, dict[str, Tensor]]:
    """Loss ``(P,)``, its gradient and the agent's metrics ``(P,)``, from batches of some members each.

    Members share no number, so the gradient of the sum of their losses is each member's own gradient.
    """
    parts = []
    for rows, batch in batches:
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in select(population.params, rows).items()}
        config = take_config(population.agent_config, rows)
        loss, metrics = population.agent.loss(population.policy, leaves, batch, config)
        grads = torch.autograd.grad(loss.sum(), list(leaves.values()), materialize_grads=True)
        detached = {tag: metric.detach() for tag, metric in metrics.items()}
        parts.append((loss.detach(), dict(zip(leaves, grads, strict=True)), detached))
    return join_pieces(parts, [rows for rows, _ in batches])


def retire(population: Population, observer: Observer) -> Population:
    """The population without the members that have used their budget or have failed; the observer keeps those."""
    stay = (population.env_steps < population.budget) & population.alive
    if stay.all():
        return population
    reasons = causes.explain(population, (~population.alive).nonzero().squeeze(1).tolist(), gradient)
    leaving, staying = (population.take(rows.nonzero().squeeze(1)) for rows in (~stay, stay))
    observer.keep(leaving, staying, reasons)
    return staying
