"""What goes around any optimizer: clipping before it, caution, lookahead, TRAC and limits behind it."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from pgkit.errors import PgkitError
from pgkit.optim import cautious as cautious_steps
from pgkit.optim import projection, transforms, trust_region
from pgkit.optim import trac as trac_steps
from pgkit.optim.base import Optimizer, Schedule, Transform
from pgkit.optim.chain import chain
from pgkit.optim.validation import flag, numbers_of


def around(
    optimizer: Optimizer,
    max_grad_norm: Any = None,
    max_layer_norm: Any = None,
    max_grad_value: Any = None,
    centralize: bool = False,
    reset_moments: Any = None,
    reset_step: Any = None,
    cautious: bool = False,
    lookahead_steps: Any = None,
    lookahead_alpha: Any = 0.5,
    trac: bool = False,
    trac_s_prev: Any = 1e-8,
    kl_limit: Any = None,
    kl_backtracking: bool = True,
    normalize_and_project: Any = None,
) -> Optimizer:
    """Put around ``optimizer`` what every optimizer can have before and behind it; None leaves a part out.

    Args:
        optimizer: any; resets are for chains only.
        max_grad_norm: clip the joint norm of a member's gradients.
        max_layer_norm: clip the norm of each leaf of a member by itself.
        max_grad_value: clip every element.
        centralize: subtract from the gradients of weights their mean over inputs.
        reset_moments: forget all state after so many updates, or ``"rollout"``: at the first update of each rollout.
        reset_step: forget the number of steps in bias corrections, likewise.
        cautious: move no parameter against its own gradient, and the others farther instead.
        lookahead_steps: pull the parameters to slow weights after so many updates.
        lookahead_alpha: how far the slow weights move then, from 0 to 1.
        trac: learn how far to follow the optimizer away from the first parameters.
        trac_s_prev: the scale at which that begins.
        kl_limit: shorten the step until the KL divergence of the policy over it is at most this, in nats.
        kl_backtracking: measure the divergence of that step, and shorten it further while it is too large.
        normalize_and_project: scale weights that a layer norm follows to their first length after so many updates.

    Raises:
        PgkitError: a value out of range, or a setting of a part that is left out.
    """
    if reset_moments is not None:
        optimizer = transforms.restart(optimizer, "moments", reset_moments)
    if reset_step is not None:
        optimizer = transforms.restart(optimizer, "step", reset_step)
    if flag("cautious", cautious):
        optimizer = cautious_steps.cautious(optimizer)
    if lookahead_steps is not None:
        optimizer = chain(optimizer, transforms.lookahead(lookahead_steps, lookahead_alpha))
    elif not _is_default("lookahead_alpha", lookahead_alpha):
        raise PgkitError("lookahead_alpha is for lookahead, which lookahead_steps turns on")
    if flag("trac", trac):
        _check_not_averaged("trac", optimizer)
        optimizer = trac_steps.trac(optimizer, trac_s_prev)
    elif not _is_default("trac_s_prev", trac_s_prev):
        raise PgkitError("trac_s_prev is for TRAC, which trac = true turns on")
    front = _clipping(max_grad_value, max_layer_norm, max_grad_norm)
    front += [transforms.centralize()] if flag("centralize", centralize) else []
    whole = chain(*front, optimizer) if front else optimizer
    return around_all(whole, kl_limit, kl_backtracking, normalize_and_project)


def _clipping(max_grad_value: Any, max_layer_norm: Any, max_grad_norm: Any) -> list[Transform]:
    """The transforms that clip, in their order."""
    pairs = (
        (transforms.clip_by_value, max_grad_value),
        (transforms.clip_by_layer_norm, max_layer_norm),
        (transforms.clip_by_global_norm, max_grad_norm),
    )
    return [make_transform(value) for make_transform, value in pairs if value is not None]


def around_all(
    optimizer: Optimizer, kl_limit: Any = None, kl_backtracking: bool = True, normalize_and_project: Any = None
) -> Optimizer:
    """Put around ``optimizer`` those parts of :func:`around` that act on all groups of parameters together.

    Raises:
        PgkitError: see there.
    """
    if kl_limit is not None:
        _check_not_averaged("kl_limit", optimizer)
        optimizer = trust_region.limit_kl(optimizer, kl_limit, kl_backtracking)
    elif not flag("kl_backtracking", kl_backtracking):
        raise PgkitError("kl_backtracking is for steps that kl_limit limits")
    if normalize_and_project is not None:
        _check_not_averaged("normalize_and_project", optimizer)
        optimizer = projection.normalize_and_project(optimizer, normalize_and_project)
    return optimizer


def _check_not_averaged(key: str, optimizer: Optimizer) -> None:
    """Refuse what moves parameters behind the back of an optimizer that averages them."""
    if optimizer.eval_params is not None:
        raise PgkitError(f"{key} cannot be around an optimizer that averages its parameters, such as schedule_free_sgd")


def _defaults(function: Callable[..., Optimizer]) -> dict[str, Any]:
    """The keyword arguments of a function with their defaults; its first argument is the optimizer."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def describe_around() -> dict[str, str]:
    """Return what each keyword argument of :func:`around` does, by name, from its docstring.

    >>> from pgkit.optim.around import describe_around
    >>> describe_around()["max_grad_value"]
    'clip every element.'
    """
    texts = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(around) or "", re.MULTILINE)
    return {key: " ".join(text.split()) for key, text in texts if key in AROUND}


def _is_default(key: str, value: Any) -> bool:
    return not isinstance(value, Schedule) and set(numbers_of(key, value)) == {AROUND[key]}


AROUND: Mapping[str, Any] = _defaults(around)
"""The keyword arguments of :func:`around` with their defaults."""

AROUND_ALL: Mapping[str, Any] = _defaults(around_all)
"""Those of :func:`around_all`."""

SCHEDULED = ("max_grad_norm", "max_layer_norm", "max_grad_value", "lookahead_alpha", "kl_limit")
"""Those of :func:`around` that may have a schedule, beside hyperparameters."""

PARTS: Mapping[str, Callable[..., Any]] = {
    "max_grad_norm": transforms.clip_by_global_norm,
    "max_layer_norm": transforms.clip_by_layer_norm,
    "max_grad_value": transforms.clip_by_value,
    "centralize": transforms.centralize,
    "reset_moments": transforms.restart,
    "reset_step": transforms.restart,
    "cautious": cautious_steps.cautious,
    "lookahead_steps": transforms.lookahead,
    "trac": trac_steps.trac,
    "kl_limit": trust_region.limit_kl,
    "normalize_and_project": projection.normalize_and_project,
}
"""What :func:`around` puts around an optimizer, by the key that turns it on."""


DETAILS: Mapping[str, str] = {
    "lookahead_alpha": "lookahead_steps",
    "trac_s_prev": "trac",
    "kl_backtracking": "kl_limit",
}
"""Keys of :func:`around` that mean nothing unless another one, a key of ``PARTS``, turns a part on."""
