"""The configurations of the members of a population."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.config.load import to_table
from pgkit.config.schema import TrainConfig, _float_fields
from pgkit.errors import PgkitError, show


def expand_seeds(config: TrainConfig) -> list[TrainConfig]:
    """One configuration per seed, in the order of ``seed_list``."""
    return [config.model_copy(update={"seed": seed, "seeds": None}) for seed in config.seed_list]


def check_population(configs: Sequence[TrainConfig]) -> None:
    """Members share everything but name, seed, optimizer and the agent's real numbers.

    Raises:
        PgkitError: naming the first key in which two members differ.
    """
    if not configs:
        raise PgkitError("a population needs at least one member")
    first = _shared_settings(configs[0])
    for index, config in enumerate(configs[1:], start=1):
        settings = _shared_settings(config)
        for key in sorted(first.keys() | settings.keys()):
            ours, theirs = first.get(key), settings.get(key)
            if ours != theirs:
                raise PgkitError(
                    f"members of a population must agree in {key}: member 0 has {show(ours)}, "
                    f"member {index} has {show(theirs)}"
                )


def stack_agent_config(configs: Sequence[TrainConfig]) -> Any:
    """The agent's ``Config`` of a population: fields that are real numbers become float32 tensors ``(P,)``."""
    check_population(configs)
    members = [config.agent_config for config in configs]
    stacked: dict[str, Tensor] = {}
    for field in _float_fields(members[0]):
        stacked[field] = torch.tensor([getattr(member, field) for member in members], dtype=torch.float32)
    return members[0].model_copy(update=stacked)


def _shared_settings(config: TrainConfig) -> dict[str, Any]:
    """What members must agree in, flat, by dotted key."""
    table = to_table(config)
    for key in ("name", "seed", "seeds", "optimizer"):
        table.pop(key, None)
    for field in _float_fields(config.agent_config):
        table["agent"][field] = "a number"
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= {f"{key}.{inner}": entry for inner, entry in value.items()} if isinstance(value, dict) else {key: value}
    return flat
