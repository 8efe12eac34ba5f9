"""What optimizers around another one, of any type, have in common."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pgkit.optim.base import ExtraArgs, Hyperparameter, MemberValues, Optimizer, State, StepResult
from pgkit.optim.hyperparameters import init_hyperparameters, members_and_device
from pgkit.tree import map_tree, take_tree, where_tree
from pgkit.types import Params


def wrap(
    optimizer: Optimizer,
    init: Callable[[Params], State],
    step: Callable[[Params, State, Params, ExtraArgs, bool], StepResult],
    requires: frozenset[str] = frozenset(),
) -> Optimizer:
    """Make an optimizer around another one; its state is ``[state of the other one, init(params)]``.

    It is judged where the other one is.

    Args:
        optimizer: any; ``step`` calls its step.
        init: makes the second state, a tree of tensors such as :func:`init_state` returns.
        step: as :attr:`~pgkit.optim.base.Optimizer.step`; its state is the pair.
        requires: extra arguments that ``step`` needs beside those of ``optimizer``.
    """
    eval_params = optimizer.eval_params
    return Optimizer(
        init=lambda params: [optimizer.init(params), init(params)],
        step=step,
        take=lambda state, members: [optimizer.take(state[0], members), take_tree(state[1], members)],
        copy=lambda state: [optimizer.copy(state[0]), map_tree(torch.clone, state[1])],
        where=lambda condition, state, other: [
            optimizer.where(condition, state[0], other[0]),
            where_tree(condition, state[1], other[1]),
        ],
        dump=lambda state: [optimizer.dump(state[0]), state[1]],
        load=lambda data, params: [optimizer.load(data[0], params), data[1]],
        parts=(optimizer,),
        requires=optimizer.requires | requires,
        eval_params=eval_params and (lambda params, state: eval_params(params, state[0])),
    )


def init_state(
    hyperparameters: Mapping[str, Hyperparameter],
    params: Params,
    *,
    member_state: MemberValues | None = None,
    metrics: tuple[str, ...] = (),
    leaf_state: Mapping[str, Params] | None = None,
) -> State:
    """Begin a state with the parts of a chain's, so that diagnostics show it; metrics begin at 0."""
    members, device = members_and_device(params)

    def zeros() -> Tensor:
        return torch.zeros(members, dtype=torch.float64, device=device)

    return {
        **init_hyperparameters(hyperparameters, members, device),
        "member_state": member_state or {},
        "metrics": {name: zeros() for name in metrics},
        "leaf_state": leaf_state or {},
    }
