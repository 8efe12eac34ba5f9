"""Run the steps of a chain on every leaf: as one compiled loop on CPU, as tensor operations elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.errors import PgkitError
from pgkit.optim.base import Leaf, MemberValues, Transform, per_leaf
from pgkit.optim.reductions import launch
from pgkit.optim.roles import roles_of
from pgkit.system.cpu import use_compiled
from pgkit.types import Params

_compile_steps = lazy_kernel("pgkit.optim.codegen:compile_steps")


CACHED_NUMBERS = 2**16
"""Numbers of a leaf that a step on tensors takes at once."""


def split_stages(transforms: Sequence[Transform]) -> list[list[Transform]]:
    """Group transforms that can run in one loop.

    A loop ends before each transform that reduces, which has to see the gradients of all leaves, and around each that
    is not element-wise.
    """
    stages: list[list[Transform]] = []
    for part in transforms:
        joins = stages and not part.reduce and part.elementwise and stages[-1][-1].elementwise
        if joins:
            stages[-1].append(part)
        else:
            stages.append([part])
    return stages


def run_stage(
    stage: Sequence[Transform],
    grads: Params,
    params: Params,
    leaf_state: Mapping[str, Params],
    scalars: Sequence[MemberValues],
    add: bool = False,
) -> Tensor | None:
    """Run the steps of a stage on gradients and state, in place.

    Args:
        stage: transforms that can run in one loop.
        grads: leaves ``(P, ...)``, contiguous, none of them in the memory of another.
        params: leaves like them, read-only.
        leaf_state: leaves like them, by name of the state and of the parameter.
        scalars: for each transform its numbers ``(P,)`` by name.
        add: add the parameters to the resulting updates.

    Returns:
        With ``add`` the largest magnitude in each leaf of the sums, ``(L, P)``, where NaN counts as largest.
    """
    blocks: list[tuple[Params, Tensor]] = []
    for alike, leaves in _groups(stage, grads, params, leaf_state).items():
        parts = [stage[index] for index in alike.parts]
        if not parts and not add:
            continue
        states = {key: leaf_state[key] for key in alike.states}
        numbers = [scalars[index] for index in alike.parts]
        largest = _run(parts, leaves, params, states, numbers, add)
        if largest is not None:
            blocks.append((leaves, largest))
    return _in_order(blocks, grads) if add else None


def _run(
    parts: Sequence[Transform],
    leaves: Params,
    params: Params,
    states: Mapping[str, Params],
    numbers: Sequence[MemberValues],
    add: bool,
) -> Tensor | None:
    """Run a stage on leaves of one dtype, compiled where that can be."""
    like = next(iter(leaves.values()))
    table = _table(numbers, like)
    compiled = use_compiled(like.dtype, like.device)
    if compiled and all(part.elementwise for part in parts):
        return _in_one_loop(parts, leaves, params, states, numbers, table, add)
    largest = _on_tensors(parts, leaves, params, states, numbers, table, add and not compiled)
    if compiled and add:  # a loop of its own, which graphs can capture
        largest = _in_one_loop([], leaves, params, {}, [], table[:0], add)
    return largest


class _Alike(NamedTuple):
    """What leaves have in common that run in one loop.

    Attributes:
        dtype: of their elements.
        parts: which transforms of the stage are for them.
        states: the names of their states.
    """

    dtype: torch.dtype
    parts: tuple[int, ...]
    states: tuple[str, ...]


def _groups(
    stage: Sequence[Transform], grads: Params, params: Params, leaf_state: Mapping[str, Params]
) -> dict[_Alike, Params]:
    """Group gradients that can run in one loop, in their order."""
    roles = roles_of(params)
    groups: dict[_Alike, Params] = {}
    for name, grad in grads.items():
        parts = tuple(index for index, part in enumerate(stage) if part.applies_to(roles[name]))
        states = tuple(key for key, leaves in leaf_state.items() if name in leaves)
        groups.setdefault(_Alike(grad.dtype, parts, states), {})[name] = grad
    return groups


def _table(scalars: Sequence[MemberValues], like: Tensor) -> Tensor:
    """The numbers of each member ``(C, P)``, in the dtype of a leaf."""
    columns = [values for part in scalars for values in part.values()]
    table = torch.stack(columns) if columns else torch.empty(0, len(like), device=like.device)
    return table.to(like.dtype)


def _in_order(blocks: Sequence[tuple[Params, Tensor]], names: Iterable[str]) -> Tensor:
    """Join blocks ``(l, P)`` of some leaves each to ``(L, P)`` in the order of ``names``."""
    if len(blocks) == 1:
        return blocks[0][1]
    dtypes = {block.dtype for _, block in blocks}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float64
    rows = {name: row for leaves, block in blocks for name, row in zip(leaves, block.to(dtype), strict=True)}
    return torch.stack([rows[name] for name in names])


def _in_one_loop(
    stage: Sequence[Transform],
    grads: Params,
    params: Params,
    leaf_state: Mapping[str, Params],
    scalars: Sequence[MemberValues],
    table: Tensor,
    add: bool,
) -> Tensor | None:
    """Run a stage as one compiled loop, for leaves of one dtype."""
    names = tuple(map(tuple, scalars))
    kernel = _compile_steps(tuple(part.step for part in stage), names, tuple(leaf_state), table.dtype, add)
    members = table.shape[1]
    largest = table.new_empty(len(grads), members) if add else None
    # Held until the loop is over: the kernel sees addresses only, and contiguous copies have no other owner.
    fields = [_fields(name, grad, params, leaf_state) for name, grad in grads.items()]
    addresses = [[field.data_ptr() for field in fields_of_leaf] for fields_of_leaf in fields]
    if largest is not None:
        begin = largest.data_ptr()
        row_bytes = members * largest.element_size()
        addresses = [[*places, begin + row_bytes * row] for row, places in enumerate(addresses)]
    launch(kernel, list(grads.values()), [address for places in addresses for address in places], table)
    return largest


def _on_tensors(
    stage: Sequence[Transform],
    grads: Params,
    params: Params,
    leaf_state: Mapping[str, Params],
    scalars: Sequence[MemberValues],
    table: Tensor,
    add: bool,
) -> Tensor | None:
    """Run a stage as tensor operations, and copy changed tensors back into the memory of the old ones."""
    names = [list(values) for values in scalars]
    for name, grad in grads.items():
        for rows in _blocks(grad):
            leaf = Leaf(params[name][rows], {key: tensors[name][rows] for key, tensors in leaf_state.items()})
            _step_leaf(stage, grad[rows], leaf, names, table[:, rows])
    if not add:
        return None
    sums = [grad.add_(params[name]) for name, grad in grads.items()]
    return torch.stack([leaf.reshape(len(leaf), -1).abs().amax(1) for leaf in sums])


def _blocks(leaf: Tensor) -> list[slice]:
    """Split members so that on CPU what a step computes stays in the cache; members do not mix, so no bit changes."""
    size = len(leaf)
    if leaf.is_cpu and leaf.numel():
        size = max(1, CACHED_NUMBERS * size // leaf.numel())
    return [slice(first, first + size) for first in range(0, len(leaf), max(1, size))]


def _step_leaf(
    stage: Sequence[Transform], grad: Tensor, leaf: Leaf, names: Sequence[Sequence[str]], table: Tensor
) -> None:
    """Run the steps on some members of one leaf, whose scalars are called ``names``."""
    rows = iter([per_leaf(row, grad) for row in table])
    result = grad
    old = [grad, *leaf.state.values()]
    for part, names_of_part in zip(stage, names, strict=True):
        result = part.step(result, leaf, {key: next(rows) for key in names_of_part})
    new = [result, *leaf.state.values()]
    changed = [(before, after) for before, after in zip(old, new, strict=True) if after is not before]
    # A step may exchange tensors: one that is overwritten below must be copied before another takes its values.
    copies = [(before, after.clone() if any(after is x for x in old) else after) for before, after in changed]
    for before, after in copies:
        before.copy_(after)


def _fields(name: str, grad: Tensor, params: Params, leaf_state: Mapping[str, Params]) -> list[Tensor]:
    """List the tensors of a leaf that a kernel reads and writes: gradient, parameter, states.

    Raises:
        PgkitError: a state is not shaped like the gradient, or they are on different devices.
    """
    if not params[name].is_cpu:
        raise PgkitError(f"the gradient of {name} is on {grad.device}, the parameter on {params[name].device}")
    fields = [grad, params[name].contiguous()]
    for key, tensors in leaf_state.items():
        tensor = tensors[name]
        if tensor.shape != grad.shape or tensor.dtype != grad.dtype or not tensor.is_cpu:
            actual, expected = (f"{leaf.dtype} {tuple(leaf.shape)} on {leaf.device}" for leaf in (tensor, grad))
            raise PgkitError(f"the state {key!r} of {name} is {actual}, the parameter is {expected}")
        tensors[name] = tensor.contiguous()
        fields.append(tensors[name])
    return fields
