"""The plan of a comparison: declared, validated, resolved and hashed before anything runs."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
from pydantic import ValidationError

from pgkit.compare.plan.arms import (
    ANY_RATE,
    Check,
    check_arm,
    find_mistakes,
    optimizer_checks,
    resolve_arms,
    resolve_around,
    resolve_spaces,
)
from pgkit.compare.plan.layers import TRAINING_KEYS, case_table, check_effects, check_switched_off, without_later
from pgkit.compare.plan.schema import TIERS, ComparisonConfig
from pgkit.compare.plan.screening import LEAST_POINTS, Rung, describe, make_rungs
from pgkit.compare.plan.search_space import Setting, Space, corners, quasi_random
from pgkit.config import names
from pgkit.config.load import parse_config, read_table, to_table
from pgkit.config.overrides import Overrides, ParsedOverrides, apply_parsed, parse_overrides
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, PgkitWarning, explain_validation_error, format_value, unknown_name

FORMAT = 1
"""Version of stored plans and results; it grows when an older pgkit could not read them."""

GRID = -1
"""Setting number of runs on the grid of learning rates, which are named by their rate."""


class Case(NamedTuple):
    """An environment and an agent, and the training configuration that its runs share.

    Attributes:
        environment: the environment's id.
        agent: the agent's name.
        config: of the first arm's first run; runs differ from it in optimizer and seed.
    """

    environment: str
    agent: str
    config: TrainConfig


class Run(NamedTuple):
    """One run, identified by what distinguishes it from others."""

    stage: str
    environment: str
    agent: str
    optimizer: str
    lr: float
    seed: int
    setting: int = GRID


KEYS = Run._fields
"""Columns that identify the run of a stored row."""


class SearchPoint(NamedTuple):
    """A setting to try: a learning rate on the grid, or the number of a quasi-random setting."""

    lr: float
    setting: int = GRID


@dataclass(frozen=True)
class Plan:
    """A resolved comparison.

    Attributes:
        config: as declared.
        arms: settings of each optimizer by label, with defaults, without ``lr`` and other tuned hyperparameters.
        around: the rest of every run's ``[optimizer]`` table.
        cases: environments x agents.
        rates: the common grid, ascending.
        tuning_seeds: seeds of the runs that select settings.
        evaluation_seeds: fresh seeds, of the runs that are quoted.
        neighbours: number of evaluation seeds for the settings beside the selected one.
        declared: the arguments of :func:`make_plan`.
        spaces: of track "all tuned": the range of each tuned hyperparameter by label; else empty.
        settings: of track "all tuned": the tuned hyperparameters of each setting by label; else empty.
    """

    config: ComparisonConfig
    arms: Mapping[str, Mapping[str, Any]]
    around: Mapping[str, Any]
    cases: tuple[Case, ...]
    rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    evaluation_seeds: tuple[int, ...]
    neighbours: int
    declared: Mapping[str, Any]
    spaces: Mapping[str, Space]
    settings: Mapping[str, tuple[Setting, ...]]

    @property
    def all_tuned(self) -> bool:
        """Whether every hyperparameter is tuned, not the learning rate alone."""
        return self.config.track == "all tuned"

    @property
    def greedy(self) -> bool:
        """Whether every evaluation is repeated with the most likely actions."""
        return self.cases[0].config.evaluation.greedy

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """When rates are dropped; empty if the full grid is trained."""
        return make_rungs(len(self.tuning_seeds)) if self.config.screen == "early" else ()

    def points(self, arm: str) -> tuple[SearchPoint, ...]:
        """Return the settings to try of an arm; on the grid, before it is extended."""
        if self.all_tuned:
            return tuple(SearchPoint(setting["lr"], number) for number, setting in enumerate(self.settings[arm]))
        return tuple(map(SearchPoint, self.rates))

    @property
    def neighbour_seeds(self) -> tuple[int, ...]:
        """Seeds of the settings beside the selected one."""
        return self.evaluation_seeds[: self.neighbours]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that decides numbers; the name and the question do not."""
        content = {key: value for key, value in self._content().items() if key not in ("name", "question")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def as_data(self) -> dict[str, Any]:
        """Return plain data, as in ``plan.json``."""
        return {"format": FORMAT, "hash": self.hash, **self._content(), "declared": dict(self.declared)}

    def train_config(self, run: Run) -> TrainConfig:
        """Return the training configuration of a run."""
        case = next(case for case in self.cases if (case.environment, case.agent) == (run.environment, run.agent))
        tuned = {"lr": run.lr} if run.setting == GRID else self.settings[run.optimizer][run.setting]
        optimizer = {**self.around, **self.arms[run.optimizer], **tuned}
        return case.config.model_copy(update={"seed": run.seed, "optimizer": optimizer})

    def _repr_html_(self) -> str:
        """What a notebook shows: what will run."""
        import pandas as pd

        tried = "settings" if self.all_tuned else "learning rates"
        shown = {
            "question": self.config.question,
            "plan": self.hash[:12],
            "optimizers": ", ".join(self.arms),
            "cases": "; ".join(f"{case.environment}, {case.agent}" for case in self.cases),
            tried: ", ".join(f"{point.lr:g}" for point in self.points(next(iter(self.arms)))),
            "seeds": f"{len(self.tuning_seeds)} to tune, {len(self.evaluation_seeds)} fresh ones",
        }
        return pd.DataFrame(shown.items()).to_html(index=False, header=False)

    def _content(self) -> dict[str, Any]:
        config = self.config
        environments = {
            name: environment.model_dump(include={"reference_return", "random_return", "threshold"})
            for name, environment in config.environments.items()
        }
        first = to_table(self.cases[0].config)
        held = {"network": first["policy"], "clipping, schedule, critic": without_later(self.around)}
        held |= {key: first[key] for key in ("envs_per_member", "device")} | {"threads": 1, "dtype": "float32"}
        return {
            "name": config.name,
            "question": config.question,
            "tier": config.tier,
            **self._track(),
            "metric": "normalised area under the learning curve, actions sampled",
            "selection": "mean of the metric over tuning seeds",
            **({"screening": describe(self.rungs)} if self.rungs else {}),
            "agents": list(config.agents),
            "arms": {label: dict(settings) for label, settings in self.arms.items()},
            "environments": environments,
            "tuning_seeds": list(self.tuning_seeds),
            "evaluation_seeds": list(self.evaluation_seeds),
            "neighbour_seeds": list(self.neighbour_seeds),
            "rope": config.rope,
            **({"paired": True} if config.paired else {}),
            "failure_below": config.failure_below,
            "evaluation": without_later(first)["evaluation"],
            "held_equal": held,
            "cases": [
                {"environment": case.environment, "agent": case.agent, "config": _without_arm(case.config)}
                for case in self.cases
            ],
        }

    def _track(self) -> dict[str, Any]:
        if not self.all_tuned:
            track = "lr only: everything else at documented defaults"
            return {"track": track, "learning_rates": list(self.rates), "extensions": self.config.extensions}
        count = len(next(iter(self.settings.values())))
        return {
            "track": f"all tuned: {count} quasi-random settings for each arm, the same points of each arm's space",
            "spaces": {
                label: {name: each.model_dump() for name, each in space.items()} for label, space in self.spaces.items()
            },
            "settings": {label: [dict(setting) for setting in of_arm] for label, of_arm in self.settings.items()},
        }


def _without_arm(config: TrainConfig) -> str:
    """Return a configuration as TOML, without what differs between runs."""
    table = without_later(to_table(config))
    return tomli_w.dumps({key: value for key, value in table.items() if key not in ("name", "seed", "optimizer")})


def read_plan(name_or_path: str | Path, overrides: Overrides = ()) -> Plan:
    """Make the plan of a comparison file, or of a shipped comparison by its name.

    >>> from pgkit import compare
    >>> list(compare.read_plan("compare-cartpole", {"optimizers": ["sgd", "adam"]}).arms)
    ['sgd', 'adam']

    Args:
        name_or_path: name of a shipped comparison, or path of a TOML file; a file of that path comes first.
        overrides: ``{"tier": "standard"}`` or ``["tier=standard"]``; keys of training apply to all runs. Another
            ``optimizer.critic.name`` drops the critic's settings with warnings, see :func:`pgkit.load_config`.

    Raises:
        PgkitError: one line about the first mistake.
    """
    parsed = parse_overrides(overrides)
    of_comparison = [each for each in parsed if each[0][0] in ComparisonConfig.model_fields]
    of_training = [each for each in parsed if each not in of_comparison]
    table, notes = apply_parsed(read_table(name_or_path), of_comparison)
    last, _ = apply_parsed({}, of_training)
    plan = make_plan(table, last, str(name_or_path), parsed)
    for note in notes:
        warnings.warn(note, PgkitWarning, stacklevel=2)
    return plan


def make_plan(
    table: Mapping[str, Any],
    last: Mapping[str, Any] | None = None,
    source: str = "comparison",
    overrides: ParsedOverrides | None = None,
) -> Plan:
    """Make the plan of a table as read from TOML.

    Args:
        table: the comparison.
        last: training settings that override those of the table.
        source: what error messages call it.
        overrides: the overrides in ``table`` and ``last``, to refuse settings without effect; None refuses none, as
            plans of earlier versions may have some.

    Raises:
        PgkitError: one line about the first mistake.
    """
    of_comparison = {key: value for key, value in table.items() if key in ComparisonConfig.model_fields}
    base = {key: value for key, value in table.items() if key not in of_comparison}
    if not names.is_comparison(table):
        raise PgkitError(f"{source} is not a comparison (it has no table 'environments'): pgkit train {source}")
    config = _read_config(of_comparison, base, last or {}, source)
    if overrides is not None:
        check_effects(config, base, last or {}, overrides)
    tier = TIERS[config.tier]
    tuning = _seed_list(config.tuning_seeds, tier.tuning, start=0)
    evaluation = _seed_list(config.evaluation_seeds, tier.evaluation, start=1000)
    if common := sorted(set(tuning) & set(evaluation)):
        raise PgkitError(f"tuning_seeds and evaluation_seeds must not overlap, both have {format_value(common)}")
    arms = resolve_arms(config.optimizers)
    around = resolve_around(config.optimizer)
    rates = config.learning_rates or tier.rates
    tuned = resolve_spaces(config, arms, rates) if config.track == "all tuned" else {}
    first = {**around, **next(iter(arms.values())), "lr": rates[0]}
    cases = tuple(
        Case(environment, agent, _case_config(config, environment, agent, base, last or {}, first))
        for environment in config.environments
        for agent in config.agents
    )
    if overrides is not None:
        check_switched_off(config, base, last or {}, overrides, cases)
    if config.screen == "early":
        _check_screening(cases)
    declared = {"table": dict(table), "last": dict(last or {})}
    corner_checks = [
        (name := f"spaces, {label!r}", partial(check_arm, name, {**around, **arms[label], **corner}))
        for label, space in tuned.items()
        for corner in corners(space)
    ]
    if mistakes := find_mistakes(corner_checks):
        raise PgkitError("; ".join(mistakes))
    held = {
        label: {key: value for key, value in arm.items() if key not in tuned.get(label, ())}
        for label, arm in arms.items()
    }
    tried = {label: quasi_random(space, config.settings or tier.settings) for label, space in tuned.items()}
    return Plan(config, held, around, cases, rates, tuning, evaluation, tier.neighbours, declared, tuned, tried)


def stored_plan(stored: Mapping[str, Any], source: str) -> Plan:
    """Return the plan stored in ``plan.json``.

    Raises:
        PgkitError: this version of pgkit resolves the declared comparison to another plan.
    """
    if stored.get("format") != FORMAT:
        raise PgkitError(f"{source} has format {stored.get('format')}; this pgkit reads format {FORMAT} only")
    plan = make_plan(**stored["declared"], source=source)
    if plan.hash != stored["hash"]:
        raise PgkitError(f"{source} was made by another version of pgkit, which resolved it differently")
    return plan


def _read_config(
    of_comparison: Mapping[str, Any], base: Mapping[str, Any], last: Mapping[str, Any], source: str
) -> ComparisonConfig:
    """Validate the keys of a comparison, its optimizers and the training settings of every case, all at once."""
    known = {*ComparisonConfig.model_fields, *TRAINING_KEYS}
    mistakes = [unknown_name("key", key, known) for key in (*base, *last) if key not in TRAINING_KEYS]
    config = valid_part = None
    try:
        config = valid_part = ComparisonConfig.model_validate(of_comparison)
    except ValidationError as error:
        mistakes.append(explain_validation_error(error, ComparisonConfig))
        valid_part = _without_mistakes(of_comparison, error)
    mistakes += find_mistakes(optimizer_checks(of_comparison.get("optimizers"), of_comparison.get("optimizer", {})))
    if valid_part is not None:
        mistakes += find_mistakes(_case_checks(valid_part, base, last))
    if mistakes or config is None:
        raise PgkitError(f"{source}: {'; '.join(dict.fromkeys(mistakes))}")
    return config


def _without_mistakes(of_comparison: Mapping[str, Any], error: ValidationError) -> ComparisonConfig | None:
    """Return a comparison without the keys that are wrong, to check the rest; None if it does not stand without."""
    wrong = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
    rest = {key: value for key, value in of_comparison.items() if key not in wrong}
    try:
        return ComparisonConfig.model_validate({"question": "?", "optimizers": ["sgd"], **rest})
    except ValidationError:
        return None


def _case_checks(config: ComparisonConfig, base: Mapping[str, Any], last: Mapping[str, Any]) -> Iterator[Check]:
    """Yield the checks of the training settings of every case."""
    if any(key not in TRAINING_KEYS for key in (*base, *last)):
        base = {"steps": 1, **base}  # a key that is misspelt is not missing, too
    base, last = ({key: layer[key] for key in layer if key in TRAINING_KEYS} for layer in (base, last))
    optimizer = {"name": "sgd", "lr": ANY_RATE}
    for environment in config.environments:
        for agent in config.agents:
            check = partial(_case_config, config, environment, agent, base, last, optimizer)
            yield f"{environment}, {agent}", check


def _check_screening(cases: Sequence[Case]) -> None:
    """Check that rates can be dropped in these cases.

    Raises:
        PgkitError: they cannot.
    """
    for environment, agent, config in cases:
        if config.evaluation.points < LEAST_POINTS:
            raise PgkitError(
                f'{environment}, {agent}: screen = "early" needs evaluation.points of at least {LEAST_POINTS}, '
                f"got {config.evaluation.points}"
            )
        if config.callbacks:
            raise PgkitError(f'{environment}, {agent}: screen = "early" pauses runs, so no callbacks can watch them')


def _seed_list(declared: int | tuple[int, ...] | None, count: int, start: int) -> tuple[int, ...]:
    if isinstance(declared, tuple):
        return declared
    return tuple(range(start, start + (count if declared is None else declared)))


def _case_config(
    config: ComparisonConfig,
    environment: str,
    agent: str,
    base: Mapping[str, Any],
    last: Mapping[str, Any],
    optimizer: Mapping[str, Any],
) -> TrainConfig:
    table = case_table(config, environment, agent, base, last)
    table = {**table, "optimizer": optimizer}
    steps = table.get("steps")
    if isinstance(steps, int) and steps > 0:
        table.setdefault("log_interval", steps)  # nobody reads log rows of a comparison's runs
    return parse_config(table, f"{environment}, {agent}")
