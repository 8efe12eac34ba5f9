"""What an optimizer is: pure functions on stacked parameters, and the transforms that they are made of.

An :class:`Optimizer` acts on ``Params``. A :class:`Transform` is one piece of it; :func:`pgkit.optim.chain.chain` joins
transforms into an optimizer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.tree import map_tree, take_tree, where_tree
from pgkit.types import Params

State = Any
"""Plain dicts, lists and tensors with leading axis P (adapters may hold more, and convert it in ``dump``)."""

MemberValues = dict[str, Tensor]
"""One number per member by name, float64 ``(P,)``."""

Scalars = Mapping[str, Tensor]
"""One number per member by name, ``(P, 1, ...)`` of the parameters' dtype, to broadcast against leaves ``(P, ...)``."""

ExtraArgs = Mapping[str, Any]
"""What ``update`` gets beside the gradients: tensors ``(P,)`` such as ``progress``, or objects with a method
``take(members)`` such as ``fisher_vector_product``."""

Number = float | Sequence[float] | Tensor
"""One number for all members, or one per member ``(P,)``."""


@dataclass(frozen=True)
class Schedule:
    """A hyperparameter that changes during training.

    Attributes:
        start: first value.
        settings: the numbers of the rule by name.
        rule: ``rule(current, numbers, extra_args) -> (P,)``; ``numbers`` are the settings and ``start``, ``(P,)`` each.
        requires: names of the extra arguments that the rule reads.
    """

    start: Number
    settings: Mapping[str, Number]
    rule: Callable[[Tensor, MemberValues, ExtraArgs], Tensor]
    requires: frozenset[str] = frozenset()


Hyperparameter = Number | Schedule
"""A number, one number per member, or a schedule."""


class Leaf(NamedTuple):
    """What a step sees of one leaf beside its gradient.

    Attributes:
        param: the parameters ``(P, ...)``, read-only.
        state: state tensors by name, shaped like ``param`` or as :attr:`Transform.leaf_state` says; a step replaces
            entries, it never writes into tensors.
    """

    param: Tensor
    state: dict[str, Tensor]


Step = Callable[[Tensor, Leaf, Scalars], Tensor]
"""``step(grad, leaf, scalars) -> grad``."""

LeafInit = float | str | Callable[[Tensor], Tensor | None]
"""The initial value of a leaf state, see :attr:`Transform.leaf_state`."""


def _no_scalars(hyper: MemberValues, member: MemberValues, extra_args: ExtraArgs) -> MemberValues:
    return {}


@dataclass(frozen=True)
class Transform:
    """One piece of an optimizer: gradient in, gradient out.

    >>> import torch
    >>> from pgkit.optim import Transform, chain
    >>> def step(grad, leaf, scalars):
    ...     return scalars["rate"] * grad
    >>> def precompute(hyper, member, extra_args):
    ...     return {"rate": -hyper["lr"]}
    >>> sgd = chain(Transform(step, precompute, hyperparameters={"lr": 0.5}))
    >>> params = {"w": torch.ones(2, 3)}
    >>> sgd.update({"w": torch.ones(2, 3)}, sgd.init(params), params)[0]["w"][0]
    tensor([-0.5000, -0.5000, -0.5000])

    Attributes:
        step: ``step(grad, leaf, scalars) -> grad`` for each leaf, written for one element, nothing in place:
            ``+ - * /``, comparisons, ``& | ~`` and functions such as ``torch.sqrt, where, clamp, lerp, addcmul, exp``
            (all of them: ``pgkit.compiler.functions.FUNCTIONS``). On CPU the steps of a chain are compiled into one
            loop, see :mod:`pgkit.optim.codegen`; elsewhere they get tensors.
        precompute: ``precompute(hyper, member, extra_args) -> {name: (P,)}``, once per update, with the same names each
            time: the numbers that ``step`` gets as ``scalars``. ``hyper`` holds the present hyperparameters,
            ``member`` the entries of ``member_state`` and ``metrics``, which the function may replace. Powers such as
            ``beta ** t`` are kept there as running products.
        reduce: ``reduce(grads) -> {name: (P,)}`` over all leaves of the incoming gradients, such as their norm;
            ``precompute`` gets the result among ``extra_args``.
        hyperparameters: by name.
        leaf_state: state tensors shaped like the parameters, with their initial value: a number, the name of a
            hyperparameter, or ``"param"`` for the parameters themselves. Steps that are not element-wise may have
            states of any shape ``(P, ...)``: the initial value is a function of the parameter, which gives None where
            the leaf has no such state.
        member_state: state of one number per member, with its initial value.
        metrics: like ``member_state``, and shown by :func:`~pgkit.optim.diagnostics.diagnostics`.
        step_counters: the entries of ``member_state`` that count steps; ``reset_step`` resets these.
        requires: names of the extra arguments that ``precompute`` reads.
        elementwise: whether ``step`` is written for one element. If not, it gets tensors everywhere, and may use all of
            torch that gives a member the same bits whatever its neighbours: correctly rounded operations, ``row_sum``.
        roles: the roles of the leaves that ``step`` and ``leaf_state`` are for, see :mod:`pgkit.optim.roles`; by
            default all. Other leaves pass unchanged.
        eval_param: ``eval_param(leaf, scalars) -> tensor`` for optimizers that are judged at another point than the one
            at which they act and take gradients: what to evaluate in place of ``leaf.param``, written for one element
            as ``step`` is. ``leaf`` has the transform's own state that is shaped like the leaf, ``scalars`` its
            hyperparameters. Such a transform is the last of its chain, because it keeps account of what the parameters
            become.
    """

    step: Step
    precompute: Callable[[MemberValues, MemberValues, ExtraArgs], MemberValues] = _no_scalars
    reduce: Callable[[Params], MemberValues] | None = None
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    leaf_state: Mapping[str, LeafInit] = field(default_factory=dict)
    member_state: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    step_counters: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    elementwise: bool = True
    roles: frozenset[str] | None = None
    eval_param: Callable[[Leaf, Scalars], Tensor] | None = None

    def applies_to(self, role: str) -> bool:
        """Whether the transform is for leaves of this role."""
        return self.roles is None or role in self.roles


class StepResult(NamedTuple):
    """What one step of an optimizer returns.

    Attributes:
        leaves: the updates; or, if the step was asked to add them, the new parameters.
        largest: the largest magnitude in each leaf of the new parameters, ``(L, P)``, where NaN counts as largest;
            None if nothing was added.
        state: the next state.
    """

    leaves: Params
    largest: Tensor | None
    state: State


@dataclass(frozen=True)
class Optimizer:
    """A pair of pure functions, ``init`` and ``update``, as in optax.

    >>> import torch
    >>> from pgkit.optim import apply_updates, make
    >>> params = {"w": torch.ones(2, 3)}
    >>> optimizer = make("sgd", lr=[0.5, 0.25])
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update({"w": torch.ones(2, 3)}, state, params)
    >>> apply_updates(params, updates)["w"][:, 0]
    tensor([0.5000, 0.7500])

    Attributes:
        init: ``init(params) -> state``.
        step: ``step(grads, state, params, extra_args, add) -> StepResult``, the one definition behind :meth:`update`
            and :meth:`apply`. It may overwrite gradients and state, never the parameters; with ``add`` it adds the
            updates to the parameters. A step that cannot do so in its own loop ends with
            :func:`pgkit.optim.update.finish`.
        take: ``take(state, members) -> state``, a copy for those members (int64 ``(M,)``), in that order.
        copy: ``copy(state) -> state``, which may be given back after a step has overwritten the first one.
        where: ``where(condition, state, other) -> state``: that of ``state`` for members where ``condition`` (bool
            ``(P,)``) is true, that of ``other`` elsewhere.
        dump: ``dump(state)``: plain data and tensors for a checkpoint.
        load: ``load(data, params) -> state``, its inverse.
        transforms: the transforms that :func:`~pgkit.optim.chain.chain` joined; empty for other optimizers.
        parts: the optimizers that this one combines (:func:`~pgkit.optim.partition.by_member`, ``by_name``), or is
            around.
        requires: names of the extra arguments without which ``update`` fails, such as ``"progress"``.
        eval_params: ``eval_params(params, state) -> params``, for optimizers that are judged at another point than the
            one at which they act: what to evaluate, save as the policy and report, leaves ``(P, ...)``; rollouts and
            gradients stay at ``params``. It changes neither argument. None: the point is ``params`` itself.
    """

    init: Callable[[Params], State]
    step: Callable[[Params, State, Params, ExtraArgs, bool], StepResult]
    take: Callable[[State, Tensor], State] = take_tree
    copy: Callable[[State], State] = lambda state: map_tree(torch.clone, state)
    where: Callable[[Tensor, State, State], State] = where_tree
    dump: Callable[[State], Any] = lambda state: state
    load: Callable[[Any, Params], State] = lambda data, params: data
    transforms: tuple[Transform, ...] = ()
    parts: tuple["Optimizer", ...] = ()
    requires: frozenset[str] = frozenset()
    eval_params: Callable[[Params, State], Params] | None = None

    @torch.no_grad()
    def update(
        self, grads: Params, state: State, params: Params, *, donate: bool = False, **extra_args: Any
    ) -> tuple[Params, State]:
        """Compute updates, to be added to the parameters with :func:`~pgkit.optim.update.apply_updates`.

        Args:
            grads: leaves ``(P, ...)``, named and shaped like ``params``.
            state: of :meth:`init`, or of the last update.
            params: leaves ``(P, ...)``, never written into.
            donate: allow the update to overwrite ``grads`` and ``state``, which saves copies (JAX's word); by default
                it writes into nothing that it is given.
            extra_args: what :attr:`requires` names: ``(P,)`` each, or objects with a method ``take(members)``.

        Returns:
            The updates, leaves ``(P, ...)``, and the next state.

        Raises:
            PgkitError: gradients do not fit the parameters, or an extra argument is missing or misshapen.
        """
        if not donate:
            grads = copy_leaves(grads)
            state = self._copy_state(state, params)
        result = self.step(grads, state, params, extra_args, False)
        return result.leaves, result.state

    @torch.no_grad()
    def apply(
        self, grads: Params, state: State, params: Params, *, donate: bool = False, **extra_args: Any
    ) -> tuple[Params, Tensor, State]:
        """Do what :meth:`update` and :func:`~pgkit.optim.update.add_updates` do, with the same bits.

        On CPU a chain adds the parameters in its last loop, which saves one pass over memory.

        Returns:
            The new parameters, the largest magnitude in each leaf of them ``(L, P)`` (NaN counts as largest), and the
            next state.
        """
        if not donate:
            grads = copy_leaves(grads)
            state = self._copy_state(state, params)
        leaves, largest, state = self.step(grads, state, params, extra_args, True)
        assert largest is not None
        return leaves, largest, state

    def _copy_state(self, state: State, params: Params) -> State:
        members = next(iter(params.values())).shape[0]
        return self.take(state, torch.arange(members))


def copy_leaves(tree: Params) -> Params:
    """Copies of all leaves, without gradient history."""
    return {name: leaf.detach().clone() for name, leaf in tree.items()}


def check_grads(grads: Params, params: Params) -> None:
    """Check that gradients fit the parameters.

    Raises:
        PgkitError: names, shapes or dtypes differ.
    """
    if grads.keys() != params.keys():
        raise PgkitError(f"gradients are named {sorted(grads)}, parameters {sorted(params)}")
    for name, param in params.items():
        grad = grads[name]
        if grad.dtype != param.dtype or grad.shape != param.shape:
            raise PgkitError(
                f"the gradient of {name} is {grad.dtype} {tuple(grad.shape)}, "
                f"the parameter is {param.dtype} {tuple(param.shape)}"
            )


def checked_grads(grads: Params, params: Params) -> Params:
    """Gradients in the order of the parameters, each contiguous in memory of its own, ready to be overwritten.

    Copies only where needed: autograd may return one tensor for two parameters, or an expanded one, and a caller may
    pass the parameters themselves.

    Raises:
        PgkitError: see :func:`check_grads`.
    """
    check_grads(grads, params)
    taken = {param.data_ptr() for param in params.values()}
    checked = {}
    for name in params:
        grad = grads[name]
        address = grad.data_ptr()
        if address in taken or not grad.is_contiguous():
            grad = grad.clone(memory_format=torch.contiguous_format)
        taken.add(address)
        checked[name] = grad.detach() if grad.requires_grad else grad
    return checked


def per_leaf(values: Tensor, leaf: Tensor) -> Tensor:
    """View ``(P,)`` as ``(P, 1, ...)`` with as many dimensions as ``leaf``."""
    return values.view(-1, *[1] * (leaf.dim() - 1))


def extra_arg(name: str, extra_args: ExtraArgs, like: Tensor) -> Tensor:
    """Return the extra argument ``name`` as numbers ``(P,)`` with dtype and device of ``like``.

    Raises:
        PgkitError: ``update`` did not get it, or its shape is wrong.
    """
    if name not in extra_args:
        raise PgkitError(f"the optimizer requires {name!r}: call update(grads, state, params, {name}=...)")
    value = extra_args[name]
    if not isinstance(value, Tensor) or value.shape != like.shape:
        raise PgkitError(f"the extra argument {name!r} must be a tensor of shape {tuple(like.shape)}, got {value!r}")
    return value.to(like)
