"""What a report says beside its tables: how many runs there are, deviations from the plan, what was not varied."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pgkit import optim
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan
from pgkit.compare.plan.schema import TIERS
from pgkit.compare.selection.stages import stages
from pgkit.compare.tables import FAILED, NOT_LEARNT

Row = dict[str, Any]

NOT_VARIED = (
    "network architecture and initialisation",
    "batch: environments and steps per update",
    "discount and advantage estimation",
    "gradient clipping and the learning rate's schedule",
    "the critic's optimizer",
)


def facts(
    plan: Plan, scale: Mapping[str, ScoreScale], stored: pd.DataFrame, runs: pd.DataFrame, provenance: Mapping[str, Any]
) -> Row:
    """Return what a report says beside its tables, see :class:`pgkit.compare.tables.Analysis`."""
    known = stages(plan, scale, stored)
    missing = sum(len(stage.todo) for stage in known)
    only = [f"the environment (only {plan.cases[0].environment})"] if len(plan.config.environments) == 1 else []
    return {
        "planned": sum(len(stage.runs) for stage in known),
        "finished": len(runs),
        "not_learnt": int((runs["outcome"] == NOT_LEARNT).sum()),
        "failed": int((runs["outcome"] == FAILED).sum()),
        "missing": missing,
        "deviations": [*_pooled(provenance), *_deviations(plan, missing, known[-1].name)],
        "formulas": {label: _formula(str(settings["name"])) for label, settings in plan.arms.items()},
        "provenance": dict(provenance),
        "not_varied": [*only, *NOT_VARIED, _not_tuned(plan)],
        "wall_seconds": sum(session["wall_seconds"] for session in provenance.get("sessions", [])),
    }


def in_full(setting: Mapping[str, Any]) -> str:
    """Return the tuned hyperparameters of a setting as text: ``lr = 0.003, beta1 = 0.95``."""
    return ", ".join(f"{name} = {_short(value)}" for name, value in setting.items())


def _short(value: Any) -> str:
    return f"{value:g}" if type(value) in (int, float) else str(value)


def _not_tuned(plan: Plan) -> str:
    """Say which hyperparameters were not tuned."""
    if not plan.all_tuned:
        declared = [
            f"{entry.get('label', entry['name'])} has {in_full(settings)}"
            for entry in plan.config.optimizers
            if isinstance(entry, dict)
            if (settings := {key: value for key, value in entry.items() if key not in ("name", "label")})
        ]
        values = f"documented defaults, but {', '.join(declared)}" if declared else "documented defaults"
        return f"hyperparameters of the optimizers other than the learning rate (at their {values})"
    return (
        "what lies outside the declared ranges of the tuned hyperparameters, and hyperparameters without a range "
        "(listed with each optimizer)"
    )


def _pooled(provenance: Mapping[str, Any]) -> list[str]:
    """Say that the comparison was pooled from several plans, if it was."""
    plans = [f"{name} ({plan[:12]})" for name, plan in provenance.get("pooled", {}).items()]
    return [f"pooled after the fact from plans that were declared one by one: {', '.join(plans)}"] if plans else []


def _deviations(plan: Plan, missing: int, stage: str) -> list[str]:
    """List where the comparison deviates from its tier."""
    tier, name = TIERS[plan.config.tier], plan.config.tier
    count = len(next(iter(plan.settings.values()), ()))
    pairs_of = (
        ("settings", count == tier.settings, count, tier.settings)
        if plan.all_tuned
        else ("learning rates", list(plan.rates) == list(tier.rates), len(plan.rates), len(tier.rates)),
        ("tuning seeds", len(plan.tuning_seeds) == tier.tuning, len(plan.tuning_seeds), tier.tuning),
        (
            "evaluation seeds",
            len(plan.evaluation_seeds) == tier.evaluation,
            len(plan.evaluation_seeds),
            tier.evaluation,
        ),
    )
    deviations = [
        f"{what}: {planned}, not {usual} as in the {name} tier" for what, same, planned, usual in pairs_of if not same
    ]
    return deviations + ([f"incomplete: {missing} runs of the {stage} stage are missing"] if missing else [])


def _formula(name: str) -> str:
    spec = optim.spec(name)
    return f"{spec.formula}\n\nSource: {spec.source}"
