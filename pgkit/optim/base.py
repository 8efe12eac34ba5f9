"""Optimizers as pure functions on stacked parameters, and the pieces that they are made of.

An :class:`Optimizer` acts on ``Params``. A :class:`Transform` is a piece of one; :func:`pgkit.optim.chain.chain`
joins transforms into an optimizer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.tree import take_tree
from pgkit.types import Params

State = Any
"""Plain dicts, lists and tensors with leading axis P (adapters may hold more, and convert it in ``dump``)."""

Vectors = dict[str, Tensor]
"""Numbers per member by name, float64 ``(P,)``."""

Columns = Mapping[str, Tensor]
"""Numbers per member as ``(P, 1, ...)`` of the parameters' dtype, ready to be multiplied with a leaf ``(P, ...)``."""

Signals = Mapping[str, Any]
"""What the training loop tells an optimizer beside the gradients: tensors ``(P,)`` such as ``progress``, or objects
with a method ``take(members)`` such as ``fisher_vector_product``."""

Number = float | Sequence[float] | Tensor
"""One number for all members, or one per member."""


@dataclass(frozen=True)
class Schedule:
    """A hyperparameter that moves.

    Attributes:
        start: its first value.
        settings: the numbers of the rule by name.
        rule: ``rule(current, numbers, signals) -> (P,)``; ``numbers`` are the settings and ``start``.
        needs: the signals that it reads.
    """

    start: Number
    settings: Mapping[str, Number]
    rule: Callable[[Tensor, Vectors, Signals], Tensor]
    needs: frozenset[str] = frozenset()


Hyperparameter = Number | Schedule
"""A hyperparameter: a number, one per member, or a schedule."""


class Leaf(NamedTuple):
    """What a step sees of one leaf beside its gradient.

    Attributes:
        param: the parameters ``(P, ...)``, read only.
        slots: tensors of the state by name, shaped alike; a step puts new ones in their place.
    """

    param: Tensor
    slots: dict[str, Tensor]


Step = Callable[[Tensor, Leaf, Columns], Tensor]
"""``step(grad, leaf, c) -> grad``."""


def _no_numbers(hyper: Vectors, vectors: Vectors, signals: Signals) -> Vectors:
    return {}


@dataclass(frozen=True)
class Transform:
    """One piece of an optimizer.

    Attributes:
        step: ``step(grad, leaf, c) -> grad`` for each leaf, written for one element, nothing in place: ``+ - * /``,
            comparisons, ``& | ~`` and functions such as ``torch.sqrt, where, clamp, lerp, addcmul, exp`` (all of
            them: ``pgkit.compiler.functions.FUNCTIONS``).
            On CPU the steps of a chain are compiled into one loop, see :mod:`pgkit.optim.codegen`; elsewhere they get
            tensors.
        numbers: ``numbers(hyper, vectors, signals) -> {name: (P,)}``, once per update, the same names each time: what
            ``step`` gets as columns. It may replace entries of ``vectors``; powers such as ``beta ** t`` are kept there
            as running products.
        survey: ``survey(grads) -> {name: (P,)}`` looks at the gradients that come in, all leaves together; ``numbers``
            finds the result among its signals.
        hyper: the hyperparameters that it brings.
        slots: the tensors like the parameters that it keeps, with their first value: a number, the name of one of the
            hyperparameters, or ``"param"`` for the parameters themselves.
        vectors: the numbers per member that it keeps, with their first value. They show in the diagnostics unless
            their name begins with ``_``; a reset of the step counter puts back those that begin with ``_step``.
        needs: the signals that it reads.
        elementwise: whether ``step`` is as said above. If not, it gets tensors everywhere, and may use all of torch
            that gives a member the same bits whatever its neighbours: correctly rounded operations, ``row_sum``.
    """

    step: Step
    numbers: Callable[[Vectors, Vectors, Signals], Vectors] = _no_numbers
    survey: Callable[[Params], Vectors] | None = None
    hyper: Mapping[str, Hyperparameter] = field(default_factory=dict)
    slots: Mapping[str, float | str] = field(default_factory=dict)
    vectors: Mapping[str, float] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    elementwise: bool = True


@dataclass(frozen=True)
class Optimizer:
    """Pure functions, as in optax.

    Attributes:
        init: ``init(params) -> state``.
        update: ``update(grads, state, params, **signals) -> (updates, state)``; the updates are to be added. It may
            write into the gradients and the state that it is given, never into the parameters.
        take: ``take(state, members) -> state`` of those members (int64 ``(M,)``), in that order.
        dump: ``dump(state)``: plain data and tensors for a checkpoint.
        load: ``load(data, params) -> state``, its inverse.
        transforms: what :func:`~pgkit.optim.chain.chain` made it of; empty for others.
        parts: optimizers that it is made of: of each kind of members, or of each group of parameters.
        needs: the signals without which ``update`` fails, such as ``"progress"``.
        move: ``move(grads, state, params, **signals) -> (params, largest, state)``, a faster way to do what
            :func:`pgkit.optim.update.move` does.
    """

    init: Callable[[Params], State]
    update: Callable[..., tuple[Params, State]]
    take: Callable[[State, Tensor], State] = take_tree
    dump: Callable[[State], Any] = lambda state: state
    load: Callable[[Any, Params], State] = lambda data, params: data
    transforms: tuple[Transform, ...] = ()
    parts: tuple["Optimizer", ...] = ()
    needs: frozenset[str] = frozenset()
    move: Callable[..., tuple[Params, Tensor, State]] | None = None


def freeze(moved: Params, params: Params, alive: Tensor) -> Params:
    """``moved``, in its own buffers, where ``alive`` ``(P,)``; ``params`` for the other members."""
    if alive.is_cpu and alive.all():
        return moved  # on a GPU, looking costs more than selecting
    with torch.no_grad():
        for name, param in params.items():
            torch.where(per_leaf(alive, param), moved[name], param, out=moved[name])
    return moved


def own(grads: Params, params: Params) -> Params:
    """The gradients in the order of the parameters; those that cannot be written into safely are copied.

    Autograd may return one tensor for two parameters, or an expanded one; a caller may pass the parameters themselves.

    Raises:
        PgkitError: names, shapes or dtypes are not those of the parameters.
    """
    if grads.keys() != params.keys():
        raise PgkitError(f"gradients are of {sorted(grads)}, parameters are {sorted(params)}")
    taken = {param.data_ptr() for param in params.values()}
    owned = {}
    for name, param in params.items():
        grad = grads[name]
        if grad.dtype != param.dtype or grad.shape != param.shape:
            given, needed = f"{grad.dtype} {tuple(grad.shape)}", f"{param.dtype} {tuple(param.shape)}"
            raise PgkitError(f"the gradient of {name} is {given}, the parameter {needed}")
        place = grad.data_ptr()
        if place in taken or not grad.is_contiguous():
            grad = grad.clone(memory_format=torch.contiguous_format)
        taken.add(place)
        owned[name] = grad.detach() if grad.requires_grad else grad
    return owned


def per_leaf(vector: Tensor, leaf: Tensor) -> Tensor:
    """``(P,)`` as ``(P, 1, ...)`` with as many dimensions as ``leaf``."""
    return vector.view(-1, *[1] * (leaf.dim() - 1))


def per_member(name: str, value: Number, members: int, device: torch.device) -> Tensor:
    """One number, or one per member, as float64 ``(P,)``."""
    vector = torch.as_tensor(value, dtype=torch.float64, device=device)
    if vector.dim() > 1 or vector.numel() not in (1, members):
        raise PgkitError(f"{name} has {vector.numel()} values for {members} members; give one, or one per member")
    return vector.expand(members).clone()


def signal(name: str, signals: Signals, like: Tensor) -> Tensor:
    """The signal ``name`` as numbers ``(P,)`` like ``like``.

    Raises:
        PgkitError: the training loop did not send it, or its shape is wrong.
    """
    if name not in signals:
        raise PgkitError(f"the optimizer needs the signal {name!r}: update(grads, state, params, {name}=...)")
    value = signals[name]
    if not isinstance(value, Tensor) or value.shape != like.shape:
        raise PgkitError(f"the signal {name!r} must be a tensor of shape {tuple(like.shape)}, got {value!r}")
    return value.to(like)
