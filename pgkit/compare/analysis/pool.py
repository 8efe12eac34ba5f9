"""Pool comparisons that were run one by one: either their environments and agents, or their arms, may differ.

They must agree in everything else: in their plans, and in the versions and the hardware that decide their bits.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pgkit.compare.execution.store import Store, check_same_origin
from pgkit.compare.plan.plan import KEYS, Plan
from pgkit.errors import PgkitError, format_value
from pgkit.system.files import read_json

OF_CASES = ("agents", "environments", "cases")
OF_ARMS = ("arms", "spaces", "settings")
"""Keys of a plan that may differ between comparisons that are pooled as cases, or as arms of the same cases."""

FREE = ("hash", "declared", "name", "question")

OF_A_CASE = "envs_per_member"
"""The one setting that is held equal within a case only."""


SHORT = 60
"""Longer values are left out of error messages (characters)."""


class Stored(NamedTuple):
    """The stored results of one comparison."""

    name: str
    plan: Plan
    baselines: pd.DataFrame
    runs: pd.DataFrame
    provenance: Mapping[str, Any]


def read_stored(directory: Path) -> Stored:
    """Read the plan, baselines, runs and provenance of a comparison.

    Raises:
        PgkitError: there is no comparison, it has no results yet, or it cannot be read.
    """
    store = Store(directory)
    plan = store.plan()
    baselines = store.baselines()
    if baselines is None:
        raise PgkitError(f"{directory} has no results yet")
    return Stored(str(directory), plan, baselines, store.load(), read_json(directory / "provenance.json"))


def pool(parts: Sequence[Stored], name: str) -> Stored:
    """Pool comparisons into one, cases and arms in the order of the parts.

    Args:
        parts: at least one comparison.
        name: of the pooled comparison.

    Raises:
        PgkitError: naming the first field in which two of them must not differ.
    """
    joined = parts[0]
    for part in parts[1:]:
        check_same_origin(joined.provenance["origin"], part.provenance["origin"], joined.name, part.name)
        joined = _joined(joined, part)
    config = joined.plan.config.model_copy(update={"name": name, "question": _questions(parts)})
    provenance = {
        **parts[0].provenance,
        "pooled": {part.name: part.plan.hash for part in parts},
        "sessions": [session for part in parts for session in part.provenance["sessions"]],
    }
    return joined._replace(name=name, plan=replace(joined.plan, config=config), provenance=provenance)


def _joined(first: Stored, second: Stored) -> Stored:
    """Pool two comparisons that differ in cases or in arms."""
    where = f"{first.name} and {second.name}"
    contents = [_content(part.plan) for part in (first, second)]
    differing = [key for key in contents[0] | contents[1] if contents[0].get(key) != contents[1].get(key)]
    for key in differing:
        if key not in (*OF_CASES, *OF_ARMS):
            raise PgkitError(f"{where} cannot be pooled: they differ in {_inner(key, *contents)}")
    _check_common(contents, where)
    as_cases, as_arms = (any(key in keys for key in differing) for keys in (OF_CASES, OF_ARMS))
    if as_cases and as_arms:
        raise PgkitError(f"{where} cannot be pooled: they differ in cases and in arms, and only one of them may differ")
    plan = _with_cases(first, second, where) if as_cases else _with_arms(first, second, where)
    baselines = pd.concat([first.baselines, second.baselines], ignore_index=True)
    runs = pd.concat([first.runs, second.runs]).sort_values(list(KEYS), ignore_index=True)
    return Stored(
        where, plan, baselines.drop_duplicates(["environment", "policy"], ignore_index=True), runs, first.provenance
    )


def _content(plan: Plan) -> dict[str, Any]:
    """Return the content of a plan as in its file, without what may differ."""
    content = {key: value for key, value in json.loads(json.dumps(plan.as_data())).items() if key not in FREE}
    content["held_equal"].pop(OF_A_CASE)
    return content


def _inner(key: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return the full key of the first difference, with the values if they are short: ``rope (0.05 and 0.1)``."""
    pair: list[Any] = [first.get(key), second.get(key)]
    while all(isinstance(value, dict) for value in pair):
        inner = next(name for name in pair[0] | pair[1] if pair[0].get(name) != pair[1].get(name))
        key = f"{key}.{inner}"
        pair = [value.get(inner) for value in pair]
    shown = [format_value(value) for value in pair]
    return f"{key} ({shown[0]} and {shown[1]})" if max(map(len, shown)) <= SHORT else key


def _check_common(contents: Sequence[Mapping[str, Any]], where: str) -> None:
    """Check that environments and cases which both comparisons have are the same."""
    parts = []
    for content in contents:
        cases = {f"{case['environment']}, {case['agent']}": tomllib.loads(case["config"]) for case in content["cases"]}
        parts.append({"environments": content["environments"], "cases": cases})
    for key, ours in parts[0].items():
        for name in (name for name in ours if name in parts[1][key]):
            pair = [{key: {name: part[key][name]}} for part in parts]
            if pair[0] != pair[1]:
                raise PgkitError(f"{where} cannot be pooled: they differ in {_inner(key, *pair)}")


def _with_cases(first: Stored, second: Stored, where: str) -> Plan:
    """Return the first plan with the cases of both."""
    known = {case[:2] for case in first.plan.cases}
    for case in second.plan.cases:
        if case[:2] in known:
            raise PgkitError(f"{where} cannot be pooled: both have {case.environment}, {case.agent}")
    ours = first.plan.config
    theirs = second.plan.config
    environments = ours.environments | {
        name: score for name, score in theirs.environments.items() if name not in ours.environments
    }
    agents = tuple(dict.fromkeys((*ours.agents, *theirs.agents)))
    config = ours.model_copy(update={"agents": agents, "environments": environments})
    return replace(first.plan, config=config, cases=(*first.plan.cases, *second.plan.cases))


def _with_arms(first: Stored, second: Stored, where: str) -> Plan:
    """Return the first plan with the arms of both."""
    ours = first.plan
    theirs = second.plan
    if common := [label for label in theirs.arms if label in ours.arms]:
        raise PgkitError(f"{where} cannot be pooled: both have the arm {common[0]!r}")
    if not ours.all_tuned:
        _check_grids(first, second, where)
    config = ours.config.model_copy(update={"optimizers": (*ours.config.optimizers, *theirs.config.optimizers)})
    arms = {**ours.arms, **theirs.arms}
    spaces = {**ours.spaces, **theirs.spaces}
    return replace(ours, config=config, arms=arms, spaces=spaces, settings={**ours.settings, **theirs.settings})


def _check_grids(first: Stored, second: Stored, where: str) -> None:
    """Check that all arms of a case were tried on the same grid, extensions included."""
    for environment, agent, _ in first.plan.cases:
        grids = []
        for runs in (first.runs, second.runs):
            of_case = runs[(runs["environment"] == environment) & (runs["agent"] == agent)]
            grids.append(sorted(set(of_case.loc[of_case["stage"] == "tuning", "lr"])))
        if grids[0] != grids[1]:
            raise PgkitError(
                f"{where} cannot be pooled: they differ in the grid of {environment}, {agent} after its extensions "
                f"({_grid(grids[0])} and {_grid(grids[1])}); declare learning_rates so wide that none is needed"
            )


def _grid(rates: Sequence[float]) -> str:
    return f"{len(rates)} rates from {rates[0]:g} to {rates[-1]:g}" if rates else "no rate yet"


def _questions(parts: Sequence[Stored]) -> str:
    return " ".join(dict.fromkeys(part.plan.config.question for part in parts))
