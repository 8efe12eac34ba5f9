"""Settings that other settings switch off: refused where somebody asks for them, left out where an override does so."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pgkit.config.aliases import KeyPath
from pgkit.config.overrides import lookup
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, format_value


def without_effect(config: TrainConfig) -> Iterator[tuple[KeyPath, KeyPath, str]]:
    """Yield each key without effect in a configuration, the key that switches it off, and why in words."""
    if isinstance(config.seeds, tuple):
        yield ("seed",), ("seeds",), "seeds is a list, which is taken as it is"
    if config.evaluation.points == 0:
        points = ("evaluation", "points")
        why = "evaluation.points = 0 switches evaluations while training off"
        yield ("evaluation", "episodes"), points, why
        yield ("evaluation", "greedy"), points, why
    elif config.evaluation.deterministic and config.evaluation.greedy:
        why = "evaluation.deterministic takes the most likely actions in every evaluation"
        yield ("evaluation", "greedy"), ("evaluation", "deterministic"), why
    if config.init is not None and config.init.best:
        why = "init.best = true takes the best evaluation, with which no optimizer state is kept"
        yield ("init", "optimizer_state"), ("init", "best"), why
    if config.epochs == config.minibatches == 1:
        why = "with epochs = 1 and minibatches = 1 an update makes one optimizer step, from where the policy has acted"
        yield ("target_kl",), ("epochs",), why
    if config.agent.get("normalize_advantage") is False:
        why = "agent.normalize_advantage = false switches it off"
        yield ("agent", "normalize_over"), ("agent", "normalize_advantage"), why
    if config.env.vectorization != "async":
        why = 'it is for the processes of env.vectorization = "async"'
        yield ("env", "timeout"), ("env", "vectorization"), why
    if not config.policy.hidden and not config.policy.critic_hidden:
        yield ("policy", "activation"), ("policy", "hidden"), "networks without hidden layers have no activation"
    if config.policy.network == "mlp":
        why = "it is for other networks than mlp"
        yield ("policy", "network_kwargs"), ("policy", "network"), why
    else:
        why = f"policy.network = {format_value(config.policy.network)} has layers of its own"
        yield ("policy", "layer_norm"), ("policy", "network"), why
    if not config.policy.hidden:
        yield ("policy", "layer_norm"), ("policy", "hidden"), "networks without hidden layers have no layer norm"
    if config.policy.squash_output:
        why = "policy.squash_output scales actions to their bounds itself"
        yield ("env", "rescale_actions"), ("policy", "squash_output"), why
    if config.policy.shared and config.policy.network == "mlp":
        why = "policy.shared gives the critic the actor's hidden layers"
        yield ("policy", "critic_hidden"), ("policy", "shared"), why
    if config.agent.get("baseline", "value") != "value":
        why = f"agent.baseline = {format_value(config.agent['baseline'])} has no critic"
        for path in (("agent", "value_coef"), ("policy", "critic_hidden"), ("optimizer", "critic")):
            yield path, ("agent", "baseline"), why


def check_effects(
    config: TrainConfig, file: Mapping[str, Any], table: Mapping[str, Any], overrides: Sequence[KeyPath]
) -> dict[str, Any]:
    """Refuse settings without effect; return the table without those that only an override has switched off.

    A key without effect may stand in a file at its default, and ``seed`` beside a list, as in a run's complete
    configuration.

    Args:
        config: the configuration, overrides applied.
        file: the table before overrides.
        table: the table with overrides.
        overrides: the keys of the overrides.

    Raises:
        PgkitError: an override without effect, or a key of the file that another key of the file switches off.
    """
    result = dict(table)
    for path, cause, why in without_effect(config):
        stated = lookup(table, path)
        if stated is ...:
            continue
        overridden = any(_is_prefix(path, each) for each in overrides) or _inside(overrides, path, file, table)
        switched_off = any(_is_prefix(each, cause) for each in overrides)
        if overridden or not (switched_off or path == ("seed",) or stated == default_of(config, path)):
            raise PgkitError(f"{'.'.join(path)} = {format_value(stated)} has no effect: {why}")
        result = _without(result, path)
    return result


CONTINUOUS_ONLY = (
    ("policy", "log_std"),
    ("policy", "state_dependent_std"),
    ("policy", "squash_output"),
    ("env", "rescale_actions"),
)
"""Settings of continuous actions."""


def check_actions(config: TrainConfig, action_space: Any) -> None:
    """Refuse a setting of continuous actions for an environment that has others.

    Raises:
        PgkitError: one of :data:`CONTINUOUS_ONLY` is set, and the space is no box.
    """
    if type(action_space).__name__ == "Box":
        return
    for path, value in _continuous_settings(config):
        shown = f"{'.'.join(path)} = {format_value(value)}"
        raise PgkitError(f"{shown} has no effect: the actions of {config.env.id} are not continuous")


def any_continuous_setting(config: TrainConfig) -> bool:
    """Whether a setting of continuous actions is not at its default."""
    return any(True for _ in _continuous_settings(config))


def _continuous_settings(config: TrainConfig) -> Iterator[tuple[KeyPath, Any]]:
    """Settings of continuous actions that are not at their default, and their values."""
    for path in CONTINUOUS_ONLY:
        value = getattr(getattr(config, path[0]), path[1])
        if value != default_of(config, path):
            yield path, value


def _inside(overrides: Sequence[KeyPath], path: KeyPath, file: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    """Whether an override of a whole table states this key in it."""
    return any(_is_prefix(each, path) for each in overrides) and lookup(file, path) != lookup(table, path)


def _is_prefix(first: KeyPath, path: KeyPath) -> bool:
    return path[: len(first)] == first


def default_of(config: TrainConfig, path: KeyPath) -> Any:
    """Return the default of a key, ``...`` if it has none."""
    model: Any = config
    if len(path) == 2:
        model = config.agent_config if path[0] == "agent" else getattr(config, path[0])
    fields = getattr(type(model), "model_fields", {})
    return fields[path[-1]].default if path[-1] in fields else ...


def _without(table: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return a copy of a table without one key."""
    if len(path) == 1:
        return {key: value for key, value in table.items() if key != path[0]}
    return {**table, path[0]: _without(table[path[0]], path[1:])}
