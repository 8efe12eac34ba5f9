"""Several optimizers at the same policies: what each would do next, at its own settings."""

from collections.abc import Mapping

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.copies import copies_of, observed_update, start_acting, warm
from pgkit.diagnose.play import Player
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Measured, Quantities
from pgkit.diagnose.scan import measure_returns, next_updates, noise_of
from pgkit.diagnose.settings import Settings


def next_updates_of(
    point: Point, configs: Mapping[str, TrainConfig], player: Player, settings: Settings
) -> dict[str, Quantities]:
    """What updates with each of several settings do to the policy of one point, from the same random numbers.

    Each optimizer is fresh and then warmed by gradients at the frozen policy.

    Args:
        point: the point.
        configs: settings by name; agent and networks are those of the point.
        player: plays the episodes.
        settings: sizes.

    Returns:
        By name: the quantities of ``return``, ``noise``, ``parts`` and ``post_update``, see the README.
    """
    returns = measure_returns(point, player, settings)
    by_name: dict[str, Quantities] = {}
    for name, config in configs.items():
        measured = Measured()
        measured.add("return", returns)
        with copies_of(point, settings.copies, settings.seed, config, fresh_optimizer=True) as population:
            start_acting(population, point)
            warm(population, back_to=point.saved_envs)
            first = observed_update(population)
            for network, grads in first.grads.items():
                measured.add(f"noise/{network}", noise_of(grads, first, network, settings))
            next_updates(point, player, settings, population, first, measured)
        by_name[name] = measured.quantities
    return by_name
