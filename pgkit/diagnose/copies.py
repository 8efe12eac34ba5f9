"""Copies of a point, which train as one population, each under random numbers of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit import optim
from pgkit.config.schema import TrainConfig
from pgkit.diagnose.points import Point, SavedEnvs
from pgkit.diagnose.vectors import flatten_params, networks_in
from pgkit.optim.base import Optimizer
from pgkit.rollouts.collector import CollectorState
from pgkit.rollouts.compiled import compiled_envs
from pgkit.rollouts.episodes import WholeEpisodes
from pgkit.rollouts.trajectory import MemberRollout, pad
from pgkit.seeding import stream_keys, stream_seeds, uniform
from pgkit.training.captured import CapturedUpdates
from pgkit.training.extra_args import kl_of_update
from pgkit.training.initial_state import InitialState
from pgkit.training.loop import compute_update, gradient, targets, update
from pgkit.training.population import Population, build
from pgkit.tree import MemberRows, concat_members, put_tree, take_tree
from pgkit.types import Batch, Params, Rollout

UNLIMITED = 2**60

DEFAULT_LIMIT = 1000
"""Steps that stand for the time limit of environments that have none."""

WARM_UPDATES = 50
"""Gradients that a fresh optimizer gets to see first: without moments it knows little more than their signs."""


@contextmanager
def copies_of(
    point: Point, count: int, seed: int, config: TrainConfig | None = None, fresh_optimizer: bool = False
) -> Iterator[Population]:
    """M copies of a point, as a population that has made the point's steps; its environments close with the block.

    Copy i depends on the point, ``seed`` and i alone: it has the same bits in populations of any size.

    Args:
        point: the point, which stays as it is.
        count: M.
        seed: of the copies' random numbers.
        config: settings that differ from the point's: another rate, more environments; by default none.
        fresh_optimizer: let the optimizer begin anew.

    Raises:
        PgkitError: the optimizer's state does not fit to other settings.
    """
    chosen = config or point.config
    seeds = stream_seeds([seed] * count, "diagnosis_copy", range(count))
    configs = [chosen.model_copy(update={"seed": copy_seed, "seeds": None, "init": None}) for copy_seed in seeds]
    rows = torch.zeros(count, dtype=torch.int64)
    params, obs_stats, return_stats, kl = take_tree((point.params, point.obs_stats, point.return_stats, point.kl), rows)
    keeps_settings = config is None or config.optimizer == point.config.optimizer
    moments = None
    if not fresh_optimizer and not keeps_settings:
        moments = _repeated_state(point, rows, dumped=True)
    population = build(configs, initial=InitialState(point.label, params, obs_stats, moments))
    try:
        if not fresh_optimizer and keeps_settings:
            population.opt_state = _repeated_state(point, rows, dumped=False)
        state = population.collector.state
        counts = state.counts.clone()
        counts[:, 2, 0] = point.env_steps  # the steps of all environments are summed
        population.collector.state = replace(state, counts=counts, return_stats=return_stats or state.return_stats)
        population.updates = point.updates
        if "progress" not in population.optimizer.requires:
            population.budget = UNLIMITED  # only schedules need to know where training ends
        population.kl = kl
        yield population
    finally:
        population.collector.envs.close()


def _repeated_state(point: Point, rows: Tensor, dumped: bool) -> Any:
    """The optimizer's state of the point, once for each row."""
    optimizer: Optimizer = optim.from_config([point.config.optimizer])
    state = optimizer.take(optimizer.load(point.opt_state, point.params), rows)
    return optimizer.dump(state) if dumped else state


def start_acting(population: Population, point: Point) -> None:
    """Put copies where they begin to act: in the point's saved environments if it has them, else burnt in."""
    if point.saved_envs is None:
        burn_in(population)
    else:
        continue_saved(population, point.saved_envs)


def continue_saved(population: Population, saved: SavedEnvs) -> None:
    """Put every copy where the environments of its point stood, so that copies differ by their actions alone.

    Copies with more environments, as in larger batches, begin with each of the saved ones several times.
    """
    collector = population.collector
    wanted = torch.arange(collector.envs_per_member) % saved.obs.shape[1]
    collector.envs.restore(take_tree(saved.envs, wanted.repeat(population.size)))
    rows = torch.zeros(population.size, dtype=torch.int64)
    obs, discounted = (take_tree(leaf[:, wanted], rows) for leaf in (saved.obs, saved.discounted))
    counts = collector.state.counts.clone()
    counts[:, :2] = saved.counts[:, :2, wanted]  # return and length of the episodes under way
    collector.state = replace(collector.state, obs=obs, discounted=discounted, counts=counts, waiting=saved.waiting)


def burn_in(population: Population) -> None:
    """Act with the present parameters for one to two time limits, so that copies are out of phase.

    How long a copy acts is drawn for it alone, because where episodes go to their limit all would else end together.
    Nothing is learnt, and statistics for normalization stay as they are. Agents that collect whole episodes need none.
    """
    if population.rollout_steps is None:
        return
    before = population.collector.state
    limit = -(-(population.collector.envs.info.max_episode_steps or DEFAULT_LIMIT) // population.rollout_steps)
    keys = stream_keys([0], "diagnosis_copy")
    rollouts = limit + (limit * uniform(keys, torch.arange(population.size))).long()
    for done in range(int(rollouts.max())):
        rows = (rollouts > done).nonzero().squeeze(1)
        acting = population.take(rows)
        acting.collect()
        _put_state(population, rows, acting.collector.state)
    after = population.collector.state
    counts = after.counts.clone()
    counts[:, 2:] = before.counts[:, 2:]
    population.collector.state = replace(
        after, counts=counts, obs_stats=before.obs_stats, return_stats=before.return_stats
    )


def _put_state(population: Population, rows: Tensor, state: CollectorState) -> None:
    """Move the members at these rows to where a part of the population has got to."""
    merged = {
        name: value if name == "waiting" else put_tree(getattr(population.collector.state, name), rows, value)
        for name, value in state.dump().items()
    }
    population.collector.state = CollectorState(**merged)


class Update(NamedTuple):
    """One update of each copy, and what it was computed from.

    Attributes:
        grads: the gradient of one training batch, before clipping, by network, float32 ``(M, D)``.
        changes: what the optimizer has added to the parameters, by network, ``(M, D)``.
        before: parameters before, leaves ``(M, ...)``.
        after: parameters after.
        kl: ``(M,)`` mean KL(before || after) of the policies over the batch, in nats.
        steps: ``(M,)`` valid environment steps of the batch.
        obs: ``(1, B, D)`` observations of the batches.
    """

    grads: dict[str, Tensor]
    changes: dict[str, Tensor]
    before: Params
    after: Params
    kl: Tensor
    steps: Tensor
    obs: Tensor

    @property
    def norm(self) -> Tensor:
        """``(M,)``, the length of the change of all parameters."""
        return torch.cat(list(self.changes.values()), 1).norm(dim=1)


def observed_update(population: Population) -> Update:
    """Collect one training batch of each copy, measure its gradient, and learn from it."""
    batches: list[tuple[MemberRows, Batch]] = []
    grads: list[Params] = []

    def measure(population: Population, rollouts: Sequence[MemberRollout]) -> None:
        batches.extend((rollout.rows, targets(population, rollout)) for rollout in rollouts)
        grads.append(gradient(population, batches)[1])

    before = population.params
    update(population, on_rollouts=measure)
    changes = {name: leaf - before[name] for name, leaf in population.params.items()}
    steps = torch.zeros(population.size)
    for rows, batch in batches:
        steps[slice(None) if rows is None else rows] = batch.valid.sum(1, dtype=steps.dtype)
    return Update(
        grads=by_network(grads[0]),
        changes=by_network(changes),
        before=before,
        after=population.params,
        kl=kl_of_update(population.policy, batches, before, population.params),
        steps=steps,
        obs=torch.cat([batch.obs[batch.valid] for _, batch in batches])[None],
    )


def by_network(params: Params) -> dict[str, Tensor]:
    """Leaves ``(P, ...)`` as one matrix ``(P, D)`` for each network: actor, critic, trunk, ..."""
    return {network: flatten_params(params, names) for network, names in networks_in(params).items()}


def learn(population: Population, updates: int, captured: CapturedUpdates | None = None) -> None:
    """Make so many updates of each copy, without Python where that is possible; fewer if a schedule ends before.

    Args:
        population: is changed.
        updates: at least 0.
        captured: what earlier calls for this population have captured.
    """
    captured = captured or CapturedUpdates(compute_update)
    never = torch.full((population.size,), torch.inf, dtype=torch.float64)
    target = population.updates + updates
    while population.updates < target and population.unfinished.any():
        if captured.run(population, target - population.updates, never) is None:
            update(population, captured=captured)


def learn_critic(population: Population, updates: int) -> Params:
    """Fit the critics to frozen actors: so many updates, each of which leaves the actor as it was.

    Returns:
        The parameters of the critics, leaves ``(M, ...)``; the population is of no use afterwards.
    """
    _learn_without(population, updates, [name for name in population.params if not name.startswith("critic")])
    return {name: leaf for name, leaf in population.params.items() if name.startswith("critic")}


def warm(population: Population, updates: int = WARM_UPDATES, back_to: SavedEnvs | None = None) -> None:
    """Let optimizers see so many gradients at frozen parameters, so that their moments are those of the policy.

    Args:
        population: is changed.
        updates: how many gradients.
        back_to: environments in which copies stand again afterwards; None lets them go on.
    """
    _learn_without(population, updates, list(population.params))
    if back_to is not None:
        continue_saved(population, back_to)


def has_moments(population: Population) -> bool:
    """Whether the actor's optimizer remembers gradients; sgd and the natural gradient do not, and need no warming."""
    state = population.optimizer.dump(population.opt_state)
    main = state.get("inner_states", {}).get("main", state)
    return bool(main.get("leaf_state", True))  # of a class of another package, nothing is known


def _learn_without(population: Population, updates: int, frozen: Sequence[str]) -> None:
    """Make updates that leave these parameters as they are; the optimizer's state moves on, schedules do not."""
    kept = {name: population.params[name] for name in frozen}
    updates_before = population.updates
    totals = population.collector.state.counts[:, 2:].clone()
    captured = CapturedUpdates(compute_update)
    for _ in range(updates):
        learn(population, 1, captured)
        population.params = {**population.params, **kept}
        population.updates = updates_before
        state = population.collector.state
        population.collector.state = replace(state, counts=torch.cat([state.counts[:, :2], totals], 1))


@torch.no_grad()
def whole_episodes(population: Population) -> Rollout:
    """One whole episode of each environment of each copy, by frozen policies; rewards as the environments give them.

    Returns:
        Axes ``(T, M, N)``, padded to the longest episode with steps that are not valid.
    """
    collector = population.collector
    envs = None
    if not collector.normalization.observations:
        envs = compiled_envs(collector.envs, population.policy, population.params)
    parts = WholeEpisodes(envs).collect(collector, population.params)
    longest = max(len(part.rollout.valid) for part in parts)
    padded = [
        pad(replace(part.rollout, reward=part.unnormalized.reward, packing=None, cache=None), longest) for part in parts
    ]
    tensors = [
        tuple(tensor.transpose(0, 1) for tensor in (x.obs, x.action, x.reward, x.terminated, x.truncated, x.valid))
        for x in padded
    ]
    joined = concat_members(tensors, [part.rows for part in parts])
    steps = int(joined[-1].any(2).any(0).sum())
    obs, *others = (tensor.transpose(0, 1) for tensor in joined)
    return Rollout(obs[: steps + 1], *(tensor[:steps] for tensor in others))
