"""The steps of a chain on every leaf: compiled into one loop on CPU, one tensor operation after the other elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import Leaf, Step, Transform, Vectors, per_leaf
from pgkit.optim.reductions import launch
from pgkit.system.cpu import use_compiled
from pgkit.types import Params

if TYPE_CHECKING:
    from pgkit.optim.codegen import Kernel


def stages(transforms: Sequence[Transform]) -> list[list[Transform]]:
    """Transforms that can act together.

    Cut before each one that surveys, which has to see the gradients of all leaves, and around each that is not
    element-wise.
    """
    cut: list[list[Transform]] = []
    for part in transforms:
        joins = cut and not part.survey and part.elementwise and cut[-1][-1].elementwise
        if joins:
            cut[-1].append(part)
        else:
            cut.append([part])
    return cut


def act(
    stage: Sequence[Transform],
    grads: Params,
    params: Params,
    slots: Mapping[str, Params],
    numbers: Sequence[Vectors],
    moves: bool = False,
) -> Tensor | None:
    """Apply the steps of a stage to gradients and slots, in place.

    Args:
        stage: transforms that can act together.
        grads: leaves ``(P, ...)``, contiguous, none of them in the memory of another.
        params: leaves like them.
        slots: by slot and parameter, leaves like them.
        numbers: for each transform its numbers ``(P,)`` by name.
        moves: add the parameters to what the steps have made of the gradients.

    Returns:
        with ``moves`` the largest magnitude in each leaf of these sums, ``(L, P)``, where NaN is largest.
    """
    vectors = [vector for part in numbers for vector in part.values()]
    like = next(iter(grads.values()))
    table = torch.stack(vectors) if vectors else torch.empty(0, len(like), device=like.device)
    blocks: list[tuple[Params, Tensor]] = []
    for dtype in dict.fromkeys(leaf.dtype for leaf in grads.values()):
        own, columns = {name: leaf for name, leaf in grads.items() if leaf.dtype == dtype}, table.to(dtype)
        compiled = all(part.elementwise for part in stage) and use_compiled(dtype, like.device)
        run = _in_one_loop if compiled else _on_tensors
        largest = run(stage, own, params, slots, numbers, columns, moves)
        if largest is not None:
            blocks.append((own, largest))
    return _in_order(blocks, grads) if moves else None


def _in_order(blocks: Sequence[tuple[Params, Tensor]], names: Iterable[str]) -> Tensor:
    """One row ``(P,)`` for each of these leaves, from blocks of rows of some leaves each."""
    if len(blocks) == 1:
        return blocks[0][1]
    rows = {name: row for own, block in blocks for name, row in zip(own, block.double(), strict=True)}
    return torch.stack([rows[name] for name in names])


def _in_one_loop(
    stage: Sequence[Transform],
    grads: Params,
    params: Params,
    slots: Mapping[str, Params],
    numbers: Sequence[Vectors],
    table: Tensor,
    moves: bool,
) -> Tensor | None:
    """The same, for leaves of one dtype."""
    names = tuple(map(tuple, numbers))
    kernel = _kernel(tuple(part.step for part in stage), names, tuple(slots), table.dtype, moves)
    members = table.shape[1]
    largest = table.new_empty(len(grads), members) if moves else None
    fields = [_fields(name, grad, params, slots) for name, grad in grads.items()]  # held until the loop is over
    places = [[field.data_ptr() for field in own] for own in fields]
    if largest is not None:
        begin, size = largest.data_ptr(), members * largest.element_size()
        places = [[*own, begin + size * leaf] for leaf, own in enumerate(places)]
    launch(kernel, list(grads.values()), [place for own in places for place in own], table)
    return largest


def _on_tensors(
    stage: Sequence[Transform],
    grads: Params,
    params: Params,
    slots: Mapping[str, Params],
    numbers: Sequence[Vectors],
    table: Tensor,
    moves: bool,
) -> Tensor | None:
    """The same, one tensor operation after the other; what has changed is copied to where it was."""
    for name, grad in grads.items():
        rows = iter([per_leaf(row, grad) for row in table])
        result, leaf = grad, Leaf(params[name], {slot: tensors[name] for slot, tensors in slots.items()})
        old = [grad, *leaf.slots.values()]
        for part, names in zip(stage, numbers, strict=True):
            result = part.step(result, leaf, {number: next(rows) for number in names})
        new = zip(old, (result, *leaf.slots.values()), strict=True)
        moved = [
            (before, after.clone() if any(after is other for other in old) else after)
            for before, after in new
            if after is not before
        ]
        for before, after in moved:
            before.copy_(after)
    if not moves:
        return None
    sums = [grad.add_(params[name]) for name, grad in grads.items()]
    return torch.stack([leaf.reshape(len(leaf), -1).abs().amax(1) for leaf in sums])


def _fields(name: str, grad: Tensor, params: Params, slots: Mapping[str, Params]) -> list[Tensor]:
    """What a kernel reads and writes of a leaf.

    Raises:
        PgkitError: a slot is not like the gradient, or they are on different devices.
    """
    if not params[name].is_cpu:
        raise PgkitError(f"the gradient of {name} is on {grad.device}, the parameter on {params[name].device}")
    fields = [grad, params[name].contiguous()]
    for slot, tensors in slots.items():
        tensor = tensors[name]
        if tensor.shape != grad.shape or tensor.dtype != grad.dtype or not tensor.is_cpu:
            given, needed = (f"{leaf.dtype} {tuple(leaf.shape)} on {leaf.device}" for leaf in (tensor, grad))
            raise PgkitError(f"the slot {slot!r} of {name} is {given}, the parameter {needed}")
        tensors[name] = tensor.contiguous()
        fields.append(tensors[name])
    return fields


@lru_cache(maxsize=256)
def _kernel(
    steps: tuple[Step, ...],
    numbers: tuple[tuple[str, ...], ...],
    slots: tuple[str, ...],
    dtype: torch.dtype,
    moves: bool,
) -> "Kernel":
    from pgkit.optim.codegen import compile_steps  # LLVM is loaded where something is compiled

    return compile_steps(steps, numbers, slots, dtype, moves)
