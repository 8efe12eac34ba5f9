"""The expensive measurements, made at critical points: estimators and critic on the same data, and curvature."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.curvature import (
    EpisodeSamples,
    directional_derivatives,
    episode_samples,
    log_probabilities,
    return_gradient,
    return_hessian,
    step_weights,
)
from pgkit.diagnose.episodes import Episodes, measure_critic, play_batches
from pgkit.diagnose.estimator_comparison import LAMS, advantages, compare_estimators, policy_gradients
from pgkit.diagnose.evidence import choose_step, curvature_by_differences, mean_quantity
from pgkit.diagnose.fisher import fisher_max, fisher_product, fisher_trace, random_signs
from pgkit.diagnose.lanczos import RitzPairs, lanczos, largest_magnitudes, subspace_share
from pgkit.diagnose.landscape.directions import UpdateDirections
from pgkit.diagnose.landscape.measure import measure as measure_landscape
from pgkit.diagnose.landscape.measure import quantities_of
from pgkit.diagnose.landscape.request import Request, Subject
from pgkit.diagnose.play import Player
from pgkit.diagnose.points import Point, uses_critic
from pgkit.diagnose.results import Measured, Quantity, Row
from pgkit.diagnose.scan import obs_stats_of
from pgkit.diagnose.settings import Settings
from pgkit.diagnose.sharpness import sharpness
from pgkit.diagnose.vectors import moved
from pgkit.nn.policy import Policy
from pgkit.rollouts.episodes import pack_samples
from pgkit.stats.intervals import wilson
from pgkit.stats.samples import FloatArray
from pgkit.types import Params, Rollout

BATCHES = 48
"""Batches of each estimator, and as many for the reference."""

ESTIMATOR_STEPS = 200_000
"""Estimators are computed on as many of these batches as have so many steps, on half of them at least."""

CURVATURE_STEPS = 33_000
"""Curvature is searched and measured on as many of these batches as have so many steps, on 4 at least."""


LANCZOS_STEPS = 16
RANDOM_DIRECTIONS = 25
TOP_SUBSPACE = 10
TRACE_PROBES = 10
DIFFERENCE_EPISODES = 100


def look(point: Point, player: Player, settings: Settings) -> Measured:
    """Measure sections B, D and F of the README at one point, which has been scanned."""
    measured = Measured()
    if point.config.env.normalize_rewards:
        measured.not_done.append(("estimators and critic", "rewards are normalized by statistics that move on"))
        return measured
    first, second = (play_batches(point, BATCHES, settings.seed + k) for k in (2, 3))
    measured.env_steps += float(first.rollout.valid.sum() + second.rollout.valid.sum())
    _compare(point, first, second, settings, measured)
    updates = _cliff(point, settings, measured)
    if settings.curvature and updates is not None:
        played_before = player.env_steps
        _curvature(point, player, settings, first, second, updates, measured)
        measured.env_steps += player.env_steps - played_before
    return measured


def _cliff(point: Point, settings: Settings, measured: Measured) -> UpdateDirections | None:
    """Section F: whether the return halves along the next update or the gradient; returns these directions."""
    seen = measure_landscape(Subject(point), Request(plane="none", seed=settings.seed))
    measured.quantities |= {name: q for name, q in quantities_of(seen).items() if name.startswith("cliff/")}
    measured.env_steps += seen.env_steps
    return seen.updates


def _compare(point: Point, first: Episodes, second: Episodes, settings: Settings, measured: Measured) -> None:
    """Section B: the estimators of the gradient on the same batches, and the critic."""
    gamma = point.config.agent["gamma"]
    learned = uses_critic(point.config)
    reference = _gradients(second, point.config, ["leave-one-out"])["leave-one-out"]
    names = None if learned else ["none", "mean", "leave-one-out"]  # a critic that is never trained says nothing
    comparison = compare_estimators(_gradients(first, point.config, names), reference, settings.seed)
    measured.add("estimators", comparison.quantities)
    measured.add_rows("estimators", list(comparison.rows))
    if learned:
        measure_critic(first, gamma, settings, measured, histogram=True)


def _gradients(batches: Episodes, config: TrainConfig, names: Sequence[str] | None) -> dict[str, FloatArray]:
    """The gradient of each batch ``(B, D)`` by estimator: of these names, or of all."""
    members = slice(_enough(batches, ESTIMATOR_STEPS, BATCHES // 2))
    params = {name: leaf[members] for name, leaf in batches.params.items()}
    rollout = pack_samples(batches.policy, _part(batches.rollout, members))
    value, next_value, _ = batches.policy.values(params, rollout)
    lams = sorted({*LAMS, config.agent.get("lam", 1.0)})
    by_name = advantages(rollout, value, next_value, config.agent["gamma"], lams)
    chosen = by_name if names is None else {name: by_name[name] for name in names}
    grads = policy_gradients(batches.policy, params, rollout, chosen)
    return {name: grad.double().numpy() for name, grad in grads.items()}


class _Probes(NamedTuple):
    """Directions ``(K, D)`` of length 1 by name, and what the curvature is measured with."""

    directions: dict[str, Tensor]
    params: Params
    samples: EpisodeSamples
    policy: Policy


def _curvature(
    point: Point,
    player: Player,
    settings: Settings,
    first: Episodes,
    second: Episodes,
    updates: UpdateDirections,
    measured: Measured,
) -> None:
    """Section D: the ends of the spectrum are searched on episodes A and measured on episodes B."""
    policy = first.policy
    search, fresh = (episode_samples(policy, fewer, step_weights(fewer)) for fewer in (_fewer(first), _fewer(second)))
    generator = torch.Generator().manual_seed(settings.seed)
    product = return_hessian(policy, point.params, search)
    gradient = return_gradient(policy, point.params, search)
    pairs = lanczos(product, torch.randn(len(gradient), generator=generator, dtype=torch.float64), LANCZOS_STEPS)
    directions = {"bottom": pairs.vectors[0], "top": pairs.vectors[-1]}
    directions |= {"gradient": gradient, "mean_update": updates.vectors.get("mean_update", 0 * gradient)}
    random = torch.randn(RANDOM_DIRECTIONS, len(gradient), generator=generator, dtype=torch.float64)
    directions |= {f"random-{k}": vector for k, vector in enumerate(random)}
    units = {name: vector / vector.norm() for name, vector in directions.items() if vector.norm() > 0}
    probes = _Probes(units, point.params, fresh, policy)
    _by_products(probes, measured)
    _by_differences(point, player, probes, measured)
    bottom = measured.quantities["curvature/bottom"]
    measured.add("curvature", sharpness(point, policy, product, fresh, bottom, generator))
    measured.quantities["curvature/top_share"] = _top_share(largest_magnitudes(pairs, TOP_SUBSPACE), second, point)
    fisher = fisher_product(policy, point.params, fresh)
    start = torch.randn(len(gradient), generator=generator, dtype=torch.float64)
    measured.quantities["curvature/fisher_max"] = Quantity(fisher_max(fisher, start))
    signs = random_signs(TRACE_PROBES, len(gradient), generator)
    measured.quantities["curvature/fisher_trace"] = fisher_trace(fisher, signs)


def _fewer(batches: Episodes) -> Rollout:
    """The batches that curvature is measured on; J is not discounted."""
    return _part(batches.rollout, slice(_enough(batches, CURVATURE_STEPS, 4)))


def _enough(batches: Episodes, wanted: int, least: int) -> int:
    """How many batches have so many steps."""
    steps = batches.rollout.valid.sum((0, 2)).cumsum(0)
    return max(least, min(BATCHES, 1 + int((steps < wanted).sum())))


def _part(rollout: Rollout, members: slice) -> Rollout:
    columns = (rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    return Rollout(rollout.obs[:, members], *(column[:, members] for column in columns))


def _top_share(largest: RitzPairs, batches: Episodes, point: Point) -> Quantity:
    """The share of the squared gradient in a subspace, by two gradients that depend neither on it nor on each other."""
    fewer = _fewer(batches)
    middle = fewer.valid.shape[1] // 2
    halves = []
    for members in (slice(middle), slice(middle, None)):
        half = _part(fewer, members)
        samples = episode_samples(batches.policy, half, step_weights(half))
        halves.append(return_gradient(batches.policy, point.params, samples))
    share = subspace_share(largest.vectors, *halves)
    chance = f"the gradient's halves disagree: not resolved (chance: {len(largest.values) / len(halves[0]):.2g})"
    return Quantity.missing(chance) if np.isnan(share) else Quantity(share)


def _by_products(probes: _Probes, measured: Measured) -> None:
    """v'Hv and v'g of each direction on fresh episodes."""
    up = 0
    at = log_probabilities(probes.policy, probes.params, probes.samples)
    for name, vector in probes.directions.items():
        derivatives = directional_derivatives(probes.policy, probes.params, probes.samples, vector, log_probs=at)
        looks = RANDOM_DIRECTIONS + 1 if name.startswith(("random", "gradient")) else 1
        curvature, slope = (mean_quantity(values.numpy(), looks) for values in derivatives)
        if not name.startswith("random"):
            measured.quantities[f"curvature/{name}"] = curvature
        else:
            up += curvature.low > 0
        measured.add_rows("curvature", [_curvature_row(name, "products", curvature, slope)])
    measured.quantities["curvature/random_up"] = Quantity(*wilson(up, RANDOM_DIRECTIONS), RANDOM_DIRECTIONS)


def _by_differences(point: Point, player: Player, probes: _Probes, measured: Measured) -> None:
    """The same of both ends by differences of returns, as far from the point as the return changes by 1 to 10 %."""
    obs_stats = obs_stats_of(point)
    scale = point.config.env.reward_scale

    def play(vector: Tensor, h: float) -> FloatArray:
        """Returns ``(3, E)`` of theta + h v, theta - h v and theta, as the learner sees rewards."""
        changes = h * torch.stack([vector, -vector, torch.zeros_like(vector)])
        return scale * player.play(moved(point.params, changes), DIFFERENCE_EPISODES, 0, obs_stats)

    for name in ("top", "bottom"):
        vector = probes.directions[name].float()

        def change(h: float, vector: Tensor = vector) -> float:
            plus, minus, center = play(vector, h).mean(1)
            return float(max(abs(plus - center), abs(minus - center)) / max(abs(center), 1e-12))

        h = choose_step(change, initial=0.5)
        quantity = Quantity.missing("no distance changes the return by 1 to 10 %")
        if h is not None:
            plus, minus, center = play(vector, h)
            quantity = curvature_by_differences(plus, minus, center, h)
        measured.quantities[f"curvature/{name}_differences"] = quantity
        measured.add_rows("curvature", [_curvature_row(name, "differences", quantity, Quantity.missing(""))])


def _curvature_row(direction: str, method: str, curvature: Quantity, slope: Quantity) -> Row:
    ends = {"low": curvature.low, "high": curvature.high}
    return {"direction": direction, "method": method, "value": curvature.value, **ends, "slope": slope.value}
