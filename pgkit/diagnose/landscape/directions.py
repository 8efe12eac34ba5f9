"""Directions in the space of a policy's parameters: where lines go and what planes are made of.

Vectors are flat, float64 ``(D,)``, of length 1, in the order of :func:`pgkit.diagnose.vectors.actor_names`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.config.schema import TrainConfig
from pgkit.diagnose.copies import copies_of, observed_update, start_acting
from pgkit.diagnose.curvature import episode_samples, return_hessian, step_weights
from pgkit.diagnose.episodes import play_batches
from pgkit.diagnose.lanczos import lanczos
from pgkit.diagnose.points import Point
from pgkit.diagnose.vectors import actor_names, flatten_params, networks_in, unflatten
from pgkit.types import Params, Rollout

COPIES = 64
"""M, copies of a point whose updates and gradients are averaged."""

SINGLE_UPDATES = 2
RANDOM_DIRECTIONS = 10

LANCZOS_STEPS = 16
BATCHES = 48
"""Batches of 16 episodes that curvature is searched on, or fewer where these are long."""

CURVATURE_STEPS = 33_000
"""As many batches are used as have so many steps, 8 at least."""

Directions = Mapping[str, Tensor]
"""Unit vectors ``(D,)`` by name."""


class UpdateDirections(NamedTuple):
    """What the run would do next.

    Attributes:
        vectors: ``mean_update``, ``gradient`` (uphill), ``update-1`` and ``update-2``; those of length 0 are missing.
        unit: median length of one update of the policy.
        without_schedule: whether the schedule of the learning rate has ended at 0, so that updates are those at the
            rate before any schedule.
        env_steps: environment steps that it took.
    """

    vectors: dict[str, Tensor]
    unit: float
    without_schedule: bool
    env_steps: float


def update_directions(point: Point, seed: int, copies: int = COPIES) -> UpdateDirections:
    """Measure the updates that M copies of a point make next, and the gradients of their batches.

    Args:
        point: where.
        seed: of the copies' random numbers.
        copies: M.
    """
    moved = _updates(point, seed, copies, None)
    without_schedule = not moved.unit > 0 and unscheduled(point.config) != point.config
    if without_schedule:
        moved = _updates(point, seed, copies, unscheduled(point.config))
    return moved._replace(without_schedule=without_schedule)


def unscheduled(config: TrainConfig) -> TrainConfig:
    """The configuration with constant hyperparameters, as they are before any schedule."""

    def plain(table: Any) -> Any:
        if not isinstance(table, Mapping):
            return table
        return {key: plain(value) for key, value in table.items() if key != "schedule"}

    return config.model_copy(update={"optimizer": plain(config.optimizer)})


def random_directions(params: Params, count: int, seed: int) -> dict[str, Tensor]:
    """Draw filter-normalised directions, ``random-1``, ``random-2``, ...: see :func:`filter_normalized`.

    Args:
        params: leaves ``(1, ...)``.
        count: how many.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    names = actor_names(params)
    drawn = (flatten_params(filter_normalized(params, generator), names)[0] for _ in range(count))
    return {f"random-{k}": unit_vector(vector) for k, vector in enumerate(drawn, 1)}


def filter_normalized(params: Params, generator: torch.Generator) -> Params:
    """Draw a normal direction in which each unit's incoming weights have the norm of the policy's; biases stay.

    Without it, a direction would move small weights as much as large ones (Li et al. 2018, arXiv 1712.09913, section
    4: "filter normalization").

    >>> params = {"actor.0.weight": torch.tensor([[[3.0, 0.0], [4.0, 1.0]]]), "actor.0.bias": torch.ones(1, 1, 2)}
    >>> direction = filter_normalized(params, torch.Generator().manual_seed(0))
    >>> direction["actor.0.weight"].norm(dim=1), direction["actor.0.bias"]
    (tensor([[5., 1.]], dtype=torch.float64), tensor([[[0., 0.]]], dtype=torch.float64))

    Args:
        params: leaves ``(1, ...)``: weights are ``(1, in, out)`` in pgkit's layers, ``(1, out, in, ...)`` in modules.
        generator: of the random numbers.

    Returns:
        float64 leaves ``(1, ...)`` of the policy, without the critic.
    """
    direction = {}
    for name in actor_names(params):
        leaf = params[name].double()
        axes = _incoming_axes(name, params)
        if axes is None:
            direction[name] = torch.zeros_like(leaf)
            continue
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf.device)
        norms = [torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (leaf, noise)]
        direction[name] = noise * (norms[0] / norms[1])
    return direction


def curvature_directions(point: Point, seed: int) -> tuple[dict[str, Tensor], float]:
    """Search the directions in which the return curves up and down most, ``top`` and ``bottom``.

    Lanczos iteration on the Hessian of J, as ``pgkit diagnose`` does at critical points. Noise bends them, too: how
    much the return curves along them must be measured on other episodes.

    Args:
        point: where.
        seed: of the episodes and of the first vector.

    Returns:
        The directions, and the environment steps that they took.
    """
    batches = play_batches(point, BATCHES, seed)
    few = _first_batches(batches.rollout)
    samples = episode_samples(batches.policy, few, step_weights(few))
    product = return_hessian(batches.policy, point.params, samples)
    size = flatten_params(point.params, actor_names(point.params)).shape[1]
    generator = torch.Generator().manual_seed(seed)
    pairs = lanczos(product, torch.randn(size, generator=generator, dtype=torch.float64), LANCZOS_STEPS)
    return {"bottom": pairs.vectors[0], "top": pairs.vectors[-1]}, float(batches.rollout.valid.sum())


def unit_vector(vector: Tensor) -> Tensor:
    """The vector with length 1.

    Raises:
        ValueError: its length is 0 or not finite.
    """
    length = vector.norm()
    if not (length > 0 and length.isfinite()):
        raise ValueError(f"expected a vector with a direction, got one of length {float(length)}")
    return vector / length


def stack(directions: Directions) -> Tensor:
    """The vectors ``(A, D)`` of all directions, in order."""
    return torch.stack(list(directions.values()))


def _updates(point: Point, seed: int, copies: int, config: TrainConfig | None) -> UpdateDirections:
    with copies_of(point, copies, seed, config) as population:
        before = float(population.env_steps.sum())
        start_acting(population, point)
        update = observed_update(population)
        env_steps = float(population.env_steps.sum()) - before
    changes = _policy_vectors(update.changes, point.params)
    candidates = {
        "mean_update": changes.mean(0),
        "gradient": -_policy_vectors(update.grads, point.params).mean(0),  # losses go down where returns go up
        **{f"update-{k + 1}": changes[k] for k in range(min(SINGLE_UPDATES, copies))},
    }
    vectors = {name: unit_vector(vector) for name, vector in candidates.items() if vector.norm() > 0}
    return UpdateDirections(vectors, float(changes.norm(dim=1).median()), False, env_steps)


def _policy_vectors(by_network: Mapping[str, Tensor], params: Params) -> Tensor:
    """Matrices ``(M, D)`` of each network as vectors of the policy alone, ``(M, D)`` float64."""
    leaves: dict[str, Tensor] = {}
    for network, names in networks_in(params).items():
        like = {name: params[name].double() for name in names}
        leaves |= unflatten(by_network[network].double(), like)
    return flatten_params(leaves, actor_names(params))


def _incoming_axes(name: str, params: Params) -> tuple[int, ...] | None:
    """The axes of a leaf along which one unit's incoming weights lie; None if it holds no such weights.

    pgkit's layers have biases ``(P, 1, out)`` and units on the last axis; modules have biases ``(P, out)``, or none,
    and units on the first.
    """
    leaf = params[name]
    if not name.endswith("weight") or leaf.dim() < 3:
        return None
    bias = params.get(f"{name.removesuffix('weight')}bias")
    if leaf.dim() == 3 and bias is not None and bias.dim() == 3:
        return (1,)
    return tuple(range(2, leaf.dim()))


def _first_batches(rollout: Rollout) -> Rollout:
    """The first batches that have :data:`CURVATURE_STEPS` steps."""
    steps = rollout.valid.sum((0, 2)).cumsum(0)
    count = max(8, 1 + int((steps < CURVATURE_STEPS).sum()))
    columns = (rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
    return Rollout(rollout.obs[:, :count], *(column[:, :count] for column in columns))
