"""The cheap measurements, made at every point: return, noise of the gradient, the next updates, health of networks."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgkit.diagnose.copies import Update, copies_of, learn, observed_update, start_acting
from pgkit.diagnose.cosines import cosine_histogram
from pgkit.diagnose.episodes import measure_critic, play_batches
from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.health import health, policy_health
from pgkit.diagnose.noise import noise_scale, update_snr
from pgkit.diagnose.play import Player, without_skill
from pgkit.diagnose.points import Point, uses_critic
from pgkit.diagnose.post_update import post_update_returns, update_parts
from pgkit.diagnose.results import Measured, Quantity, Row
from pgkit.diagnose.settings import Settings
from pgkit.training.population import Population
from pgkit.types import Params

PROBE_STATES = 2048
"""Of the states that networks are looked at on."""

CRITIC_BATCHES = 12
"""Batches of 16 episodes that the critic is looked at on."""

RETURN_BLOCK, RANDOM_BLOCK = 2, 3
"""Blocks of episodes beside 0 and 1, which are A and B of the comparisons."""


def scan(point: Point, player: Player, settings: Settings) -> Measured:
    """Measure sections A, C and E of the README at one point."""
    measured = Measured()
    played_before = player.env_steps
    measured.add("return", measure_returns(point, player, settings))
    measured.add("cliff", {"alpha": Quantity.missing("looked for at critical points, and by pgkit landscape")})
    with copies_of(point, settings.copies, settings.seed) as population:
        started = float(population.env_steps.sum())
        first = measure_gradient(point, population, settings, measured)
        if uses_critic(point.config) and not point.config.env.normalize_rewards:
            batches = play_batches(point, CRITIC_BATCHES, settings.seed + 2)
            measure_critic(batches, point.config.agent["gamma"], settings, measured)
            measured.env_steps += float(batches.rollout.valid.sum())
        if _can_update(point):
            next_updates(point, player, settings, population, first, measured)
        else:
            measured.not_done.append(("updates at the end", "the learning rate's schedule has ended"))
        measured.env_steps += float(population.env_steps.sum()) - started
    measured.env_steps += player.env_steps - played_before
    return measured


def measure_gradient(point: Point, population: Population, settings: Settings, measured: Measured) -> Update:
    """Sections A and E of the README, for fresh copies of a point; returns the update that they have made."""
    start_acting(population, point)
    first = observed_update(population)
    for name, grads in first.grads.items():
        measured.add(f"noise/{name}", noise_of(grads, first, name, settings))
        measured.add_rows("cosines", [{"network": name, **row} for row in cosine_histogram(grads.numpy())])
    measured.add("health", _health(point, population, probe_states(first.obs), settings))
    return first


def _health(point: Point, population: Population, obs: Tensor, settings: Settings) -> dict[str, Quantity]:
    """Section E of the README: of networks, too, or only of what the policy has left to choose."""
    if settings.networks:
        return health(population.policy, point.params, obs)
    choices = policy_health(population.policy, point.params, obs)
    return {f"policy/{name}": quantity for name, quantity in choices.items()}


def play_blocks(
    player: Player, params: Params, settings: Settings, obs_stats: dict[str, Tensor] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns ``(P, E / 2)`` in block A and in block B."""
    half = settings.episodes // 2
    a, b = (player.play(params, half, block, obs_stats) for block in (0, 1))
    return a, b


def play_before(point: Point, player: Player, settings: Settings) -> NDArray[np.float64]:
    """Returns ``(E,)`` of the point's policy in both blocks."""
    return np.concatenate(play_blocks(player, point.params, settings, obs_stats_of(point)), 1)[0]


def obs_stats_of(point: Point) -> dict[str, Tensor] | None:
    """Statistics of observations, if the member's policy acts on normalized ones."""
    return point.obs_stats if point.config.env.normalize_observations else None


def copies_obs_stats(point: Point, population: Population) -> dict[str, Tensor] | None:
    """The copies' statistics of observations, likewise."""
    return population.collector.state.obs_stats if point.config.env.normalize_observations else None


def measure_returns(point: Point, player: Player, settings: Settings) -> dict[str, Quantity]:
    """J of the point, and of a policy without skill."""
    obs_stats = obs_stats_of(point)
    episodes = settings.return_episodes
    returns = player.play(point.params, episodes, RETURN_BLOCK, obs_stats)[0]
    random = player.play(without_skill(point.params), episodes, RANDOM_BLOCK, obs_stats)[0]
    return {"mean": mean_quantity(returns), "random": mean_quantity(random)}


def noise_of(grads: Tensor, first: Update, network: str, settings: Settings) -> dict[str, Quantity]:
    steps = float(first.steps.mean())
    quantities = noise_scale(grads.numpy(), steps, np.random.default_rng(settings.seed))
    return {**quantities, "update_snr": update_snr(first.changes[network].numpy())}


def probe_states(obs: Tensor) -> Tensor:
    """At most ``PROBE_STATES`` of the states ``(1, B, D)``, evenly spread over the copies."""
    stride = max(1, obs.shape[1] // PROBE_STATES)
    return obs[:, ::stride][:, :PROBE_STATES].contiguous()


def _can_update(point: Point) -> bool:
    """Whether another update would change anything: schedules of the learning rate may have ended at 0."""
    return point.share < 1.0 or "schedule" not in point.config.optimizer


def next_updates(
    point: Point, player: Player, settings: Settings, population: Population, first: Update, measured: Measured
) -> None:
    """Section C1 and C2: returns after one update and after K, and one update taken apart."""
    obs_stats = copies_obs_stats(point, population)
    before = play_before(point, player, settings)
    random = measured.quantities["return/random"]
    blocks = play_blocks(player, first.after, settings, obs_stats)
    measured.add("parts", _parts(point, player, settings, first, before, np.concatenate(blocks, 1)))
    measured.add("post_update/1", post_update_returns(*blocks, before, random, kl=first.kl, norm=first.norm))
    measured.add_rows("updates", update_rows("none", 1, *blocks, first.kl, first.norm))
    updates = settings.updates(point, float(first.steps.mean()))
    if updates == 0:
        return
    # Members that have used their budget stop, but copies go on for K updates: only a schedule reads the budget.
    learn(population, updates - 1)
    obs_stats = copies_obs_stats(point, population)
    blocks = play_blocks(player, population.params, settings, obs_stats)
    kl, norm = distance(population, first.before, first.obs)
    measured.add("post_update/K", post_update_returns(*blocks, before, random, kl=kl, norm=norm))
    measured.quantities["post_update/updates"] = Quantity(updates)
    measured.add_rows("updates", update_rows("none", updates, *blocks, kl, norm))


def distance(population: Population, before: Params, obs: Tensor) -> tuple[Tensor, Tensor]:
    """KL(before || now) on probe states and the length of the change of parameters, ``(M,)`` each."""
    probe = probe_states(obs).expand(population.size, -1, -1)
    with torch.no_grad():
        outputs = [population.policy.outputs(params, probe) for params in (before, population.params)]
    kl = population.policy.head.kl(*outputs).mean(1)
    squares = [(leaf - before[name]).flatten(1).square().sum(1) for name, leaf in population.params.items()]
    return kl, torch.stack(squares).sum(0).sqrt()


def _parts(
    point: Point,
    player: Player,
    settings: Settings,
    first: Update,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
) -> dict[str, Quantity]:
    """Play the mean update both ways, and take the change of the return apart."""
    theta = point.params
    mean = {name: (leaf - first.before[name]).mean(0, keepdim=True) for name, leaf in first.after.items()}
    both = {name: torch.cat([theta[name] + mean[name], theta[name] - mean[name]]) for name in theta}
    plus, minus = np.concatenate(play_blocks(player, both, settings, obs_stats_of(point)), 1)
    return update_parts(before, plus, minus, after)


def update_rows(
    intervention: str, updates: int, a: NDArray[np.float64], b: NDArray[np.float64], kl: Tensor, norm: Tensor
) -> list[Row]:
    columns: list[list[Any]] = [a.mean(1).tolist(), b.mean(1).tolist(), kl.tolist(), norm.tolist()]
    return [
        {"intervention": intervention, "updates": updates, "copy": copy}
        | dict(zip(("j_a", "j_b", "kl", "norm"), values, strict=True))
        for copy, values in enumerate(zip(*columns, strict=True))
    ]
