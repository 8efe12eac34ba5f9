"""One word for what limits a member, by an ordered list of rules on a few signs: for tables of many runs.

Verdicts say everything that is resolved; a classification picks one thing, for a confusion table of runs whose fault is
known. :func:`signs` boils a member down to a dozen numbers, :data:`RULES` decides from them, first match wins. To
retune it, collect the signs of runs with known faults and pass another list of rules.

Why in this order: a policy without a choice before its first update was not made so by its updates. A step that is too
large ends in a policy that is saturated, whose critic is wrong and whose updates are tiny, so its traces are looked for
next, at the points at which there still was a choice. Saturation follows, because a policy that cannot move makes every
later sign meaningless; then a critic whose values are far off. A policy that hardly moves comes before a critic that is
merely no better than a constant, because a slow critic may be bad as well, and a larger step would mend both. Health is
last: whatever is wrong goes first.

>>> decide({"kl": 0.04, "fragile": 0.5, "solved": 1.0})
'step too large'
>>> decide({"kl": 0.0005, "fragile": 0.0, "saturated_at_end": 0.0, "path": 40.0, "solved": 1.0})
'healthy'
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pgkit.diagnose.history import (
    AFTER,
    BEST,
    EXPLAINED,
    HALF,
    ODD,
    RETURN,
    TARGETS,
    History,
    exists,
    get,
)
from pgkit.diagnose.results import PointResult, Verdict
from pgkit.diagnose.thresholds import Thresholds

Label = Literal["healthy", "step too large", "step too small", "critic wrong", "saturated", "not resolved"]

KL = "post_update/1/kl"
UPDATES = "post_update/updates"
VALUE_BIAS = "critic/bias"
CERTAIN = "health/policy/certain"
BUDGET_SHARE = 0.02
"""K updates use this share of the budget, unless that were fewer than 8 or more than 64."""


@dataclass(frozen=True)
class ClassRule:
    """A label for members whose signs lie within bounds. A sign that is NaN lies within none.

    Attributes:
        name: what it sees.
        label: what it says.
        at_least: lower bounds of signs, the bound itself included.
        below: upper bounds, the bound itself not included.
    """

    name: str
    label: Label
    at_least: Mapping[str, float] = field(default_factory=dict)
    below: Mapping[str, float] = field(default_factory=dict)

    def applies(self, member_signs: Mapping[str, float]) -> bool:
        """Whether all signs lie within the bounds."""
        enough = all(member_signs.get(sign, math.nan) >= bound for sign, bound in self.at_least.items())
        return enough and all(member_signs.get(sign, math.nan) < bound for sign, bound in self.below.items())


LARGE_KL = 0.02
"""KL of one update in nats: trust regions allow .01 to .03. Runs at a good rate have .0005 to .006 on CartPole and .003
to .006 on LunarLander, at ten times it .05 to 1.6 and .3 to 6."""

SHORT_PATH = 10.0
"""See ``path``; from uniform to certain it is pi / 2 for two actions, if every step leads straight there. Runs at a
good rate have 26 to 83 on CartPole and 20 to 27 on LunarLander, at a tenth of it 2 to 4 and 1 to 2."""

NO_CHOICE = 0.95
"""Share of states in which one choice is nearly certain, as in the verdict "saturated". Where so little is left to
chance, an update that turns a choice over has a KL of many nats and any other has none: neither tells its length."""

RULES: tuple[ClassRule, ...] = (
    ClassRule("no choice from the start", "saturated", {"certain_at_start": 0.5}, {"solved": 1}),
    ClassRule("updates are large", "step too large", {"kl": LARGE_KL}),
    ClassRule("no choice is left", "saturated", {"certain": NO_CHOICE}, {"solved": 1}),
    ClassRule("the critic is far off", "critic wrong", {"far_off_critic": 0.6}),
    ClassRule("a fitted critic cures fragility", "critic wrong", {"cured_by_critic": 1}, {"solved": 1}),
    ClassRule("smaller steps cure fragility", "step too large", {"cured_by_smaller_steps": 1}, {"solved": 1}),
    ClassRule("fragile at most points", "step too large", {"fragile": 0.6}),
    ClassRule("cannot move", "saturated", {"saturated_at_end": 1}),
    ClassRule("hardly moves", "step too small", {}, {"path": SHORT_PATH, "solved": 1}),
    ClassRule("hardly moves, and still rises", "step too small", {"rising": 1}, {"path": SHORT_PATH}),
    ClassRule("critic explains nothing", "critic wrong", {"constant_critic": 1}, {"solved": 1}),
    ClassRule("critic biases the gradient", "critic wrong", {"biased_critic": 1}, {"solved": 1}),
    ClassRule("a larger step is better", "step too small", {"rising": 1, "larger_is_better": 0.3}, {"solved": 1}),
    ClassRule("solved", "healthy", {"solved": 1}),
    ClassRule("nothing is wrong", "healthy", {"healthy": 1}),
)
"""The first that applies decides. Bounds were set on CartPole and LunarLander (``scripts/diagnose_verdicts.py``, seeds
from 30,000)."""


def classify(
    verdicts: Sequence[Verdict],
    points: Sequence[PointResult],
    reference: float | None = None,
    total_updates: float | None = None,
    rules: Sequence[ClassRule] = RULES,
    thresholds: Thresholds | None = None,
) -> Label:
    """Return what limits a member, in one label; "not resolved" where no rule applies.

    Args:
        verdicts: of the member.
        points: of the same member.
        reference: R_ref, as for the verdicts. Without it nothing is solved, and returns are compared with the best.
        total_updates: updates of the whole training; by default estimated from K, see :func:`signs`.
        rules: what decides, first match wins.
        thresholds: of the verdicts.
    """
    return decide(signs(verdicts, points, reference, total_updates, thresholds), rules)


def decide(member_signs: Mapping[str, float], rules: Sequence[ClassRule] = RULES) -> Label:
    """Return the label of the first rule that applies; an example is in the module's notes."""
    rule = deciding_rule(member_signs, rules)
    return "not resolved" if rule is None else rule.label


def deciding_rule(member_signs: Mapping[str, float], rules: Sequence[ClassRule] = RULES) -> ClassRule | None:
    """Return the first rule that applies, None if none does."""
    return next((rule for rule in rules if rule.applies(member_signs)), None)


SIGNS: Mapping[str, str] = {
    "kl": "median KL of one update over points with a choice that are below R_ref; if there is none, over all with one",
    "path": "updates of the whole training times sqrt(2 KL): a length in the Fisher metric, if each went straight on",
    "fragile": "share of live points that are fragile, of those where P_K(half) was measured",
    "solved": "1 if the last return is at R_ref",
    "rising": "1 if the last K updates gain for certain, or the last return is surely above that at half of it",
    "saturated_at_end": "1 if the verdict saturated holds at the last point with K updates",
    "larger_is_better": "share of live points at which one update surely gains and its best multiple is surely >= 5",
    "constant_critic": "share of points below R_ref whose explained variance is surely below .1, where returns vary",
    "biased_critic": "1 if there is such a verdict",
    "far_off_critic": "share of points at which the critic's mean error exceeds the returns' spread: bias^2 > 2 Var(G)",
    "certain": "median share of states in which one choice has more than 99 %",
    "certain_at_start": "the same before the first update",
    "cured_by_critic": "1 if an intervention on the critic did so",
    "cured_by_smaller_steps": "1 if a larger batch or a smaller rate did so",
    "healthy": "1 if that is a verdict",
}
"""What the signs mean. *Live* points are those of which the verdict "saturated" does not speak; the critic's leave out
the first step."""


def signs(
    verdicts: Sequence[Verdict],
    points: Sequence[PointResult],
    reference: float | None = None,
    total_updates: float | None = None,
    thresholds: Thresholds | None = None,
) -> dict[str, float]:
    """Boil a member down to a few numbers; NaN for what was not measured.

    They are described in :data:`SIGNS`.

    Args:
        verdicts: of the member.
        points: of the same member, at least one.
        reference: R_ref.
        total_updates: of the whole training. By default K / 2 %, which is too small where K was cut to 64 and too large
            where it was raised to 8.
        thresholds: of the verdicts.
    """
    ordered = sorted(points, key=lambda point: point.env_steps)
    history = History(ordered, reference, None, thresholds or Thresholds())
    spoken = {verdict.rule: verdict for verdict in verdicts}
    dead = spoken["saturated"].env_steps if "saturated" in spoken else []
    live = [point for point in ordered if point.env_steps not in dead]
    choosing = [point for point in live if not get(point, CERTAIN).value >= NO_CHOICE]
    learning = [point for point in choosing if not history.is_solved(point)]
    kl = _median([get(point, KL).value for point in learning or choosing])
    if total_updates is None:
        total_updates = _median([get(point, UPDATES).value for point in ordered]) / BUDGET_SHARE
    at_end = bool(history.played) and history.played[-1].env_steps in dead
    smaller = {"fragile/rate_div_10", "fragile/batch_x8"} & spoken.keys()
    return {
        "kl": kl,
        "path": total_updates * math.sqrt(2 * max(kl, 0.0)),
        "fragile": _share([get(point, HALF).low > history.thresholds.fragile for point in live if exists(point, HALF)]),
        "solved": float(history.is_solved(ordered[-1])),
        "rising": float(_is_rising(history)),
        "saturated_at_end": float(at_end),
        "larger_is_better": _share([_wants_more(point) for point in live if exists(point, ODD)]),
        "constant_critic": _constant_critic(history),
        "biased_critic": float("critic/bias" in spoken),
        "far_off_critic": _far_off_critic(history),
        "certain": _median([get(point, CERTAIN).value for point in ordered]),
        "certain_at_start": get(ordered[0], CERTAIN).value if ordered[0].env_steps == 0 else math.nan,
        "cured_by_critic": float("fragile/critic_fitted" in spoken),
        "cured_by_smaller_steps": float(bool(smaller)),
        "healthy": float("healthy" in spoken),
    }


FAR_OFF = 2.0
"""In units of Var(G). Of 70 points of ten good CartPole runs 2 are above it; of ten with a dead critic all 70 are."""

LITTLE = 0.1
"""Explained variance. On LunarLander a dead critic stays below .07 at every point, one that learns does not; at some
points it is worse than a constant."""

MUCH_LARGER = 5.0
"""A best multiple of the mean update from which the step counts as much too small."""


def _wants_more(point: PointResult) -> bool:
    """Whether one update gains, and a much longer one would gain more, both for certain."""
    return get(point, ODD).low > 0 and get(point, BEST).low >= MUCH_LARGER


def _is_rising(history: History) -> bool:
    """Whether the return still rises at the end: by the next updates, or over the second half of the training."""
    if history.played and get(history.played[-1], f"{AFTER}/change").low > 0:
        return True
    middle = min(history.points, key=lambda point: abs(point.share - 0.5))
    return get(history.points[-1], RETURN).low > get(middle, RETURN).high


def _constant_critic(history: History) -> float:
    """Share of the points at which a critic matters where it explains next to nothing."""
    informative = [
        point
        for point in history.points
        if point.env_steps > 0
        and exists(point, EXPLAINED)
        and get(point, TARGETS).low > 0
        and not history.is_solved(point)
    ]
    return _share([get(point, EXPLAINED).high < LITTLE for point in informative])


def _far_off_critic(history: History) -> float:
    """Share of the points at which the critic's values lie off the returns by more than these vary."""
    seen = [point for point in history.points if point.env_steps > 0 and exists(point, VALUE_BIAS)]
    return _share([get(point, VALUE_BIAS).value ** 2 > FAR_OFF * get(point, TARGETS).value for point in seen])


def _median(values: Sequence[float]) -> float:
    measured = [value for value in values if not math.isnan(value)]
    return float(np.median(measured)) if measured else math.nan


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan
