"""The configurations of the members of a population."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.config.load import to_table
from pgkit.config.schema import TrainConfig, float_fields
from pgkit.errors import PgkitError, format_value


def expand_seeds(config: TrainConfig) -> list[TrainConfig]:
    """Return one configuration per seed, in the order of ``config.seed_list``.

    >>> import pgkit
    >>> [config.seed for config in pgkit.expand_seeds(pgkit.load_config("cartpole-reinforce", {"seeds": 3}))]
    [0, 1, 2]

    Raises:
        PgkitError: ``config`` is not a :class:`TrainConfig`.
    """
    if not isinstance(config, TrainConfig):
        raise PgkitError(f"expand_seeds takes a TrainConfig (see pgkit.load_config), got {format_value(config)}")
    return [config.model_copy(update={"seed": seed, "seeds": None}) for seed in config.seed_list]


def check_population(configs: Sequence[TrainConfig]) -> None:
    """Check that members agree in everything but name, seed, optimizer and the agent's real numbers.

    Raises:
        PgkitError: naming the first key in which two members differ.
    """
    if not configs:
        raise PgkitError("a population needs at least one member")
    first = shared_settings(configs[0])
    for index, config in enumerate(configs[1:], start=1):
        settings = shared_settings(config)
        for key in sorted(first.keys() | settings.keys()):
            if first.get(key) != settings.get(key):
                raise PgkitError(
                    f"members of a population must agree in {key}: member 0 has {format_value(first.get(key))}, "
                    f"member {index} has {format_value(settings.get(key))}"
                )


def stack_agent_config(configs: Sequence[TrainConfig]) -> Any:
    """Return the agent's ``Config`` of a population: real numbers become float32 tensors ``(P,)``."""
    check_population(configs)
    agent_configs = [config.agent_config for config in configs]
    stacked: dict[str, Tensor] = {}
    for field in float_fields(agent_configs[0]):
        numbers = [getattr(agent_config, field) for agent_config in agent_configs]
        stacked[field] = torch.tensor(numbers, dtype=torch.float32)
    return agent_configs[0].model_copy(update=stacked)


def shared_settings(config: TrainConfig) -> dict[str, Any]:
    """Return what members of a population must agree in, by dotted key."""
    table = to_table(config)
    for key in ("name", "seed", "seeds", "optimizer"):
        table.pop(key, None)
    for field in float_fields(config.agent_config):
        table["agent"][field] = "a number"
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= {f"{key}.{inner}": entry for inner, entry in value.items()} if isinstance(value, dict) else {key: value}
    return flat
