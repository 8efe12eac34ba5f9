"""Whole episodes of a point's frozen policy, and what they say of its critic."""

from dataclasses import replace
from typing import NamedTuple

from pgkit.diagnose.copies import copies_of, whole_episodes
from pgkit.diagnose.critic import critic_quality, monte_carlo, value_histogram
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Measured, Row
from pgkit.diagnose.settings import Settings
from pgkit.nn.policy import Policy
from pgkit.types import Params, Rollout

BATCH_EPISODES = 16
"""Episodes of a batch."""


class Episodes(NamedTuple):
    """Whole episodes of one policy in batches, rewards as the learner sees them.

    Attributes:
        policy: of the copies.
        params: leaves ``(B, ...)`` of B batches, all alike.
        rollout: ``(T, B, 16)``.
    """

    policy: Policy
    params: Params
    rollout: Rollout


def play_batches(point: Point, batches: int, seed: int) -> Episodes:
    """Play so many batches of whole episodes, each by a copy of the point's policy."""
    config = point.config.model_copy(update={"envs_per_member": BATCH_EPISODES})
    with copies_of(point, batches, seed, config, fresh_optimizer=True) as population:
        rollout = whole_episodes(population)
        scale = population.collector.normalization.reward_scale
        return Episodes(population.policy, population.params, replace(rollout, reward=rollout.reward * scale))


def measure_critic(
    batches: Episodes, gamma: float, settings: Settings, measured: Measured, histogram: bool = False
) -> None:
    """How much of the returns of these episodes the critic knows; with ``histogram`` also their steps by value and
    return, the table ``critic_histogram``."""
    value, next_value, _ = batches.policy.values(batches.params, batches.rollout)
    measured.add("critic", critic_quality(batches.rollout, value, next_value, gamma, settings.seed))
    if histogram:
        returns = monte_carlo(batches.rollout, value, next_value, gamma)
        measured.add_rows("critic_histogram", value_histogram(returns))


def critic_rows(measured: Measured) -> list[Row]:
    """The row of the table ``critic`` of a point, from what was measured last; none without a critic."""
    names = {"ev_mc": "explained_variance", "ev_bootstrapped": "explained_variance_bootstrapped"}
    names |= {"bias": "bias", "var_target": "target_variance"}
    if "critic/bias" not in measured.quantities:
        return []
    return [{column: measured.quantities[f"critic/{name}"].value for column, name in names.items()}]
