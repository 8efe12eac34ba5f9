"""Trust regions: steps that end where a measured KL divergence of the policy says, found by a line search.

Both optimizers call ``trial``, an extra argument of ``update``, with parameters where a step might end::

    def trial(moved: Params) -> tuple[Tensor, Tensor]:
        "By how much the surrogate would rise, and KL(old || new), (P,) each, if these parameters were those."

The surrogate is the mean of pi_new(a | s) / pi_old(a | s) times the advantage over the samples of the step, without
entropy bonus and value loss; pi_old is the policy before the step.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import ExtraArgs, Hyperparameter, Optimizer, Schedule, State, StepResult
from pgkit.optim.hyperparameters import next_hyperparameters, required_by
from pgkit.optim.natural_gradient import add_scaled, conjugate_gradients, scale_tree
from pgkit.optim.reductions import inner
from pgkit.optim.update import finish
from pgkit.optim.validation import check, flag, numbers_of
from pgkit.optim.wrapper import init_state, wrap
from pgkit.types import Params

Trial = Callable[[Params], tuple[Tensor, Tensor]]
"""See above; it holds the parameters that it is not called with where they were."""

FISHER = "fisher_vector_product"
TRIAL = "trial"
"""Names of extra arguments."""

METRICS = ("step_scale", "step_kl")
"""How much of a step was made, and its divergence."""

ROUNDING = 1e-6
"""The share by which a measured divergence may exceed its limit: so much of it is rounding."""

SHRINKING_FACTOR = 0.8
"""Of ``kl_limit``'s line search, as in OpenAI's Spinning Up."""

MAX_TRIALS = 10
"""Of ``kl_limit``'s line search, likewise."""


def trpo(
    lr: Hyperparameter = 1.0,
    target_kl: Hyperparameter = 0.01,
    cg_max_steps: Hyperparameter = 15,
    cg_damping: Hyperparameter = 0.1,
    line_search_shrinking_factor: Hyperparameter = 0.8,
    line_search_max_iter: Hyperparameter = 10,
) -> Optimizer:
    """(F + cg_damping) x = g by conjugate gradients; u = -lr sqrt(2 target_kl / x (F + cg_damping) x) x; p = p + a^j u,
    j the first of 0, 1, ... for which the surrogate rises and KL(old, new) <= target_kl.

    F is the Fisher matrix of the policy, a the line_search_shrinking_factor; after line_search_max_iter trials the
    member does not move.
    ``update`` requires ``fisher_vector_product`` and ``trial``, see :mod:`pgkit.optim.trust_region`. A critic has no
    distribution and needs another optimizer, as with npg.

    Source: Schulman et al. 2015 (arXiv 1502.05477); names and defaults of sb3_contrib.TRPO.
    """
    hyperparameters = {
        "lr": check("lr", lr, above=0.0),
        "target_kl": check("target_kl", target_kl, above=0.0),
        "cg_max_steps": check("cg_max_steps", cg_max_steps, least=1.0),
        "cg_damping": check("cg_damping", cg_damping, least=0.0),
        "line_search_shrinking_factor": check(
            "line_search_shrinking_factor", line_search_shrinking_factor, above=0.0, below=1.0
        ),
        "line_search_max_iter": check("line_search_max_iter", line_search_max_iter, least=1.0),
    }
    most_steps = _most("cg_max_steps", cg_max_steps)
    most_trials = _most("line_search_max_iter", line_search_max_iter)

    def init(params: Params) -> State:
        critics = [name for name in params if name.startswith("critic.")]
        if critics:
            raise PgkitError(
                f"trpo is for the policy, not for {critics[0]!r}: set optimizer.critic.name, such as 'adam'"
            )
        return init_state(hyperparameters, params, metrics=METRICS)

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        fisher, trial = _required("trpo", extra_args)
        hyper = next_hyperparameters(hyperparameters, state, extra_args)

        def product(vector: Params) -> Params:
            return add_scaled(fisher(vector), vector, hyper["cg_damping"])

        target = {name: grads[name] for name in params}
        x = conjugate_gradients(product, target, hyper["cg_max_steps"], most_steps)
        curvature = inner(x, product(x)).double()
        length = torch.where(curvature > 0, hyper["lr"] * (2 * hyper["target_kl"] / curvature).sqrt(), 0.0)
        search = LineSearch(hyper["line_search_shrinking_factor"], hyper["line_search_max_iter"], most_trials)
        ended = search.run(trial, params, scale_tree(x, -length), hyper["target_kl"], must_rise=True)
        return finish(ended.updates, state | {"hyperparameters": hyper, "metrics": ended.metrics}, params, add)

    requires = required_by(hyperparameters) | {FISHER, TRIAL}
    return Optimizer(init, step, requires=requires)


def limit_kl(optimizer: Optimizer, kl_limit: Hyperparameter, kl_backtracking: bool = True) -> Optimizer:
    """u = s u for the policy's parameters, s = min(1, sqrt(2 kl_limit / u F u)); with kl_backtracking then 0.8 s again
    and again, up to ten trials, until KL(old, new) <= kl_limit; else 0.

    u is the update of any optimizer, F the Fisher matrix of the policy, whose parameters are those of the actor and of
    a shared trunk; those of the critic make the whole step. The optimizer does not learn of s: its moments are those of
    its own steps. Trials measure the divergence only: that the surrogate rises, too, is asked of the steps of ``trpo``,
    not of those with momentum. Without trials F alone decides, which is of second order: long steps go farther.
    ``update`` requires ``fisher_vector_product``, and for backtracking ``trial``.

    >>> import torch
    >>> from pgkit.optim import make
    >>> optimizer = make("sgd", lr=1.0, kl_limit=0.005)
    >>> params = {"actor.0.weight": torch.zeros(1, 2)}
    >>> def trial(moved):  # KL of two Gaussians of variance 1
    ...     return torch.zeros(1), moved["actor.0.weight"].square().sum(1) / 2
    >>> extra = {"fisher_vector_product": lambda vector: vector, "trial": trial}
    >>> optimizer.update({"actor.0.weight": torch.tensor([[3.0, 4.0]])}, optimizer.init(params), params, **extra)[0]
    {'actor.0.weight': tensor([[-0.0600, -0.0800]])}

    Source: Schulman et al. 2015 (arXiv 1502.05477), Wu et al. 2017 (arXiv 1708.05144); the search of OpenAI's Spinning
    Up.

    Raises:
        PgkitError: the limit is not above 0.
    """
    hyperparameters = {"kl_limit": check("kl_limit", kl_limit, above=0.0)}
    required = (FISHER, TRIAL) if flag("kl_backtracking", kl_backtracking) else (FISHER,)

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        inner_state, limit_state = state
        updates, _, inner_state = optimizer.step(grads, inner_state, params, extra_args, False)
        fisher, *trial = _required("kl_limit", extra_args, required)
        hyper = next_hyperparameters(hyperparameters, limit_state, extra_args)
        of_policy = {name: updates[name] for name in params if not name.startswith("critic.")}
        curvature = inner(of_policy, fisher(of_policy)).double()
        ratio = 2 * hyper["kl_limit"] / curvature
        first = torch.where(curvature > 0, ratio.sqrt().clamp(max=1.0), 1.0)
        if kl_backtracking:
            factor, trials = (torch.full_like(first, number) for number in (SHRINKING_FACTOR, MAX_TRIALS))
            search = LineSearch(factor, trials, MAX_TRIALS)
            ended = search.run(trial[0], params, of_policy, hyper["kl_limit"], first)
        else:
            predicted = first * first * curvature / 2
            ended = Ended(scale_tree(of_policy, first), {"step_scale": first, "step_kl": predicted})
        limit_state = limit_state | {"hyperparameters": hyper, "metrics": ended.metrics}
        updates = {name: ended.updates.get(name, updates[name]) for name in params}
        return finish(updates, [inner_state, limit_state], params, add)

    return wrap(
        optimizer,
        lambda params: init_state(hyperparameters, params, metrics=METRICS),
        step,
        required_by(hyperparameters) | frozenset(required),
    )


class Ended(NamedTuple):
    """Where a line search has ended.

    Attributes:
        updates: of each member, leaves ``(P, ...)``; 0 if no trial was accepted.
        metrics: ``step_scale``, the factor of the first update, and ``step_kl``, the divergence there, ``(P,)`` each.
    """

    updates: Params
    metrics: dict[str, Tensor]


class LineSearch(NamedTuple):
    """A search along an update, of each member by itself.

    Attributes:
        shrinking_factor: of the next trial, ``(P,)``.
        max_iter: trials of each member, ``(P,)``.
        most: the largest of them.
    """

    shrinking_factor: Tensor
    max_iter: Tensor
    most: int

    def run(
        self,
        trial: Trial,
        params: Params,
        updates: Params,
        limit: Tensor,
        first: Tensor | None = None,
        must_rise: bool = False,
    ) -> Ended:
        """Find the first accepted step of each member.

        Args:
            trial: measures where a step would end.
            params: before the step, leaves ``(P, ...)``.
            updates: the longest step, of some of the parameters by name.
            limit: of the KL divergence, ``(P,)``.
            first: the factor of the first trial, ``(P,)``; by default 1.
            must_rise: whether a step is accepted only if the surrogate rises.
        """
        scale = torch.ones_like(limit) if first is None else first
        accepted = torch.zeros_like(limit, dtype=torch.bool)
        taken = torch.zeros_like(limit)
        divergence = torch.zeros_like(limit)
        for count in range(self.most):
            step = scale_tree(updates, scale)
            gain, kl = trial({name: params[name] + leaf for name, leaf in step.items()})
            fits = kl.double() <= limit * (1 + ROUNDING)
            if must_rise:
                fits &= gain > 0
            fits &= ~accepted & (count < self.max_iter)
            taken = torch.where(fits, scale, taken)
            divergence = torch.where(fits, kl.double(), divergence)
            accepted = accepted | fits
            if accepted.is_cpu and accepted.all():  # on a GPU, looking costs more than trials that change nothing
                break
            scale = scale * self.shrinking_factor
        return Ended(scale_tree(updates, taken), {"step_scale": taken, "step_kl": divergence})


def _required(name: str, extra_args: ExtraArgs, arguments: Sequence[str] = (FISHER, TRIAL)) -> list[Any]:
    """The functions that a step needs, from its extra arguments."""
    for argument in arguments:
        if argument not in extra_args:
            raise PgkitError(
                f"{name} requires {argument!r}, a function of Params: call update(grads, state, params, {argument}=...)"
            )
    return [extra_args[argument] for argument in arguments]


def _most(name: str, value: Hyperparameter) -> int:
    """The largest of some counts."""
    if isinstance(value, Schedule):
        raise PgkitError(f"{name} of trpo cannot have a schedule")
    return int(max(numbers_of(name, value)))
