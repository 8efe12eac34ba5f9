"""The training settings of a case, layer over layer, and the refusal of settings that no run would obey."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pgkit.compare.plan.schema import ComparisonConfig
from pgkit.config import names
from pgkit.config.aliases import KeyPath
from pgkit.config.effects import default_of, without_effect
from pgkit.config.overrides import ParsedOverrides, lookup
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, format_value, unknown_name
from pgkit.optim.around import AROUND

EVALUATION = {"points": 50, "episodes": 20, "final_episodes": 100}
"""51 evaluations (0, 2, ..., 100 % of the budget), 20 episodes each, and 100 of the final policy."""

TRAINING_KEYS = tuple(key for key in TrainConfig.model_fields if key not in ("name", "seed", "seeds", "optimizer"))
"""Training settings that may stand at the top of a comparison."""

DECIDED: Mapping[KeyPath, str] = {
    ("name",): "a comparison records no single runs",
    ("seed",): "use tuning_seeds and evaluation_seeds",
    ("seeds",): "use tuning_seeds and evaluation_seeds",
    ("init",): "the runs of a comparison begin with parameters drawn from their seeds",
    ("env", "id"): "the environments of a comparison are its tables, environments.<id>",
    ("agent", "name"): "the agents of a comparison are those of its list agents",
    ("optimizer",): "use optimizers, and the table optimizer of the comparison",
    ("logger",): "runs of a comparison are not logged; its report comes with TensorBoard files",
    ("log_interval",): "runs of a comparison are not logged",
    ("checkpoint_points",): "runs of a comparison have no checkpoints, batches that were stopped begin anew",
    ("keep_checkpoints",): "runs of a comparison have no checkpoints, batches that were stopped begin anew",
    ("evaluation", "deterministic"): "scores are of sampled actions; evaluation.greedy evaluates the most likely ones",
}
"""Training settings that a comparison decides itself, and what to use instead."""

Table = dict[str, Any]


LATER: Mapping[str, Mapping[str, Any]] = {
    "evaluation": {"greedy": False, "envs": 32},
    "env": {"rescale_actions": True},
    "critic": {"cautious": False, "trac": False, "trac_s_prev": 1e-8, "kl_backtracking": True},
}
"""Settings added after the first plans; left out at these values, so that hashes of older plans stay the same."""


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> Table:
    """Return ``first`` updated by ``second``, tables merged recursively."""
    result = dict(first)
    for key, value in second.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def case_table(
    config: ComparisonConfig, environment: str, agent: str, base: Mapping[str, Any], last: Mapping[str, Any]
) -> Table:
    """Return the training settings of a case, without its optimizer.

    Args:
        config: the comparison.
        environment: the case's environment.
        agent: the case's agent.
        base: training settings at the top of the comparison.
        last: training settings of the command line.
    """
    scored = config.environments[environment]
    table: Table = {"evaluation": EVALUATION}
    for layer in (base, scored.train, scored.agents.get(agent, {}), last):
        table = merged(table, layer)
    return merged(table, {"name": config.name, "env": {"id": environment}, "agent": {"name": agent}})


def check_effects(
    config: ComparisonConfig, base: Mapping[str, Any], last: Mapping[str, Any], overrides: ParsedOverrides
) -> None:
    """Refuse every setting that no run of a comparison would obey.

    Args:
        config: the comparison, overrides applied.
        base: training settings at the top of its file.
        last: training settings of the command line.
        overrides: all overrides.

    Raises:
        PgkitError: naming the first setting without effect, and what to use instead.
    """
    for place, layer, cases in _layers(config, base, last):
        for path, value in leaves(layer):
            _check_decided(place, path, value, cases)
    for name, scored in config.environments.items():
        for agent in scored.agents:
            if agent not in (*config.agents, *names.AGENTS):
                raise PgkitError(f"environments.{name}.agents: {unknown_name('agent', agent, config.agents)}")
    for key in config.optimizer:
        if key not in (*AROUND, "schedule", "critic", "groups", "name", "lr"):  # the last two are refused elsewhere
            raise PgkitError(
                f"optimizer.{key} has no effect: the table optimizer of a comparison is around every optimizer "
                f'(allowed: {", ".join(AROUND)}, schedule, critic, groups); use optimizers=[{{name="...", {key}=...}}]'
            )
    _check_overrides(config, base, last, overrides)


def check_switched_off(
    config: ComparisonConfig,
    base: Mapping[str, Any],
    last: Mapping[str, Any],
    overrides: ParsedOverrides,
    cases: Sequence[tuple[str, str, TrainConfig]],
) -> None:
    """Refuse every training setting that other settings switch off in all cases that it is for.

    An override may switch off what stands in the file. Arguments are those of :func:`check_effects`, and:

    Args:
        cases: every environment, agent, and their settings.

    Raises:
        PgkitError: naming the first setting without effect, and why.
    """
    paths = [path for path, _ in overrides]
    settings = {(environment, agent): of_case for environment, agent, of_case in cases}
    off = {case: list(without_effect(of_case)) for case, of_case in settings.items()}
    for place, layer, of_layer in _layers(config, base, last):
        for path, value in leaves(layer):
            reasons = [each for case in of_layer for each in off[case] if each[0] == path]
            if not reasons or len(reasons) < len(of_layer) or value == default_of(settings[of_layer[0]], path):
                continue
            _, cause, why = reasons[0]
            overridden = layer is last or any((*place, *path)[: len(each)] == each for each in paths if place)
            if overridden or not any(_ends_with(each, cause) for each in paths):
                raise PgkitError(f"{'.'.join((*place, *path))} = {format_value(value)} has no effect: {why}")


def _ends_with(path: KeyPath, key: KeyPath) -> bool:
    """Whether a path of a comparison states a training setting, or a table that holds it."""
    return any(path[start:] == key[: len(path) - start] for start in range(len(path)))


def leaves(table: Mapping[str, Any], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the path and the value of every setting that is no table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


Cases = Sequence[tuple[str, str]]
"""Environments and agents."""


def _layers(
    config: ComparisonConfig, base: Mapping[str, Any], last: Mapping[str, Any]
) -> Iterator[tuple[KeyPath, Mapping[str, Any], Cases]]:
    """Yield each layer of training settings: its place in the comparison, its settings and its cases."""
    everywhere = [(environment, agent) for environment in config.environments for agent in config.agents]
    yield (), base, everywhere
    yield (), last, everywhere
    for name, scored in config.environments.items():
        place = ("environments", name)
        yield (*place, "train"), scored.train, [(name, agent) for agent in config.agents]
        for agent, settings in scored.agents.items():
            cases = [(name, agent)] if agent in config.agents else []
            yield (*place, "agents", agent), settings, cases


def _check_decided(place: KeyPath, path: KeyPath, value: Any, cases: Cases) -> None:
    """Refuse a setting that a comparison decides itself, unless it says what is decided."""
    decided = next((path[:length] for length in range(1, len(path) + 1) if path[:length] in DECIDED), None)
    if decided is None:
        return
    columns: dict[KeyPath, int] = {("env", "id"): 0, ("agent", "name"): 1}
    column = columns.get(decided)
    if column is not None and all(case[column] == value for case in cases):
        return
    if decided == ("evaluation", "deterministic") and value is False:
        return
    raise PgkitError(f"{'.'.join((*place, *path))} = {format_value(value)} has no effect: {DECIDED[decided]}")


def _check_overrides(
    config: ComparisonConfig, base: Mapping[str, Any], last: Mapping[str, Any], overrides: ParsedOverrides
) -> None:
    """Refuse an override that is overruled in every run that it is for."""
    paths = [path for path, _ in overrides]
    tables = {
        (environment, agent): case_table(config, environment, agent, base, last)
        for environment in config.environments
        for agent in config.agents
    }
    for place, layer, cases in _layers(config, base, last):
        for path, value in leaves(layer) if place else ():
            full = (*place, *path)
            overridden = any(full[: len(each)] == each for each in paths)
            if overridden and not any(lookup(tables[case], path) == value for case in cases):
                shown = f"{'.'.join(full)} = {format_value(value)} has no effect"
                if not cases:
                    raise PgkitError(f"{shown}: agents = {format_value(list(config.agents))} are compared")
                raise PgkitError(f"{shown}: other settings of the comparison overrule it in every run")
    for key in config.optimizer:
        stated = all(isinstance(arm, Mapping) and key in arm for arm in config.optimizers)
        overridden = any(path in (("optimizer",), ("optimizer", key)) for path in paths)
        if overridden and stated and "critic" not in config.optimizer:
            raise PgkitError(f"optimizer.{key} has no effect: every one of optimizers states its own {key}")
    ranges = [config.spaces.get(arm_label(arm), {}) for arm in config.optimizers]
    if ("learning_rates",) in paths and config.track == "all tuned" and all("lr" in of_arm for of_arm in ranges):
        raise PgkitError("learning_rates has no effect: spaces states the range of every optimizer's lr")


def arm_label(arm: str | Mapping[str, Any]) -> str:
    """Return the label of an arm: as declared, or its name without the module."""
    if isinstance(arm, str):
        return arm.rpartition(":")[2]
    return str(arm.get("label") or str(arm.get("name", "")).rpartition(":")[2])


def without_later(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, or what is around arms, without the :data:`LATER` settings that are at their defaults."""
    return {
        part: {key: value for key, value in inner.items() if LATER[part].get(key, ...) != value}
        if part in LATER
        else inner
        for part, inner in table.items()
    }
