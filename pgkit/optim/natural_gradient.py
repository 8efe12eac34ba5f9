"""Natural policy gradient: a step along F^-1 g of a chosen KL divergence, computed by conjugate gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import ExtraArgs, Hyperparameter, Optimizer, Schedule, State, StepResult, per_leaf
from pgkit.optim.hyperparameters import (
    init_hyperparameters,
    members_and_device,
    next_hyperparameters,
    required_by,
)
from pgkit.optim.reductions import inner
from pgkit.optim.update import finish
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

    F is the Fisher matrix of the policy. With lr 1 the policy moves by a KL divergence of max_kl, to second order; the
    divergence grows with lr^2. ``update`` requires ``fisher_vector_product``, see :func:`fisher_vector_product`. A
    critic has no distribution and needs another optimizer. A trunk that both share counts as the policy's: its gradient
    is that of the whole loss, and damping charges the critic's share of the step to max_kl, so that the policy moves
    less.

    Source: Kakade 2001; step size as in Schulman et al. 2015 (arXiv 1502.05477), without the line search.
    """
    hyperparameters = {
        "lr": check("lr", lr, above=0.0),
        "max_kl": check("max_kl", max_kl, above=0.0),
        "damping": check("damping", damping, least=0.0),
        "cg_iterations": check("cg_iterations", cg_iterations, least=1.0),
    }
    if isinstance(cg_iterations, Schedule):
        raise PgkitError("cg_iterations of npg cannot have a schedule")
    max_iterations = int(max(numbers_of("cg_iterations", cg_iterations)))

    def init(params: Params) -> State:
        critics = [name for name in params if name.startswith("critic.")]
        if critics:
            raise PgkitError(
                f"npg is for the policy, not for {critics[0]!r}: set optimizer.critic.name, such as 'adam'"
            )
        members, device = members_and_device(params)
        return {
            **init_hyperparameters(hyperparameters, members, device),
            "member_state": {},
            "metrics": {"expected_kl": torch.zeros(members, dtype=torch.float64, device=device)},
            "leaf_state": {},
        }

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        if "fisher_vector_product" not in extra_args:
            raise PgkitError(
                "npg requires 'fisher_vector_product', a function of Params: "
                "call update(grads, state, params, fisher_vector_product=...)"
            )
        hyper = next_hyperparameters(hyperparameters, state, extra_args)

        def product(vector: Params) -> Params:
            fisher = extra_args["fisher_vector_product"](vector)
            return add_scaled(fisher, vector, hyper["damping"])

        target = {name: grads[name] for name in params}
        x = conjugate_gradients(product, target, hyper["cg_iterations"], max_iterations)
        curvature = inner(x, product(x)).double()
        length = torch.where(curvature > 0, hyper["lr"] * (2 * hyper["max_kl"] / curvature).sqrt(), 0.0)
        metrics = {"expected_kl": 0.5 * length * length * curvature}
        return finish(scale_tree(x, -length), state | {"hyperparameters": hyper, "metrics": metrics}, params, add)

    return Optimizer(init, step, requires=required_by(hyperparameters) | {"fisher_vector_product"})


def conjugate_gradients(
    product: Callable[[Params], Params],
    target: Params,
    iterations: Tensor,
    max_iterations: int,
    tolerance: float = 1e-12,
) -> Params:
    """Solve ``product(x) = target`` for every member at once.

    Args:
        product: a positive definite linear map for each member.
        target: leaves ``(P, ...)``.
        iterations: number of iterations of each member, ``(P,)``.
        max_iterations: the largest of them.
        tolerance: a member stops when the residual's squared norm is below this share of the target's.

    Returns:
        x, leaves ``(P, ...)``.

    Source: Hestenes and Stiefel 1952.
    """
    x = {name: torch.zeros_like(leaf) for name, leaf in target.items()}
    residual = target
    direction = target
    initial_square = inner(target, target).double()
    square = initial_square
    for iteration in range(max_iterations):
        image = product(direction)
        curvature = inner(direction, image).double()
        # Members that are done take steps of length 0: no branch, so that nothing waits for numbers of a GPU.
        active = (square > tolerance * initial_square) & (curvature > 0) & (iteration < iterations)
        length = torch.where(active, square / curvature, 0.0)
        x = add_scaled(x, direction, length)
        residual = add_scaled(residual, image, -length)
        next_square = inner(residual, residual).double()
        direction = add_scaled(residual, direction, torch.where(active, next_square / square, 0.0))
        square = next_square
    return x


def fisher_vector_product(kl: Callable[[Params], Tensor], params: Params) -> FisherVectorProduct:
    """Make ``v -> F v`` from a policy's KL divergence, whose second derivative at equal policies is F.

    For a categorical policy with logits ``(P, B, A)``::

        old = logits(params).detach().log_softmax(-1)

        def kl(params):
            new = logits(params).log_softmax(-1)
            return (old.exp() * (old - new)).sum(-1).mean(-1)

    Args:
        kl: ``kl(params) -> (P,)``, the mean over states of KL(old policy, policy of params), with the old policy fixed
            at ``params`` and detached. It must be twice differentiable, and members must not mix.
        params: where F is computed: all parameters, or those of the policy, leaves ``(P, ...)``.

    Returns:
        A function that takes any of the parameters by name. It holds a graph, which is freed with it.

    Source: Pearlmutter 1994; Martens 2010.
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


def add_scaled(first: Params, second: Params, factor: Tensor) -> Params:
    """Compute first + factor second, factor ``(P,)``."""
    return {name: leaf + second[name] * per_leaf(factor.to(leaf.dtype), leaf) for name, leaf in first.items()}


def scale_tree(tree: Params, factor: Tensor) -> Params:
    """Compute factor tree, factor ``(P,)``."""
    return {name: leaf * per_leaf(factor.to(leaf.dtype), leaf) for name, leaf in tree.items()}
