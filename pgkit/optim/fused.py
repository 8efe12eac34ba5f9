"""Run the steps of a chain on every leaf: as one compiled loop on CPU, as tensor operations elsewhere."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.errors import PgkitError
from pgkit.optim.base import Leaf, MemberValues, Transform, per_leaf
from pgkit.optim.reductions import launch
from pgkit.system.cpu import use_compiled
from pgkit.types import Params

_compile_steps = lazy_kernel("pgkit.optim.codegen:compile_steps")


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
    columns = [values for part in scalars for values in part.values()]
    like = next(iter(grads.values()))
    table = torch.stack(columns) if columns else torch.empty(0, len(like), device=like.device)
    blocks: list[tuple[Params, Tensor]] = []
    for dtype in dict.fromkeys(leaf.dtype for leaf in grads.values()):
        leaves = {name: leaf for name, leaf in grads.items() if leaf.dtype == dtype}
        compiled = use_compiled(dtype, like.device)
        rows = table.to(dtype)
        if compiled and all(part.elementwise for part in stage):
            largest = _in_one_loop(stage, leaves, params, leaf_state, scalars, rows, add)
        else:
            largest = _on_tensors(stage, leaves, params, leaf_state, scalars, rows, add and not compiled)
            if compiled and add:  # a loop of its own, which graphs can capture
                largest = _in_one_loop([], leaves, params, {}, [], rows[:0], add)
        if largest is not None:
            blocks.append((leaves, largest))
    return _in_order(blocks, grads) if add else None


def _in_order(blocks: Sequence[tuple[Params, Tensor]], names: Iterable[str]) -> Tensor:
    """Join blocks ``(l, P)`` of some leaves each to ``(L, P)`` in the order of ``names``."""
    if len(blocks) == 1:
        return blocks[0][1]
    rows = {name: row for leaves, block in blocks for name, row in zip(leaves, block.double(), strict=True)}
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
    for name, grad in grads.items():
        rows = iter([per_leaf(row, grad) for row in table])
        result = grad
        leaf = Leaf(params[name], {key: tensors[name] for key, tensors in leaf_state.items()})
        old = [grad, *leaf.state.values()]
        for part, values in zip(stage, scalars, strict=True):
            result = part.step(result, leaf, {key: next(rows) for key in values})
        new = [result, *leaf.state.values()]
        changed = [(before, after) for before, after in zip(old, new, strict=True) if after is not before]
        # A step may exchange tensors: one that is overwritten below must be copied before another takes its values.
        copies = [(before, after.clone() if any(after is x for x in old) else after) for before, after in changed]
        for before, after in copies:
            before.copy_(after)
    if not add:
        return None
    sums = [grad.add_(params[name]) for name, grad in grads.items()]
    return torch.stack([leaf.reshape(len(leaf), -1).abs().amax(1) for leaf in sums])


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
