"""Natural policy gradient: a step along F^-1 g whose length is a KL divergence, by conjugate gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import Hyperparameter, Optimizer, Schedule, State, per_leaf
from pgkit.optim.chain import first_hyper, needs_of, next_hyper, population
from pgkit.optim.reductions import inner
from pgkit.optim.validation import check, numbers_of
from pgkit.types import Params

FisherVectorProduct = Callable[[Params], Params]
"""``v -> F v``, each member with its own Fisher matrix."""


def npg(
    lr: Hyperparameter = 1.0,
    max_kl: Hyperparameter = 0.01,
    damping: Hyperparameter = 1e-3,
    cg_iterations: Hyperparameter = 10,
) -> Optimizer:
    """(F + damping) x = g by cg_iterations of conjugate gradients; p = p - lr sqrt(2 max_kl / x (F + damping) x) x.

    F is the Fisher matrix of the policy. With lr 1 the policy moves by a KL divergence of max_kl, to second order; it
    grows with lr^2. The training loop sends ``fisher_vector_product``, see :func:`fisher_vector_product`. For the
    policy only: a critic has no distribution and takes another recipe. A trunk that both share counts as the policy's:
    its gradient is that of the whole loss, and what the critic wants and the policy does not feel is paid out of max_kl
    by way of damping, so that the policy moves less.

    Source: Kakade 2001; step size as in Schulman et al. 2015 (arXiv 1502.05477), without the line search.
    """
    hyper = {
        "lr": check("lr", lr, above=0.0),
        "max_kl": check("max_kl", max_kl, above=0.0),
        "damping": check("damping", damping, least=0.0),
        "cg_iterations": check("cg_iterations", cg_iterations, least=1.0),
    }
    if isinstance(cg_iterations, Schedule):
        raise PgkitError("cg_iterations of npg cannot have a schedule")
    iterations = int(max(numbers_of("cg_iterations", cg_iterations)))

    def init(params: Params) -> State:
        critics = [name for name in params if name.startswith("critic.")]
        if critics:
            raise PgkitError(
                f"npg is for the policy, not for {critics[0]!r}: set optimizer.critic.name, such as 'adam'"
            )
        members, device = population(params)
        state = first_hyper(hyper, members, device)
        return state | {
            "vectors": {"expected_kl": torch.zeros(members, dtype=torch.float64, device=device)},
            "slots": {},
        }

    @torch.no_grad()
    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        if "fisher_vector_product" not in signals:
            raise PgkitError(
                "npg needs the signal 'fisher_vector_product': a function of Params, see pgkit.training.extra_args"
            )
        now = next_hyper(hyper, state, signals)

        def product(vector: Params) -> Params:
            fisher = signals["fisher_vector_product"](vector)
            return _add(fisher, vector, now["damping"])

        x = conjugate_gradients(product, {name: grads[name] for name in params}, now["cg_iterations"], iterations)
        curvature = inner(x, product(x)).double()
        length = torch.where(curvature > 0, now["lr"] * (2 * now["max_kl"] / curvature).sqrt(), 0.0)
        log = {"expected_kl": 0.5 * length * length * curvature}
        return _scale(x, -length), state | {"hyper": now, "vectors": log}

    return Optimizer(init, update, needs=needs_of(hyper) | {"fisher_vector_product"})


def conjugate_gradients(
    product: Callable[[Params], Params], target: Params, iterations: Tensor, most: int, tolerance: float = 1e-12
) -> Params:
    """Solve ``product(x) = target`` for every member at once (Hestenes and Stiefel 1952).

    Args:
        product: a positive definite linear map for each member.
        target: leaves ``(P, ...)``.
        iterations: how many each member makes, ``(P,)``.
        most: the largest of them.
        tolerance: a member stops when the residual's squared norm is below this share of the target's.
    """
    x = {name: torch.zeros_like(leaf) for name, leaf in target.items()}
    residual = direction = target
    square = first = inner(residual, residual).double()
    for done in range(most):
        image = product(direction)
        curvature = inner(direction, image).double()
        going = (square > tolerance * first) & (curvature > 0) & (done < iterations)
        length = torch.where(going, square / curvature, 0.0)
        x, residual = _add(x, direction, length), _add(residual, image, -length)
        square, before = inner(residual, residual).double(), square
        direction = _add(residual, direction, torch.where(going, square / before, 0.0))
    return x


def fisher_vector_product(kl: Callable[[Params], Tensor], params: Params) -> FisherVectorProduct:
    """``v -> F v`` from a policy's KL divergence: F is its second derivative where both policies are the same.

    For a categorical policy with logits ``(P, B, A)``::

        old = logits(params).detach().log_softmax(-1)

        def kl(params):
            new = logits(params).log_softmax(-1)
            return (old.exp() * (old - new)).sum(-1).mean(-1)

    Args:
        kl: ``kl(params) -> (P,)``, the mean over states of KL(old policy, policy of params), the old one fixed at
            ``params`` and detached. It must be twice differentiable, and members must not mix.
        params: where; all of them or those of the policy.

    Returns:
        A function of any of the parameters by name. The graph that it keeps is freed with it.
    """
    with torch.enable_grad():
        at = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
        divergence = kl(at).sum()
        slopes = torch.autograd.grad(divergence, list(at.values()), create_graph=True, materialize_grads=True)
        slope = dict(zip(at, slopes, strict=True))

    def product(vector: Params) -> Params:
        with torch.enable_grad():
            along = torch.stack([(slope[name] * leaf).sum() for name, leaf in vector.items()]).sum()
            leaves = [at[name] for name in vector]
            images = torch.autograd.grad(along, leaves, retain_graph=True, materialize_grads=True)
        return dict(zip(vector, images, strict=True))

    return product


def _add(first: Params, second: Params, factor: Tensor) -> Params:
    """first + factor second, factor ``(P,)``."""
    return {name: leaf + second[name] * per_leaf(factor.to(leaf.dtype), leaf) for name, leaf in first.items()}


def _scale(tree: Params, factor: Tensor) -> Params:
    return {name: leaf * per_leaf(factor.to(leaf.dtype), leaf) for name, leaf in tree.items()}
