"""The tables of a training configuration, and the types of their keys."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pgkit.errors import PgkitError, format_value
from pgkit.kernels.state_std import MAX_LOG_STD
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
    action_mask: bool = True
    """Never choose actions that ``info["action_mask"]``, or an observation's entry of that name, excludes."""
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
    state_dependent_std: bool = False
    """The network computes the log standard deviations, too, within [-20, 2]; else they are parameters (continuous)."""
    squash_output: bool = False
    """Squash a Gaussian policy's actions by tanh into their bounds, instead of clipping them (continuous actions)."""

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
        if self.state_dependent_std and self.log_std > MAX_LOG_STD:
            raise PgkitError(
                f"policy.log_std must be at most {MAX_LOG_STD:g} with policy.state_dependent_std = true, which limits "
                f"it to that, got {self.log_std:g}"
            )
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


class DiagnoseConfig(Model):
    """``[diagnose]``: measure noise of gradients and health of networks while training; logged to TensorBoard."""

    every: Steps
    """Environment steps of a run between two measurements, each made at the next evaluation."""
    copies: Annotated[int, BeforeValidator(whole_number), Field(ge=8)] = 32
    """Batches whose gradients are compared, each by a copy of the policy in environments of its own."""


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
