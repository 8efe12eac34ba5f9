"""Optimizers as pairs of pure functions on stacked parameters, and the machinery that composes them.

An :class:`Optimizer` acts on ``Params``, dictionaries of leaves ``(P, ...)``. A :class:`Transform` is a piece of one:
it sees some members as the rows of a matrix ``(R, K)`` with all K parameters of a member side by side, so that a
recipe reads like its formula. :func:`chain` joins transforms into an optimizer: it lays the leaves side by side, walks
over the population in blocks of rows that fit into the cache (members share nothing, so any block will do), and puts
the updates back.

Two rules keep member k's bits the same in every population: only correctly rounded operations (``+ - * / sqrt`` and
comparisons) act on elements, because vector and scalar code may round others (``pow``, ``exp``, fused multiply-add)
differently; and sums run along rows only. Numbers per member are float64 ``(P,)`` until they meet the matrix.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from pgkit.types import Params, PgkitError

BLOCK = 2**16
"""Elements of one block: a handful of such float32 matrices fit into a core's second-level cache."""

State = Any
"""Plain dicts, lists and tensors with leading axis P (adapters may hold more, and convert it in ``dump``)."""

Vectors = dict[str, Tensor]
"""Numbers per member by name, float64 ``(P,)``."""

Signals = Mapping[str, Any]
"""What the training loop tells an optimizer beside the gradients, such as ``progress`` ``(P,)``."""


@dataclass(frozen=True)
class Schedule:
    """A hyperparameter that moves.

    Attributes:
        start: the first value, one for all or one per member.
        settings: the numbers of the rule by name, each one for all or one per member.
        rule: ``rule(current, numbers, signals) -> (P,)``; ``numbers`` are the settings and ``start``.
    """

    start: float | Sequence[float] | Tensor
    settings: Mapping[str, float | Sequence[float] | Tensor]
    rule: Callable[[Tensor, Vectors, Signals], Tensor]


Hyper = float | Sequence[float] | Tensor | Schedule
"""A hyperparameter: one number for all members, one per member, or a schedule."""


@dataclass(frozen=True)
class Rows:
    """What a transform sees of the R members of a block: ``rows["m"]`` is their matrix ``m``, to be changed in place.

    Attributes:
        slots: matrices of the state ``(R, K)`` by name.
        param: the parameters ``(R, K)``, read only; None unless some transform of the chain asked for them.
        shapes: shape of each leaf without the member axis, in the order in which they lie side by side.
        log: what a transform wants to report, numbers ``(R,)`` by name.
    """

    slots: Mapping[str, Tensor]
    param: Tensor | None
    shapes: Sequence[torch.Size]
    log: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.slots[name]


def _no_numbers(hyper: Vectors, vectors: Vectors, signals: Signals) -> Vectors:
    return {}


@dataclass(frozen=True)
class Transform:
    """One piece of an optimizer.

    Attributes:
        step: ``step(grad, rows, c) -> grad``; may write into ``grad`` and the slots; ``c`` holds the numbers as
            columns ``(R, 1)`` of the parameters' dtype.
        numbers: ``numbers(hyper, vectors, signals) -> {name: (P,)}``, called once per update; may replace entries of
            ``vectors``. Powers such as ``beta ** t`` are kept as running products in ``vectors``.
        hyper: the hyperparameters that it brings.
        slots: the matrices that it keeps, with their first value (``"param"``: the parameters).
        vectors: the numbers per member that it keeps, with their first value.
        needs_param: whether ``step`` reads ``rows.param``.
    """

    step: Callable[[Tensor, Rows, Mapping[str, Tensor]], Tensor]
    numbers: Callable[[Vectors, Vectors, Signals], Vectors] = _no_numbers
    hyper: Mapping[str, Hyper] = field(default_factory=dict)
    slots: Mapping[str, float | str] = field(default_factory=dict)
    vectors: Mapping[str, float] = field(default_factory=dict)
    needs_param: bool = False


def take_tree(tree: Any, members: Tensor) -> Any:
    """Rows ``members`` (int64 ``(M,)``) of every tensor in a tree of dicts, lists and tuples."""
    return map_tree(lambda leaf: leaf.index_select(0, members.to(leaf.device)), tree)


def put_tree(tree: Any, members: Tensor, sub: Any) -> Any:
    """A copy of ``tree`` whose rows ``members`` are those of ``sub``."""
    if isinstance(tree, Tensor):
        return tree.index_copy(0, members.to(tree.device), sub)
    if isinstance(tree, dict):
        return {key: put_tree(value, members, sub[key]) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(put_tree(value, members, part) for value, part in zip(tree, sub, strict=True))
    return tree


def map_tree(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """``function`` of every tensor in a tree of dicts, lists and tuples; other leaves stay."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tree(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map_tree(function, value) for value in tree)
    return tree


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
        transforms: what :func:`chain` made it of; empty for others.
    """

    init: Callable[[Params], State]
    update: Callable[..., tuple[Params, State]]
    take: Callable[[State, Tensor], State] = take_tree
    dump: Callable[[State], Any] = lambda state: state
    load: Callable[[Any, Params], State] = lambda data, params: data
    transforms: tuple[Transform, ...] = ()


@torch.no_grad()
def apply_updates(params: Params, updates: Params, alive: Tensor | None = None) -> Params:
    """``param + update`` in the buffers of the updates; members where ``alive`` ``(P,)`` is False keep ``param``."""
    moved = {name: updates[name].add_(param) for name, param in params.items()}
    if alive is not None:
        for name, param in params.items():
            torch.where(alive.view(-1, *[1] * (param.dim() - 1)), moved[name], param, out=moved[name])
    return {name: moved[name].requires_grad_(param.requires_grad) for name, param in params.items()}


def chain(*parts: Transform | Optimizer) -> Optimizer:
    """The optimizer that applies ``parts`` one after the other, each to the result of the one before.

    Chains within are spliced, so that all their transforms work on a block while it is in the cache.
    """
    if all(isinstance(part, Transform) or part.transforms for part in parts):
        return _joined(tuple(t for part in parts for t in ([part] if isinstance(part, Transform) else part.transforms)))
    return _sequence([part if isinstance(part, Optimizer) else chain(part) for part in parts])


def _joined(transforms: tuple[Transform, ...]) -> Optimizer:
    hyper: dict[str, Hyper] = _merged("hyperparameter", [part.hyper for part in transforms])
    slots = _merged("slot", [part.slots for part in transforms])
    vectors = _merged("vector", [part.vectors for part in transforms])
    schedules = {name: value for name, value in hyper.items() if isinstance(value, Schedule)}
    needs_param = any(part.needs_param for part in transforms)

    @torch.no_grad()
    def init(params: Params) -> State:
        flat = side_by_side(_matrices(params))

        def vector(name: str, value: Any) -> Tensor:
            return per_member(name, value, flat.shape[0], flat.device)

        return {
            "hyper": {name: vector(name, getattr(value, "start", value)) for name, value in hyper.items()},
            "schedules": {
                name: {key: vector(f"{key} of {name}", value) for key, value in schedule.settings.items()}
                | {"start": vector(name, schedule.start)}
                for name, schedule in schedules.items()
            },
            "vectors": {name: vector(name, value) for name, value in vectors.items()},
            "slots": {
                name: flat.clone() if value == "param" else torch.full_like(flat, float(value))
                for name, value in slots.items()
            },
            "log": {},
        }

    @torch.no_grad()
    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        updates = own(grads, params)
        now = {"hyper": dict(state["hyper"]), "vectors": dict(state["vectors"])}
        for name, schedule in schedules.items():
            now["hyper"][name] = schedule.rule(now["hyper"][name], state["schedules"][name], signals)
        numbers = [part.numbers(now["hyper"], now["vectors"], signals) for part in transforms]
        logs = []
        for leaves, rows, columns in _blocks(updates, params if needs_param else {}, state["slots"], numbers):
            grad = side_by_side(leaves)
            for part, c in zip(transforms, columns, strict=True):
                grad = part.step(grad, rows, c)
            for leaf, piece in zip(leaves, grad.split([leaf.shape[1] for leaf in leaves], 1), strict=True):
                leaf.copy_(piece)
            logs.append(rows.log)
        return updates, state | now | {"log": {name: torch.cat([log[name] for log in logs]) for name in logs[0]}}

    return Optimizer(init, update, transforms=transforms)


def _blocks(
    updates: Params, params: Params, slots: Mapping[str, Tensor], numbers: Sequence[Vectors]
) -> Iterator[tuple[list[Tensor], Rows, list[dict[str, Tensor]]]]:
    """Walk over the members: the leaves of a block as matrices, its rows of the state, its columns of numbers."""
    leaves, others = _matrices(updates), _matrices(params)
    members = leaves[0].shape[0]
    height = max(1, BLOCK // max(1, sum(leaf.shape[1] for leaf in leaves)))
    shapes = [leaf.shape[1:] for leaf in updates.values()]
    columns = _columns(numbers, leaves[0].dtype)
    for first in range(0, members, height):
        here = slice(first, first + height)
        param = side_by_side([leaf[here] for leaf in others]) if others else None
        rows = Rows({name: slot[here] for name, slot in slots.items()}, param, shapes, {})
        yield [leaf[here] for leaf in leaves], rows, [{n: column[here] for n, column in c.items()} for c in columns]


def _columns(numbers: Sequence[Vectors], dtype: torch.dtype) -> list[dict[str, Tensor]]:
    """All numbers as ``(P, 1)`` of the parameters' dtype."""
    vectors = [value for part in numbers for value in part.values()]
    columns = iter(torch.stack(vectors).to(dtype).unsqueeze(2).unbind() if vectors else ())
    return [{name: next(columns) for name in part} for part in numbers]


def _sequence(parts: Sequence[Optimizer]) -> Optimizer:
    """Optimizers one after the other; states in a list."""

    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        states = []
        for part, own_state in zip(parts, state, strict=True):
            grads, own_state = part.update(grads, own_state, params, **signals)
            states.append(own_state)
        return grads, states

    return Optimizer(
        init=lambda params: [part.init(params) for part in parts],
        update=update,
        take=lambda state, members: [
            part.take(own_state, members) for part, own_state in zip(parts, state, strict=True)
        ],
        dump=lambda state: [part.dump(own_state) for part, own_state in zip(parts, state, strict=True)],
        load=lambda data, params: [part.load(own_data, params) for part, own_data in zip(parts, data, strict=True)],
    )


def own(grads: Params, params: Params) -> Params:
    """The gradients in the order of the parameters; those that cannot be written into safely are copied.

    Autograd may return one tensor for two parameters, or an expanded one; a caller may pass the parameters themselves.
    """
    if grads.keys() != params.keys():
        raise PgkitError(f"gradients are for {sorted(grads)}, parameters are {sorted(params)}")
    taken = {param.data_ptr() for param in params.values()}
    owned = {}
    for name, param in params.items():
        grad = grads[name]
        if grad.shape != param.shape or grad.dtype != param.dtype:
            raise PgkitError(
                f"gradient of {name} is {grad.dtype} {tuple(grad.shape)}, not {param.dtype} {tuple(param.shape)}"
            )
        grad = grad.clone() if grad.data_ptr() in taken else grad.contiguous()
        taken.add(grad.data_ptr())
        owned[name] = grad.detach()
    return owned


def side_by_side(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices ``(R, k)`` as one ``(R, K)``, always a copy."""
    return torch.cat(list(matrices), dim=1)


def _matrices(params: Params) -> list[Tensor]:
    return [leaf.reshape(leaf.shape[0], -1) for leaf in params.values()]


def row_sum(matrix: Tensor) -> Tensor:
    """Sum along each row, ``(R, K) -> (R,)``, the same bits for any R and any number of threads."""
    return sum((piece.sum(1) for piece in matrix.split(2**14, dim=1)), matrix.new_zeros(matrix.shape[0]))


def per_member(name: str, value: Any, members: int, device: torch.device) -> Tensor:
    """A number, a sequence of P numbers or a tensor ``(P,)`` as float64 ``(P,)``."""
    vector = torch.as_tensor(value, dtype=torch.float64, device=device)
    if vector.dim() > 1 or vector.numel() not in (1, members):
        raise PgkitError(f"{name} has {vector.numel()} values for {members} members; give one, or one per member")
    return vector.expand(members).clone()


def _merged(kind: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise PgkitError(f"two transforms of a chain bring the {kind} {min(twice)!r}")
        merged.update(part)
    return merged
