"""Hyperparameters in an optimizer's state: their initial values, and their values at each update."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import ExtraArgs, Hyperparameter, MemberValues, Number, Schedule, State
from pgkit.types import Params


def init_hyperparameters(
    hyperparameters: Mapping[str, Hyperparameter], members: int, device: torch.device
) -> dict[str, Any]:
    """Begin a state: ``"hyperparameters"`` and the numbers of ``"schedules"``, by name, ``(P,)`` each."""

    def values(name: str, value: Any) -> Tensor:
        return per_member(name, value, members, device)

    return {
        "hyperparameters": {
            name: values(name, value.start if isinstance(value, Schedule) else value)
            for name, value in hyperparameters.items()
        },
        "schedules": {
            name: {key: values(f"{key} of {name}", number) for key, number in value.settings.items()}
            | {"start": values(name, value.start)}
            for name, value in hyperparameters.items()
            if isinstance(value, Schedule)
        },
    }


def next_hyperparameters(
    hyperparameters: Mapping[str, Hyperparameter], state: State, extra_args: ExtraArgs
) -> MemberValues:
    """Compute the hyperparameters ``(P,)`` of this update: schedules move, numbers stay."""
    values = dict(state["hyperparameters"])
    for name, value in hyperparameters.items():
        if isinstance(value, Schedule):
            values[name] = value.rule(values[name], state["schedules"][name], extra_args)
    return values


def required_by(hyperparameters: Mapping[str, Hyperparameter]) -> frozenset[str]:
    """Names of the extra arguments that the schedules among some hyperparameters read."""
    return frozenset().union(*(value.requires for value in hyperparameters.values() if isinstance(value, Schedule)))


def per_member(name: str, value: Number, members: int, device: torch.device) -> Tensor:
    """Expand one number, or one per member, to float64 ``(P,)``.

    Raises:
        PgkitError: the number of values is neither 1 nor P.
    """
    values = torch.as_tensor(value, dtype=torch.float64, device=device)
    if values.dim() > 1 or values.numel() not in (1, members):
        raise PgkitError(f"{name} has {values.numel()} values for {members} members; give one, or one per member")
    return values.expand(members).clone()


def members_and_device(params: Params) -> tuple[int, torch.device]:
    """Return the number of members P, and the device, of parameters.

    Raises:
        PgkitError: the leading axes of the leaves differ.
    """
    members = {leaf.shape[0] if leaf.dim() else 0 for leaf in params.values()}
    if len(members) != 1:
        shapes = {name: tuple(leaf.shape) for name, leaf in params.items()}
        raise PgkitError(f"every parameter needs the same leading axis of members, got {shapes}")
    return members.pop(), next(iter(params.values())).device
