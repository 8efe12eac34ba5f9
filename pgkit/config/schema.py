"""Configuration: a TOML table, validated into frozen models before anything runs.

A key that is unknown, of the wrong type or out of range is a :class:`~pgkit.errors.PgkitError` of one line.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core.core_schema import ValidationInfo

from pgkit import optim
from pgkit.config import registry
from pgkit.errors import PgkitError, explain, show

MOST = 1_000_000
"""Members, environments, episodes, units of a layer: nobody means more."""

LARGEST = 2**63 - 1
"""Of whole numbers, in TOML and in tensors."""

Count = Annotated[int, Field(ge=1, le=MOST)]

Number = Annotated[int, Field(ge=0, le=MOST)]

Steps = Annotated[int, Field(ge=1, le=10**15)]

Sizes = Annotated[tuple[Count, ...], Field(strict=False)]


class Model(BaseModel):
    """Base of every table: no unknown keys, no conversions (an integer is a number, ``"1e-3"`` is not)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class EnvConfig(Model):
    """``[env]``: the task, and what is done to its numbers before the learner sees them."""

    id: str = Field(min_length=1)
    """A Gymnasium id, or ``package.module:Id``."""
    kwargs: dict[str, Any] = {}
    max_episode_steps: Steps | None = None
    backend: Literal["auto", "gymnasium", "pgkit", "envpool"] = "auto"
    vectorization: Literal["sync", "async"] = "sync"
    timeout: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds that a worker process of "async" has for a step or reset of its environments; None for 300."""
    reward_scale: float = Field(default=1.0, gt=0)
    normalize_observations: bool = False
    normalize_rewards: bool = False


class PolicyConfig(Model):
    """``[policy]``: the networks; ``critic_hidden`` defaults to ``hidden``, ``log_std`` is that of a new Gaussian."""

    hidden: Sizes = (64, 64)
    critic_hidden: Sizes | None = None
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    shared: bool = False
    orthogonal: bool = True
    log_std: float = Field(default=0.0, ge=-20, le=20)


class EvaluationConfig(Model):
    """``[evaluation]``: ``points`` evenly spaced evaluations of ``episodes`` each, and a final one."""

    points: Number = 20
    episodes: Count = 10
    final_episodes: Count = 100
    deterministic: bool = False
    greedy: bool = False
    """Play the evaluations while training once more, with the most likely actions: a second, labelled number."""


Name = Annotated[str, Field(pattern=r"^\w[\w .,=+-]*$", description="letters, digits and any of _ . , = + - inside")]


class TrainConfig(Model):
    """Everything that decides what ``pgkit train`` does. Derived values are properties."""

    name: Name
    """Output goes to ``runs/<name>``; default: the name of the configuration file."""
    seed: int = Field(default=0, ge=0, le=LARGEST)
    seeds: int | tuple[int, ...] | None = None
    """A count K stands for ``seed, seed + 1, ..., seed + K - 1``; a list is taken as it is."""
    steps: Steps
    """Environment steps of each run, all its environments together."""
    device: str = Field(default="cpu", pattern=r"^(cpu|auto|cuda(:\d+)?)$", description="cpu, cuda, cuda:N or auto")
    env: EnvConfig
    envs_per_member: Count = 8
    agent: dict[str, Any]
    """``name`` and the fields of that agent's ``Config``, defaults filled in."""
    rollout_steps: Count | None = Field(default=None, validate_default=True)
    """Steps per environment and update (default 5); None when the agent collects whole episodes."""
    policy: PolicyConfig = PolicyConfig()
    optimizer: dict[str, Any]
    """One settings table as :func:`pgkit.optim.from_settings` takes it."""
    evaluation: EvaluationConfig = EvaluationConfig()
    log_interval: Steps | None = None
    """Environment steps between two logged rows; see :attr:`steps_per_log`."""
    checkpoint_points: Number = 5
    """Evenly spaced checkpoints of each run."""
    keep_checkpoints: Count = 2

    @property
    def seed_list(self) -> list[int]:
        """The seeds of the runs that this configuration stands for."""
        if self.seeds is None:
            return [self.seed]
        return list(range(self.seed, self.seed + self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def steps_per_log(self) -> int:
        """``log_interval``, or 1 % of ``steps``."""
        return self.log_interval or max(1, self.steps // 100)

    @property
    def agent_module(self) -> registry.Agent:
        """The module that ``agent.name`` stands for."""
        return registry.agent(self.agent["name"])

    @property
    def agent_config(self) -> BaseModel:
        """The agent's own ``Config``."""
        return _agent_config(self.agent)

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> int | tuple[int, ...] | None:
        return check_seeds("seeds", value)

    @field_validator("agent")
    @classmethod
    def _agent(cls, table: dict[str, Any]) -> dict[str, Any]:
        return {"name": table.get("name"), **_agent_config(table).model_dump()}

    @field_validator("rollout_steps")
    @classmethod
    def _rollout_steps(cls, value: int | None, info: ValidationInfo) -> int | None:
        if "agent" not in info.data:  # already an error of its own
            return value
        name = info.data["agent"]["name"]
        if registry.agent(name).collects == "steps":
            return 5 if value is None else value
        if value is not None:
            raise PgkitError(
                f"rollout_steps = {value} has no meaning for agent {name!r}, which collects whole episodes"
            )
        return None

    @field_validator("optimizer")
    @classmethod
    def _optimizer(cls, table: dict[str, Any]) -> dict[str, Any]:
        check_optimizer_tables(table, "optimizer")
        for label, settings in optim.describe(table).items():
            try:
                _check_recipe(settings)
            except PgkitError as error:
                raise PgkitError(f"optimizer ({label}): {error}") from None
        return table


def check_seeds(key: str, value: Any) -> int | tuple[int, ...] | None:
    """A count of seeds, or a list of them; None stays.

    Raises:
        PgkitError: it is neither.
    """
    if value is None or (type(value) is int and 1 <= value <= MOST):
        return value
    valid = isinstance(value, list | tuple) and all(type(seed) is int and 0 <= seed <= LARGEST for seed in value)
    if valid and 0 < len(value) == len(set(value)):
        return tuple(value)
    allowed = f"a count from 1 to {MOST:,} or a list of different whole numbers >= 0"
    raise PgkitError(f"{key} must be {allowed}, got {show(value)}")


def resolve_device(device: str) -> torch.device:
    """The torch device of a ``device`` setting.

    Raises:
        PgkitError: CUDA, or that many GPUs, are not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda" if count else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and (resolved.index or 0) >= count:
        found = f"{count} CUDA device(s) found" if count else "no CUDA device found"
        raise PgkitError(
            f"device {device!r} is not available: {found} (allowed here: cpu, auto{', cuda' * bool(count)})"
        )
    return resolved


def _float_fields(config: BaseModel) -> list[str]:
    """Fields annotated ``float`` or ``float | None`` that hold a number."""
    fields = type(config).model_fields.items()
    real = [name for name, field in fields if float in (field.annotation, *get_args(field.annotation))]
    return [name for name in real if isinstance(getattr(config, name), float)]


def _agent_config(table: Mapping[str, Any]) -> BaseModel:
    name = table.get("name")
    if not isinstance(name, str):
        known = ", ".join(registry.AGENTS)
        raise PgkitError(f"agent.name must be the name of an agent ({known}), got {show(name)}")
    config_class = registry.agent(name).Config
    settings = {key: value for key, value in table.items() if key != "name"}
    try:
        return config_class.model_validate(settings, strict=True)
    except ValidationError as error:
        raise PgkitError(explain(error, config_class, "agent.")) from None


def check_optimizer_tables(table: Any, key: str) -> None:
    """Tables are where tables belong, and numbers are finite; the rest is the optimizer module's to check."""
    if not isinstance(table, Mapping):
        raise PgkitError(f"{key} must be a table, got {show(table)}")
    if not isinstance(table.get("name", ""), str):
        raise PgkitError(f"{key}.name must be a text, got {show(table['name'])}")
    for name, value in table.items():
        if isinstance(value, Mapping) or name in ("critic", "groups", "schedule") or key.endswith(".groups"):
            check_optimizer_tables(value, f"{key}.{name}")
        elif isinstance(value, float) and not isfinite(value):
            raise PgkitError(f"{key}.{name} must be a finite number, got {value}")


def _check_recipe(settings: Mapping[str, Any]) -> None:
    """That the optimizer can be made; a list, one number for each of several members, has no place in one run."""
    recipe = optim.recipes().get(settings["name"])
    for key, value in settings.items():
        if isinstance(value, list) and recipe and not isinstance(recipe.defaults.get(key), list | tuple):
            raise PgkitError(f"{key} must be one number, got {show(value)}")
    optim.make(**{key: value for key, value in settings.items() if key != "schedule"})  # clearer about a wrong number
    optim.make(**settings)
