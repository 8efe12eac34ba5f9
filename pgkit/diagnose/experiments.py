"""The causal part: the next K updates once more, each time with one thing changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.copies import copies_of, learn, learn_critic, observed_update, start_acting
from pgkit.diagnose.interventions import INTERVENTIONS, share_improvement
from pgkit.diagnose.play import Player
from pgkit.diagnose.points import Point, uses_critic
from pgkit.diagnose.post_update import post_update_returns
from pgkit.diagnose.results import Measured, Quantity
from pgkit.diagnose.scan import (
    copies_obs_stats,
    distance,
    play_before,
    play_blocks,
    update_rows,
)
from pgkit.diagnose.settings import Settings
from pgkit.errors import PgkitError
from pgkit.optim.from_config import describe
from pgkit.training.population import Population

CRITIC_UPDATES = 64
"""Updates of the critic alone in the intervention that fits it."""


def changed_settings(config: TrainConfig) -> dict[str, Callable[[], TrainConfig]]:
    """The settings of each intervention that changes settings, by its name."""
    changes = {"batch_x8": lambda: _replace(config, envs_per_member=config.envs_per_member * 8)}
    changes["rate_div_10"] = lambda: _slower(config)
    if config.agent.get("lam", 1.0) < 1.0:
        changes["lambda_1"] = lambda: _replace(config, agent={**config.agent, "lam": 1.0})
    return changes


def interventions_for(config: TrainConfig) -> list[str]:
    """The names of the interventions that make sense for a configuration."""
    fitted = ["critic_fitted"] if uses_critic(config) else []
    return [*changed_settings(config), *fitted, "optimizer_reset"]


def intervene(point: Point, player: Player, settings: Settings, scanned: Measured) -> Measured:
    """Section C3 of the README: what cures a fragile policy; half of the copies try each change.

    Args:
        point: the point.
        player: plays the episodes that the scan has played.
        settings: sizes.
        scanned: what the scan has measured there, with the K updates as they are.
    """
    measured = Measured()
    as_it_is = scanned.quantities["post_update/K/half_share"]
    updates = int(scanned.quantities["post_update/updates"].value)
    before = play_before(point, player, settings)
    settings = settings.with_half_of_the_copies()
    for name in interventions_for(point.config):
        count = updates * INTERVENTIONS[name].updates
        try:
            with _changed_copies(point, settings, name) as population:
                started = float(population.env_steps.sum())
                start_acting(population, point)
                first = observed_update(population)
                learn(population, count - 1)
                blocks = play_blocks(player, population.params, settings, copies_obs_stats(point, population))
                kl, norm = distance(population, first.before, first.obs)
                measured.env_steps += float(population.env_steps.sum()) - started
        except PgkitError as error:
            measured.not_done.append((f"intervention {name}", str(error)))
            continue
        returns = post_update_returns(*blocks, before, scanned.quantities["return/random"], kl=kl, norm=norm)
        half_share = returns["half_share"]
        quantities = {"half_share": half_share, "mean": returns["mean"]}
        quantities["improvement"] = share_improvement(as_it_is, half_share)
        measured.add(f"interventions/{name}", quantities)
        measured.add_rows("updates", update_rows(name, count, *blocks, kl, norm))
        measured.add_rows("interventions", [_row(name, quantities)])
    return measured


@contextmanager
def _changed_copies(point: Point, settings: Settings, name: str) -> Iterator[Population]:
    """Copies with one thing changed."""
    if name == "critic_fitted":
        with copies_of(point, settings.copies, settings.seed + 1) as population:
            start_acting(population, point)
            critics = learn_critic(population, CRITIC_UPDATES)
        with copies_of(point, settings.copies, settings.seed) as population:
            population.params = {**population.params, **critics}
            yield population
    elif name == "optimizer_reset":
        with copies_of(point, settings.copies, settings.seed, fresh_optimizer=True) as population:
            yield population
    else:
        config = changed_settings(point.config)[name]()
        with copies_of(point, settings.copies, settings.seed, config) as population:
            yield population


def _replace(config: TrainConfig, **settings: Any) -> TrainConfig:
    return config.model_copy(update=settings)


def _slower(config: TrainConfig) -> TrainConfig:
    """The rate divided; a critic with an optimizer of its own keeps its rate."""
    table = config.optimizer
    groups = describe(table)
    if "lr" not in groups["main"]:
        raise PgkitError(f"optimizer {table['name']} has no learning rate")
    slower = {**table, "lr": groups["main"]["lr"] / INTERVENTIONS["rate_div_10"].updates}
    if "critic" in groups:
        slower["critic"] = {**table["critic"], "lr": groups["critic"]["lr"]}
    return _replace(config, optimizer=slower)


def _row(name: str, quantities: dict[str, Quantity]) -> dict[str, Any]:
    p, improvement = quantities["half_share"], quantities["improvement"]
    columns = {"p": p.value, "difference": improvement.value, "low": improvement.low, "high": improvement.high}
    return {"intervention": name, **columns}
