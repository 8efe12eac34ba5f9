"""The models of a training configuration: every key, its type, its range and its default.

An unknown key, a wrong type or a value out of range is a :class:`~pgkit.errors.PgkitError` of one line.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from pgkit import optim
from pgkit.config import registry
from pgkit.config.aliases import SHORT, agent_name
from pgkit.errors import PgkitError, explain_validation_error, format_value
from pgkit.optim.validation import is_none

MAX_COUNT = 1_000_000
"""The most members, environments, episodes or units of a layer; more is a typing mistake."""

MAX_INT = 2**63 - 1
"""The largest whole number of TOML and of int64 tensors."""


def whole_number(value: Any) -> Any:
    """Return ``1e5`` as the integer that it is; anything else as it stands."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=MAX_COUNT)]

CountOrZero = Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=MAX_COUNT)]

Steps = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=10**15)]

Gains = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False)]

Sizes = Annotated[tuple[Count, ...], Field(strict=False)]

Name = Annotated[
    str,
    Field(pattern=r"^\w[\w .,=+-]*$", json_schema_extra={"allowed": "letters, digits and any of _ . , = + - inside"}),
]

Device = Annotated[
    str, Field(pattern=r"^(cpu|auto|cuda(:\d+)?)$", json_schema_extra={"allowed": "cpu, cuda, cuda:N or auto"})
]


class Model(BaseModel):
    """Base of every table: frozen, no unknown keys, no conversions (``"1e-3"`` is text, not a number).

    The docstring below a field is its description in the key reference (``pgkit/config/README.md``).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _without_none(cls, table: Any) -> Any:
        """Leave out what is none in words, where None is the default."""
        if not isinstance(table, Mapping):
            return table
        defaults = {key: field.default for key, field in cls.model_fields.items()}
        return {key: value for key, value in table.items() if not is_none(value, defaults.get(key, ...))}


class EnvConfig(Model):
    """``[env]``: the environment, and how observations and rewards are scaled before the agent sees them."""

    id: str = Field(min_length=1)
    """Gymnasium id such as ``CartPole-v1``, or ``package.module:Id`` to import a module that registers it."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the environment's constructor, such as ``gravity``."""
    max_episode_steps: Steps | None = None
    """Time limit of an episode in steps; without it, the limit that the environment is registered with."""
    backend: Literal["auto", "gymnasium", "pgkit", "envpool"] = "auto"
    """Which implementation runs the environment; ``auto`` takes the fastest one that is installed."""
    vectorization: Literal["sync", "async"] = "sync"
    """Gymnasium environments in this process one after the other (``sync``), or in one process per core (``async``)."""
    timeout: float | None = Field(default=None, gt=0, le=1e6)
    """Seconds that a process of ``async`` may take for one step or reset of its environments; default 300."""
    wrappers: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """Wrappers around each environment, the innermost first: ``["ClipReward"]``, ``[{ name = "FrameStackObservation",
    stack_size = 4 }]``; names as in ``gymnasium.wrappers``, or ``package.module:Class``."""
    rescale_actions: bool = True
    """Rescale continuous actions whose bounds are far from the unit Gaussian, such as 100 to 200, from -1 to 1."""
    reward_scale: float = Field(default=1.0, gt=0)
    """Constant factor of every reward that the agent sees; logged returns stay unscaled."""
    normalize_observations: bool = False
    """Subtract the running mean of observations and divide by their running standard deviation, per member."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return, per member."""

    @field_validator("wrappers", mode="before")
    @classmethod
    def _wrappers(cls, value: Any) -> Any:
        entries = [value] if isinstance(value, str | Mapping) else value
        if not isinstance(entries, list | tuple):
            return value
        tables = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
        if all(isinstance(table, Mapping) and isinstance(table.get("name"), str) for table in tables):
            return tables
        raise PgkitError(f"env.wrappers must be names or tables with a name, got {format_value(value)}")


class PolicyConfig(Model):
    """``[policy]``: the networks of actor and critic."""

    network: str = Field(default="mlp", min_length=1)
    """``mlp``, ``nature-cnn``, ``minatar-cnn``, ``gru`` (with memory), or any module: ``package.module:Class``."""
    network_kwargs: dict[str, Any] = {}
    """Arguments of a network other than ``mlp``, such as ``features`` (CNNs) and ``hidden_size`` (``gru``)."""
    hidden: Sizes = (64, 64)
    """Units of each hidden layer of the actor; after another network than ``mlp`` there are none by default."""
    critic_hidden: Sizes | None = None
    """Units of each hidden layer of the critic; default: the same as ``hidden``."""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """Activation function between layers."""
    layer_norm: bool = False
    """Layer norm before each activation."""
    shared: bool = False
    """Actor and critic share their hidden layers, or another network than ``mlp``, where that is the default."""
    orthogonal: bool = True
    """Orthogonal initial weights with the gains usual for policy gradients; else normal ones of variance 1 / fan-in."""
    gains: Gains | None = None
    """Factor of the initial weights of each layer of the actor; default: 1.414 in hidden layers, 0.01 in the last."""
    critic_gains: Gains | None = None
    """The same of the critic; default: 1.414 in hidden layers, 1 in the last."""
    log_std: float = Field(default=0.0, ge=-20, le=20)
    """Initial log standard deviation of a Gaussian policy (continuous actions)."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_network(cls, table: Any) -> Any:
        """Networks other than ``mlp`` are shared and have no layers after them, unless it is stated."""
        if not isinstance(table, Mapping) or table.get("network", "mlp") == "mlp":
            return table
        return {"hidden": (), "shared": True, **table}

    @model_validator(mode="after")
    def _consistent(self) -> "PolicyConfig":
        critic = self.hidden if self.critic_hidden is None else self.critic_hidden
        for key, gains, layers in (("gains", self.gains, self.hidden), ("critic_gains", self.critic_gains, critic)):
            if gains is not None and len(gains) != len(layers) + 1:
                wanted = f"{len(layers)} hidden layers and one for the last"
                raise PgkitError(f"policy.{key} must have a number for each of {wanted}, got {format_value(gains)}")
        if self.network == "gru" and not self.shared:
            raise PgkitError("policy.shared = false is not possible with policy.network 'gru': the memory is one")
        return self


class EvaluationConfig(Model):
    """``[evaluation]``: evaluations while training, and the final one, on environments of their own."""

    points: CountOrZero = 20
    """Number of evenly spaced evaluations while training; 0: none."""
    episodes: Count = 10
    """Episodes of each of these evaluations."""
    final_episodes: Count = 100
    """Episodes of the evaluation after training."""
    envs: Count = 32
    """The most environments that evaluations use at a time; pgkit's own cost next to nothing and are not counted."""
    deterministic: bool = False
    """Evaluate with the most likely actions instead of sampled ones."""
    greedy: bool = False
    """Evaluate while training a second time with the most likely actions, logged as ``eval/greedy_return_mean``."""


class InitConfig(Model):
    """``[init]``: the run that training goes on from; without it, parameters are drawn."""

    run: str = Field(min_length=1)
    """Run, by directory or name below ``runs/``, with one member for all of this run, or with as many, in order."""
    member: str | int | None = None
    """The member of that run that all members begin with: its seed, or its label such as ``seed-3``."""
    best: bool = False
    """Take that run at its best evaluation while training, instead of at its latest checkpoint."""
    optimizer_state: bool = False
    """Take the optimizer's moments and counters, too; its settings and schedules are those of this run."""

    @field_validator("member", mode="before")
    @classmethod
    def _member(cls, value: Any) -> Any:
        value = whole_number(value)
        if value is None or type(value) in (int, str):
            return value
        raise PgkitError(f"init.member must be a seed or a label such as seed-3, got {format_value(value)}")


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
        known = ", ".join(registry.AGENTS)
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
