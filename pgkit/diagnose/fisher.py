"""The Fisher matrix of a policy, ``F = E s s'`` per step: how far parameters move the actions' probabilities.

E runs over states of the samples, each with all its actions in closed form (not those that were sampled), so F is
exact for these states. ``d'Fd / 2`` is the divergence of an update d to second order. Vectors are flat, ``(D,)``, in
the order of :func:`pgkit.diagnose.vectors.actor_names`.
"""

import torch
from torch import Tensor

from pgkit.diagnose.curvature import EpisodeSamples
from pgkit.diagnose.evidence import mean_quantity
from pgkit.diagnose.lanczos import Product, lanczos
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.vectors import actor_names, flatten_params, unflatten
from pgkit.nn.policy import Policy
from pgkit.training.extra_args import Fisher
from pgkit.types import Batch, Params

STATES = 2048
"""How many states F is averaged over."""

LANCZOS_STEPS = 10
"""Enough for the largest eigenvalue of a matrix without negative ones, to about 2 %."""


def fisher_product(policy: Policy, params: Params, samples: EpisodeSamples, states: int = STATES) -> Product:
    """Make ``v -> F v`` over states of some episodes, by :class:`pgkit.training.extra_args.Fisher`.

    Args:
        policy: what the parameters mean.
        params: leaves ``(1, ...)`` of one member.
        samples: its episodes; weights do not matter.
        states: at least so many steps, evenly spaced, if there are more than twice as many; a recurrent policy takes
            all. A graph over them stays in memory.
    """
    dtype = samples.batch.obs.dtype
    actor = {name: params[name].detach().to(dtype) for name in actor_names(params)}
    stride = 1 if policy.memory else max(1, len(samples.index) // states)
    batch = Batch.of_columns({name: column[:, ::stride] for name, column in samples.batch.columns.items()})
    product = Fisher(policy, actor, [(None, batch)])
    return lambda vector: flatten_params(product(unflatten(vector.unsqueeze(0), actor)))[0]


def fisher_max(product: Product, start: Tensor, steps: int = LANCZOS_STEPS) -> float:
    """The largest eigenvalue of F, by Lanczos iteration from below.

    >>> diagonal = torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)
    >>> round(fisher_max(lambda v: diagonal * v, torch.ones(3)), 6)
    4.0

    Args:
        product: ``v -> F v``.
        start: ``(D,)``, random.
        steps: products.
    """
    return float(lanczos(product, start, steps).values[-1])


def fisher_trace(product: Product, probes: Tensor) -> Quantity:
    """Estimate the trace of F by Hutchinson's estimator, the mean of ``z'Fz``, with a t interval over probes.

    The trace is the mean squared norm of the score: 0 for a policy that cannot move any more. The interval is that of
    the probes, not of the states.

    Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix".

    >>> diagonal = torch.tensor([1.0, 4.0], dtype=torch.float64)
    >>> fisher_trace(lambda v: diagonal * v, torch.tensor([[1.0, 1.0], [1.0, -1.0]])).value  # exact for a diagonal
    5.0

    Args:
        product: ``v -> F v``.
        probes: ``(K, D)``, of independent random signs, see :func:`random_signs`.
    """
    values = [float(probe.double() @ product(probe.double())) for probe in probes]
    return mean_quantity(values)


def random_signs(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``(count, size)`` independent signs, float64.

    >>> random_signs(2, 3, torch.Generator().manual_seed(0)).abs().sum()
    tensor(6., dtype=torch.float64)
    """
    return 2.0 * torch.randint(2, (count, size), generator=generator).double() - 1.0


def predicted_kl(product: Product, update: Tensor) -> float:
    """The divergence of an update to second order, ``d'Fd / 2``, in nats per step.

    Where the measured KL is far from it, the update has left the region in which the policy is nearly linear.

    >>> predicted_kl(lambda v: 4.0 * v, torch.tensor([0.5]))
    0.5
    """
    return 0.5 * float(update.double() @ product(update.double()))
