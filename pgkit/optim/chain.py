"""Join transforms into an optimizer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import (
    ExtraArgs,
    Hyperparameter,
    Leaf,
    LeafInit,
    MemberValues,
    Optimizer,
    Scalars,
    State,
    StepResult,
    Transform,
    checked_grads,
    per_leaf,
)
from pgkit.optim.fused import run_stage, split_stages
from pgkit.optim.hyperparameters import (
    init_hyperparameters,
    members_and_device,
    next_hyperparameters,
    per_member,
    required_by,
)
from pgkit.optim.roles import check_hidden, roles_of
from pgkit.types import Params


def chain(*parts: Transform | Optimizer) -> Optimizer:
    """Make an optimizer that applies ``parts`` one after the other, each to the result of the one before.

    >>> from pgkit.optim import chain
    >>> from pgkit.optim.transforms import clip_by_value, scale_by_rate
    >>> optimizer = chain(clip_by_value(1.0), scale_by_rate([0.1, 0.2]))
    >>> len(optimizer.transforms)
    2

    Transforms, and chains of them, become one optimizer, which runs as few loops over memory as possible.

    Raises:
        PgkitError: two transforms bring a hyperparameter or a state of the same name, or one stands behind a part with
            evaluation parameters.
    """
    if any(_has_eval_params(part) for part in parts[:-1]):
        raise PgkitError(
            "an optimizer with evaluation parameters, such as schedule_free_sgd, keeps account of its own steps: "
            "nothing behind it, such as lookahead, may change them"
        )
    if all(isinstance(part, Transform) or part.transforms for part in parts):
        return _joined(tuple(t for part in parts for t in ([part] if isinstance(part, Transform) else part.transforms)))
    return _sequence([part if isinstance(part, Optimizer) else chain(part) for part in parts])


def _has_eval_params(part: Transform | Optimizer) -> bool:
    return (part.eval_param if isinstance(part, Transform) else part.eval_params) is not None


def _joined(transforms: tuple[Transform, ...]) -> Optimizer:
    """Make one optimizer of all transforms.

    State: ``{"hyperparameters", "schedules", "member_state", "metrics", "leaf_state"}``.
    """
    hyperparameters: dict[str, Hyperparameter] = _merged(
        "hyperparameter", [part.hyperparameters for part in transforms]
    )
    leaf_state: dict[str, LeafInit] = _merged("leaf state", [part.leaf_state for part in transforms])
    any_shape = {key for key, value in leaf_state.items() if callable(value)}
    member_values: dict[str, float] = _merged(
        "member state", [{**part.member_state, **part.metrics} for part in transforms]
    )
    metrics = {name for part in transforms for name in part.metrics}
    stages = split_stages(transforms) or [[]]

    @torch.no_grad()
    def init(params: Params) -> State:
        check_hidden(transforms, params)
        members, device = members_and_device(params)
        state = init_hyperparameters(hyperparameters, members, device)
        values = {name: per_member(name, value, members, device) for name, value in member_values.items()}
        return {
            **state,
            **_split(values, metrics),
            "leaf_state": {
                key: _init_leaves(value, part, params, state["hyperparameters"])
                for part in transforms
                for key, value in part.leaf_state.items()
            },
        }

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        updates = checked_grads(grads, params)
        hyper = next_hyperparameters(hyperparameters, state, extra_args)
        member = {**state["member_state"], **state["metrics"]}
        largest = None
        for stage in stages:
            reduce = stage[0].reduce if stage else None
            stage_args: ExtraArgs = {**extra_args, **reduce(updates)} if reduce else extra_args
            scalars = [part.precompute(hyper, member, stage_args) for part in stage]
            is_last = stage is stages[-1]
            in_one_loop = all(part.elementwise for part in stage)
            visible = {k: v for k, v in state["leaf_state"].items() if not (in_one_loop and k in any_shape)}
            largest = run_stage(stage, updates, params, visible, scalars, add=add and is_last)
        return StepResult(updates, largest, {**state, "hyperparameters": hyper, **_split(member, metrics)})

    requires = required_by(hyperparameters).union(*(part.requires for part in transforms))
    eval_params = _eval_params(transforms[-1]) if transforms else None
    return Optimizer(init, step, transforms=transforms, requires=requires, eval_params=eval_params)


def _eval_params(transform: Transform) -> Callable[[Params, State], Params] | None:
    """Make :attr:`Optimizer.eval_params` of the last transform of a chain: a loop of its own over its leaves."""
    eval_param = transform.eval_param
    if eval_param is None:
        return None

    def step(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
        return eval_param(leaf, scalars)

    @torch.no_grad()
    def eval_params(params: Params, state: State) -> Params:
        results = {name: leaf.detach().clone(memory_format=torch.contiguous_format) for name, leaf in params.items()}
        hyper = {name: state["hyperparameters"][name] for name in transform.hyperparameters}
        visible = [key for key, value in transform.leaf_state.items() if not callable(value)]
        leaf_state = {key: dict(state["leaf_state"][key]) for key in visible}
        run_stage([Transform(step, roles=transform.roles)], results, params, leaf_state, [hyper])
        return results

    return eval_params


def _split(values: MemberValues, metrics: set[str]) -> dict[str, MemberValues]:
    """Part the numbers per member into those that diagnostics show and the others."""
    return {
        "member_state": {name: value for name, value in values.items() if name not in metrics},
        "metrics": {name: value for name, value in values.items() if name in metrics},
    }


def _init_leaves(value: LeafInit, part: Transform, params: Params, hyper: MemberValues) -> Params:
    """Make a leaf state of a transform, for the leaves that have it."""
    roles = roles_of(params)
    leaves = {name: _init_leaf(value, param, hyper) for name, param in params.items() if part.applies_to(roles[name])}
    return {name: leaf for name, leaf in leaves.items() if leaf is not None}


def _init_leaf(value: LeafInit, param: Tensor, hyper: MemberValues) -> Tensor | None:
    """Make the initial value of a leaf state, see :class:`~pgkit.optim.base.Transform`."""
    if callable(value):
        return value(param)
    leaf = torch.empty_like(param, memory_format=torch.contiguous_format)
    if value == "param":
        return leaf.copy_(param)
    return leaf.copy_(per_leaf(hyper[value], param)) if isinstance(value, str) else leaf.fill_(value)


def _sequence(parts: Sequence[Optimizer]) -> Optimizer:
    """Make an optimizer of optimizers that are applied one after the other; its state is a list of their states."""
    eval_params = parts[-1].eval_params

    def step(grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        states = []
        largest = None
        for index, (part, part_state) in enumerate(zip(parts, state, strict=True)):
            is_last = index == len(parts) - 1
            grads, largest, next_state = part.step(grads, part_state, params, extra_args, add and is_last)
            states.append(next_state)
        return StepResult(grads, largest, states)

    return Optimizer(
        init=lambda params: [part.init(params) for part in parts],
        step=step,
        take=lambda state, members: [part.take(each, members) for part, each in zip(parts, state, strict=True)],
        copy=lambda state: [part.copy(each) for part, each in zip(parts, state, strict=True)],
        where=lambda condition, state, other: [
            part.where(condition, *pair) for part, *pair in zip(parts, state, other, strict=True)
        ],
        dump=lambda state: [part.dump(each) for part, each in zip(parts, state, strict=True)],
        load=lambda data, params: [part.load(each, params) for part, each in zip(parts, data, strict=True)],
        parts=tuple(parts),
        requires=frozenset().union(*(part.requires for part in parts)),
        eval_params=eval_params and (lambda params, state: eval_params(params, state[-1])),
    )


def _merged(what: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge mappings whose keys differ."""
    merged: dict[str, Any] = {}
    for part in parts:
        shared = merged.keys() & part.keys()
        if shared:
            raise PgkitError(f"two transforms of a chain bring the {what} {min(shared)!r}")
        merged.update(part)
    return merged
