"""Directions of other optimizers at the same policy, as long as the run's step: which of both is to blame?"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.copies import Update, copies_of, has_moments, observed_update, start_acting, warm
from pgkit.diagnose.interventions import scale_to_kl, scale_to_norm
from pgkit.diagnose.play import Player
from pgkit.diagnose.points import Point
from pgkit.diagnose.post_update import post_update_returns
from pgkit.diagnose.results import Measured
from pgkit.diagnose.scan import obs_stats_of, play_before, play_blocks, probe_states
from pgkit.diagnose.settings import Settings
from pgkit.diagnose.vectors import actor_names, flatten_params, moved
from pgkit.errors import PgkitError
from pgkit.nn.policy import Policy

OTHERS = ("sgd", "adam", "rmsprop", "npg")
"""Recipes whose directions are tried; those with moments are warmed by gradients at the frozen policy."""

RATE = 1e-3

KL_STATES = 512
"""States that the length of a step at a given KL is looked for on."""


class _Steps(NamedTuple):
    """Steps of M copies from one policy.

    Attributes:
        policy: what the parameters mean.
        update: the update that they are compared with.
        directions: ``(M, D)`` of the actor, of any length.
    """

    policy: Policy
    update: Update
    directions: Tensor


def compare_directions(point: Point, player: Player, settings: Settings, scanned: Measured) -> Measured:
    """Section C4 of the README: the return after one step of each direction, at equal KL and at equal length.

    Half of the copies step in each direction, because there are twelve of them.
    """
    measured = Measured()
    settings = settings.with_half_of_the_copies()
    reference = _steps(point, settings, None)
    generator = torch.Generator().manual_seed(settings.seed)
    noise = torch.randn(reference.directions.shape, generator=generator, dtype=torch.float64)
    steps = {"own": reference, "random": reference._replace(directions=noise)}
    for name in OTHERS:
        try:
            steps[name] = _steps(point, settings, name)
        except PgkitError as error:
            measured.not_done.append((f"direction of {name}", str(error)))
    kl = float(reference.update.kl.median())
    norm = float(reference.directions.norm(dim=1).median())
    before = play_before(point, player, settings)
    for name, other in steps.items():
        factors = {
            "equal_kl": scale_to_kl(other.directions, _kl_along(point, reference, other), kl),
            "equal_norm": scale_to_norm(other.directions, norm),
        }
        for equal, factor in factors.items():
            stepped = moved(point.params, other.directions * factor.nan_to_num(0.0)[:, None])
            blocks = play_blocks(player, stepped, settings, obs_stats_of(point))
            returns = post_update_returns(*blocks, before, scanned.quantities["return/random"])
            measured.add(f"directions/{name}/{equal}", {key: returns[key] for key in ("half_share", "mean")})
    return measured


def _steps(point: Point, settings: Settings, name: str | None) -> _Steps:
    """One update of each copy: by the run's optimizer in its state, or by another recipe with its default settings."""
    config = None if name is None else _with_optimizer(point.config, name)
    with copies_of(point, settings.copies, settings.seed, config, fresh_optimizer=name is not None) as population:
        start_acting(population, point)
        if name is not None and has_moments(population):
            warm(population, back_to=point.saved_envs)
        update = observed_update(population)
        names = actor_names(update.after)
        directions = flatten_params(update.after, names) - flatten_params(update.before, names)
        return _Steps(population.policy, update, directions)


def _with_optimizer(config: TrainConfig, name: str) -> TrainConfig:
    """The configuration with a recipe in the place of the actor's optimizer; how long its steps are is no matter."""
    critic = {} if config.policy.shared else {"critic": {"name": "adam", "lr": RATE}}
    return config.model_copy(update={"optimizer": {"name": name, "lr": RATE, **critic}})


def _kl_along(point: Point, reference: _Steps, other: _Steps) -> Callable[[Tensor], Tensor]:
    """KL(policy || policy moved by factor x direction) on probe states, of factors ``(M,)``."""
    probes = probe_states(reference.update.obs)
    obs = probes[:, :: -(-probes.shape[1] // KL_STATES)].expand(len(other.directions), -1, -1)
    with torch.no_grad():
        outputs = reference.policy.outputs(reference.update.before, obs)

    @torch.no_grad()
    def kl(factors: Tensor) -> Tensor:
        stepped = moved(point.params, other.directions * factors[:, None])
        return reference.policy.head.kl(outputs, reference.policy.outputs(stepped, obs)).mean(1)

    return kl
