"""The model of a training configuration: every key, its type, its range and its default.

An unknown key, a wrong type or a value out of range is a :class:`~pgkit.errors.PgkitError` of one line.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator
from pydantic_core.core_schema import ValidationInfo

from pgkit import optim
from pgkit.config import registry
from pgkit.config.aliases import SHORT, agent_name
from pgkit.config.names import AGENTS
from pgkit.config.tables import (
    MAX_COUNT,
    MAX_INT,
    Count,
    CountOrZero,
    Device,
    DiagnoseConfig,
    EnvConfig,
    EvaluationConfig,
    InitConfig,
    Model,
    Name,
    PolicyConfig,
    Steps,
    whole_number,
)
from pgkit.errors import PgkitError, explain_validation_error, format_value, unknown_name
from pgkit.optim.validation import is_none


class TrainConfig(Model):
    """Everything that decides what ``pgkit train`` does.

    >>> import pgkit
    >>> config = pgkit.load_config("cartpole-actor-critic", {"steps": 20_000, "optimizer.lr": 1e-3, "seeds": 4})
    >>> config.env.id, config.seed_list
    ('CartPole-v1', [0, 1, 2, 3])
    """

    name: Name
    """Name of the run, which is written to ``runs/<name>``; default: the name of the configuration file."""
    seed: Annotated[int, BeforeValidator(whole_number)] = Field(default=0, ge=0, le=MAX_INT)
    """Seed of a single run, or the first one if ``seeds`` is a count."""
    seeds: int | tuple[int, ...] | None = None
    """A count K trains ``seed, seed + 1, ..., seed + K - 1`` as one population; a list is taken as it is."""
    steps: Steps
    """Environment steps of each run, all its environments together."""
    device: Device = "cpu"
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto`` (CUDA if there is any)."""
    env: EnvConfig
    """The environment."""
    init: InitConfig | None = None
    """The run that training goes on from; ``init=runs/x`` is short for ``init.run=runs/x``."""
    envs_per_member: Count = 8
    """Parallel environments of each run."""
    agent: dict[str, Any]
    """``name`` of the agent and its settings; see the tables of the agents."""
    rollout_steps: Count | None = Field(default=None, validate_default=True)
    """Steps per environment and update, default 5; not for agents that collect whole episodes."""
    epochs: Count = Field(default=1, validate_default=True)
    """How often an update goes over its rollout; for agents that collect steps."""
    minibatches: Count = Field(default=1, validate_default=True)
    """Parts of each epoch, with an optimizer step each: equal shares of ``rollout_steps * envs_per_member`` samples."""
    target_kl: float | None = Field(default=None, gt=0)
    """End an update of a run once its policy is 1.5 times this far from the one that acted, in nats; default: never."""
    policy: PolicyConfig = PolicyConfig()
    """The networks."""
    optimizer: dict[str, Any]
    """``name`` of the optimizer, its hyperparameters, ``critic``, ``groups``, ``schedule``; see the table below."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluations."""
    log_interval: Steps | None = None
    """Environment steps between two logged rows; default: 1 % of ``steps``."""
    checkpoint_points: CountOrZero = 5
    """Number of evenly spaced checkpoints of each run."""
    keep_checkpoints: Count = 2
    """Number of checkpoints that are kept, the latest ones."""
    diagnose: DiagnoseConfig | None = None
    """Measurements while training; default: none. ``pgkit diagnose`` measures more, of a finished run."""
    callbacks: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] | None = None
    """Objects that see what happens and can stop the run: ``"my_module:Mine"``, or a table of ``name`` and more."""
    logger: Annotated[tuple[str, ...], Field(strict=False)] = registry.DEFAULT_LOGGER
    """Where the run is logged: some of ``tensorboard``, ``wandb``, ``mlflow``, ``trackio`` and ``csv``, or ``none``."""

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
        """The module that defines the agent."""
        return registry.agent(self.agent["name"])

    @property
    def agent_config(self) -> BaseModel:
        """The agent's settings as an instance of its ``Config``."""
        return _agent_config(self.agent)

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> int | tuple[int, ...] | None:
        return check_seeds("seeds", value)

    @field_validator("env", "init", "agent", "optimizer", mode="before")
    @classmethod
    def _short(cls, value: Any, info: ValidationInfo) -> Any:
        return {SHORT[str(info.field_name)]: value} if isinstance(value, str) else value

    @field_validator("callbacks", mode="before")
    @classmethod
    def _callbacks(cls, value: Any) -> Any:
        return None if value is None else check_callback_tables(value)

    @field_validator("logger", mode="before")
    @classmethod
    def _logger(cls, value: Any) -> tuple[str, ...]:
        return check_loggers(value)

    @field_validator("agent")
    @classmethod
    def _agent(cls, table: dict[str, Any]) -> dict[str, Any]:
        table = {**table, "name": agent_name(table.get("name"))}
        return {"name": table["name"], **_agent_config(table).model_dump(exclude_none=True)}

    @field_validator("rollout_steps")
    @classmethod
    def _rollout_steps(cls, value: int | None, info: ValidationInfo) -> int | None:
        if "agent" not in info.data:  # the agent is wrong, which is reported first
            return value
        name = info.data["agent"]["name"]
        if registry.agent(name).collects == "steps":
            return 5 if value is None else value
        if value is not None:
            raise PgkitError(f"rollout_steps = {value} has no effect: agent {name!r} collects whole episodes")
        return None

    @field_validator("epochs", "minibatches")
    @classmethod
    def _passes(cls, value: int, info: ValidationInfo) -> int:
        if value == 1 or "agent" not in info.data or "rollout_steps" not in info.data:
            return value
        name = info.data["agent"]["name"]
        if info.data["rollout_steps"] is None:
            raise PgkitError(f"{info.field_name} = {value} has no effect: agent {name!r} collects whole episodes")
        steps, envs = info.data["rollout_steps"], info.data.get("envs_per_member", value)
        if info.field_name == "minibatches" and steps * envs % value:
            samples = f"rollout_steps * envs_per_member = {steps} * {envs} = {steps * envs:,} samples"
            raise PgkitError(f"minibatches must divide {samples} into equal parts, got {value}")
        return value

    @field_validator("policy")
    @classmethod
    def _policy(cls, policy: PolicyConfig, info: ValidationInfo) -> PolicyConfig:
        envs, parts = info.data.get("envs_per_member", 1), info.data.get("minibatches", 1)
        if policy.network == "gru" and envs % parts:
            raise PgkitError(
                f"minibatches must divide envs_per_member = {envs} with policy.network 'gru', because the sequence of "
                f"an environment stays whole, got {parts}"
            )
        return policy

    @field_validator("optimizer")
    @classmethod
    def _optimizer(cls, table: dict[str, Any]) -> dict[str, Any]:
        check_optimizer(table)
        return _none_in_words(table)


def check_callback_tables(value: Any) -> tuple[dict[str, Any], ...] | None:
    """Check that callbacks of a configuration exist; a text is short for a table of its name. An empty list is None.

    Raises:
        PgkitError: one does not, or has no name.
    """
    if not isinstance(value, list | tuple):
        raise PgkitError(f"callbacks must be a list of texts and tables, got {format_value(value)}")
    tables = [{"name": entry} if isinstance(entry, str) else entry for entry in value]
    for table in tables:
        name = table.get("name") if isinstance(table, Mapping) else None
        if not isinstance(name, str):
            raise PgkitError(f"callbacks: each is a text, or a table with a name, got {format_value(table)}")
        registry.callback_class(name)
    return tuple(dict(table) for table in tables) or None


def check_loggers(value: Any) -> tuple[str, ...]:
    """Check the names of loggers; a text is short for a list of it, and "none" for an empty one.

    Raises:
        PgkitError: one is unknown, or comes twice.
    """
    names = [] if value == "none" else [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise PgkitError(f"logger must be a name or a list of names, got {format_value(value)}")
    for name in names:
        if name not in registry.LOGGERS:
            raise PgkitError(unknown_name("logger", name, (*registry.LOGGERS, "none")))
        if names.count(name) > 1:
            raise PgkitError(f"logger: {name!r} comes twice")
    return tuple(names)


def check_optimizer(table: Mapping[str, Any]) -> None:
    """Check that the optimizers of a table ``[optimizer]`` can be made.

    Raises:
        PgkitError: naming the group of parameters and the hyperparameter.
    """
    check_optimizer_tables(table, "optimizer")
    for label, settings in optim.describe(table).items():
        try:
            _check_optimizer(settings)
        except PgkitError as error:
            raise PgkitError(f"optimizer ({label}): {error}") from None


def _none_in_words(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of an optimizer with "none" in place of None, which no file can hold."""
    words = {key: "none" if value is None else value for key, value in table.items()}
    return {key: _none_in_words(value) if isinstance(value, Mapping) else value for key, value in words.items()}


def check_seeds(key: str, value: Any) -> int | tuple[int, ...] | None:
    """Validate a count of seeds or a list of them; None passes.

    Raises:
        PgkitError: it is neither.
    """
    value = whole_number(value)
    if value is None or (type(value) is int and 1 <= value <= MAX_COUNT):
        return value
    valid = isinstance(value, list | tuple) and all(type(seed) is int and 0 <= seed <= MAX_INT for seed in value)
    if valid and 0 < len(value) == len(set(value)):
        return tuple(value)
    allowed = f"a count from 1 to {MAX_COUNT:,} or a list of different whole numbers >= 0"
    raise PgkitError(f"{key} must be {allowed}, got {format_value(value)}")


def float_fields(config: BaseModel) -> list[str]:
    """Fields annotated ``float`` or ``float | None`` that hold a number; members may differ in these."""
    fields = type(config).model_fields.items()
    names = [name for name, field in fields if float in (field.annotation, *get_args(field.annotation))]
    return [name for name in names if isinstance(getattr(config, name), float)]


def check_optimizer_tables(table: Any, key: str) -> None:
    """Check that tables stand where tables belong and numbers are finite; :mod:`pgkit.optim` checks the rest.

    Raises:
        PgkitError: naming the key.
    """
    if not isinstance(table, Mapping):
        raise PgkitError(f"{key} must be a table, got {format_value(table)}")
    if not isinstance(table.get("name", ""), str):
        raise PgkitError(f"{key}.name must be a text, got {format_value(table['name'])}")
    for name, value in table.items():
        if isinstance(value, Mapping) or name in ("critic", "groups", "schedule") or key.endswith(".groups"):
            check_optimizer_tables(value, f"{key}.{name}")
        elif isinstance(value, float) and not isfinite(value):
            raise PgkitError(f"{key}.{name} must be a finite number, got {value}")


def _agent_config(table: Mapping[str, Any]) -> BaseModel:
    name = table.get("name")
    if not isinstance(name, str):
        known = ", ".join(AGENTS)
        raise PgkitError(f"agent.name must be the name of an agent ({known}), got {format_value(name)}")
    config_class = registry.agent(name).Config
    defaults = {key: field.default for key, field in config_class.model_fields.items()}
    stated = ((key, value) for key, value in table.items() if key != "name")
    settings = {key: value for key, value in stated if not is_none(value, defaults.get(key, ...))}
    try:
        return config_class.model_validate(settings, strict=True)
    except ValidationError as error:
        raise PgkitError(explain_validation_error(error, config_class, "agent.")) from None


def _check_optimizer(settings: Mapping[str, Any]) -> None:
    """Check that the optimizer can be made; one number per member, a list, has no place in one run's settings."""
    spec = optim.spec(settings["name"]) if settings["name"] in optim.list_optimizers() else None
    for key, value in settings.items():
        if isinstance(value, list) and spec and not isinstance(spec.defaults.get(key), list | tuple):
            raise PgkitError(f"{key} must be one number, got {format_value(value)}")
    optim.make(**{key: value for key, value in settings.items() if key != "schedule"})  # clearer about a wrong number
    optim.make(**settings)
