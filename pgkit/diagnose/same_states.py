"""Several optimizers at the same policies: what each would do next, at its own settings."""

from collections.abc import Mapping

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.copies import burn_in, copies_of, observed_update, warm
from pgkit.diagnose.play import Player
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Measured, Quantity
from pgkit.diagnose.scan import next_updates, noise_of
from pgkit.diagnose.settings import Settings


def next_updates_of(
    point: Point, configs: Mapping[str, TrainConfig], player: Player, settings: Settings, random: Quantity
) -> dict[str, Measured]:
    """What updates with each of several settings do to the policy of one point, from the same random numbers.

    Args:
        point: the point.
        configs: settings by name; agent and networks are those of the point.
        player: plays the episodes.
        settings: sizes.
        random: return of a policy without skill.

    Returns:
        By name: the quantities of ``post_update``, ``parts`` and ``noise``, see the README.
    """
    measured = {}
    for name, config in configs.items():
        result = Measured(quantities={"return/random": random})
        with copies_of(point, settings.copies, settings.seed, config, fresh_optimizer=True) as population:
            burn_in(population)
            warm(population)
            first = observed_update(population)
            for network, grads in first.grads.items():
                result.add(f"noise/{network}", noise_of(grads, first, network, settings))
            next_updates(point, player, settings, population, first, result)
        measured[name] = result
    return measured
