"""Rules that turn the scores of one plan into a verdict on a claim.

They were fixed, with their thresholds, before the plans ran in full.

Each rule takes a :class:`~pgkit.compare.reproduction.measures.Side` and returns an :class:`Outcome`. An effect is
"confirmed" if all of its 95 % interval lies beyond what matters, on the claimed side; "not confirmed" if all of it is
elsewhere: too small to matter, or the other way round; else "not decided". Before every case of a plan is complete,
nothing is decided.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import t as student

from pgkit import stats
from pgkit.compare.reproduction.measures import Array, Case, RateCurve, Reported, Side
from pgkit.plots.style import joined, percent
from pgkit.stats import LEVEL, Estimate

Verdict = Literal["confirmed", "not confirmed", "not decided"]
Direction = Literal["better", "worse"]

MARGIN_DECADES = 0.25
"""Half of a step of the logarithmic grid: windows whose widths differ by less are equally wide."""

MOST_FAIL = 0.5
"""Beyond its window an optimizer diverges if more than this share of its runs do not learn."""

MARGIN_KEPT = 0.05
"""Differences of the share of the best score that do not matter."""

LEAST_SEEDS = 3
"""With fewer seeds for each learning rate nothing is decided: resampling them says nothing."""

NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


class Outcome(NamedTuple):
    """What a plan says of a claim.

    Attributes:
        verdict: "confirmed", "not confirmed" or "not decided".
        effect: the number that decided, with its 95 % interval; NaN where there is none.
        numbers: the numbers in words.
    """

    verdict: Verdict
    effect: Estimate
    numbers: str


class MomentumEffect(NamedTuple):
    """What momentum adds in one case: a difference of mean scores with interval, variance and degrees of freedom."""

    case: Case
    value: float
    low: float
    high: float
    variance: float
    df: float


Rule = Callable[[Side], Outcome]


def decide(effect: Estimate, margin: float, claimed: Direction) -> Verdict:
    """Return the verdict on a claimed difference: "better" claims an effect above the margin, "worse" one below it."""
    said = stats.verdict(effect.low, effect.high, margin)
    if said == "unresolved":
        return "not decided"
    return "confirmed" if said == claimed else "not confirmed"


def whole(rule: Rule) -> Rule:
    """Return a rule that decides nothing before every case of a plan is complete, and nothing with too few seeds."""

    def judge(side: Side) -> Outcome:
        if side.missing:
            cases = joined(", ".join(case) for case in side.missing)
            return Outcome(
                "not decided", NOTHING, f"{len(side.missing)} of {len(side.cases)} cases are missing: {cases}."
            )
        outcome = rule(side)
        seeds = min(curve.scores.shape[1] for curves in side.curves.values() for curve in curves.values())
        if seeds >= LEAST_SEEDS:
            return outcome
        return Outcome("not decided", outcome.effect, f"{outcome.numbers} Seeds: {seeds}, too few to decide.")

    return judge


def narrower_windows(side: Side, narrow: Sequence[str], wide: Sequence[str]) -> Outcome:
    """Judge whether the windows of some arms are narrower than those of others, in decades, on average over cases."""
    parts: list[Array] = []
    values: list[float] = []
    widths: dict[str, list[float]] = {"narrow": [], "wide": []}
    cut_off: list[bool] = []
    for case, curves in side.curves.items():
        groups = {"narrow": _effective(curves, narrow), "wide": _effective(curves, wide)}
        if not all(groups.values()):
            continue
        drawn = side.drawn(case)
        resampled = {
            name: np.mean([stats.width(curve.drawn_means(drawn), curve.rates) for curve in of_group], axis=0)
            for name, of_group in groups.items()
        }
        means = {name: float(np.mean([curve.decades for curve in of_group])) for name, of_group in groups.items()}
        parts.append(resampled["narrow"] - resampled["wide"])
        values.append(means["narrow"] - means["wide"])
        for name, mean in means.items():
            widths[name].append(mean)
            cut_off += [curve.cut_off != "" for curve in groups[name]]
    if not parts:
        return Outcome("not decided", NOTHING, _none_learns(narrow, wide))
    effect = _estimate(values, parts)
    numbers = (
        f"{np.mean(widths['narrow']):.2f} decades against {np.mean(widths['wide']):.2f}: "
        f"{_signed(effect, ' decades')}{_in_cases(len(parts), side)} "
        f"{sum(cut_off)} of {len(cut_off)} windows reach an end of the grid."
    )
    return Outcome(decide(effect, MARGIN_DECADES, "worse"), effect, numbers)


def diverging_beyond(side: Side, arms: Sequence[str], others: Sequence[str]) -> Outcome:
    """Judge whether most runs of some arms do not learn at rates up to a decade above their windows."""
    effect, count = _lost_beyond(side, arms)
    if not count:
        return Outcome("not decided", NOTHING, "No window of theirs ends below the highest rate of the grid.")
    beside, _ = _lost_beyond(side, others)
    numbers = f"{_share(effect)} of their runs above the window did not learn{_in_cases(count, side)}"
    if not np.isnan(beside.value):
        numbers += f" The others': {_share(beside)}."
    above = Estimate(*(value - MOST_FAIL for value in effect))
    return Outcome(decide(above, 0.0, "better"), effect, numbers)


def evener_rates(side: Side, arm: str, others: Sequence[str]) -> Outcome:
    """Judge whether an arm keeps more of its best score, on average over the rates of the grid, than others do."""
    parts: list[Array] = []
    values: list[float] = []
    shares: list[tuple[float, float]] = []
    for case, curves in side.curves.items():
        first = _effective(curves, [arm])
        second = _effective(curves, others)
        if not (first and second):
            continue
        drawn = side.drawn(case)
        resampled = [np.mean([_kept(c.drawn_means(drawn)) for c in group], axis=0) for group in (first, second)]
        means = [float(np.mean([_kept(c.means[None])[0] for c in group])) for group in (first, second)]
        parts.append(resampled[0] - resampled[1])
        values.append(means[0] - means[1])
        shares.append((means[0], means[1]))
    if not parts:
        return Outcome("not decided", NOTHING, _none_learns([arm], others))
    effect = _estimate(values, parts)
    kept = np.mean(shares, axis=0)
    numbers = (
        f"{arm} keeps {percent(round(kept[0], 2))} of its best score on average over the grid, {_names(others)} "
        f"{percent(round(kept[1], 2))}: {_signed(effect)}{_in_cases(len(parts), side)}"
    )
    return Outcome(decide(effect, MARGIN_KEPT, "better"), effect, numbers)


def momentum_effects(side: Side, momentum: str, plain: str, level: float = LEVEL) -> list[MomentumEffect]:
    """Return what momentum adds to the score in each case where an arm learns, each arm at its selected rate."""
    effects = []
    for case, reported in side.reported.items():
        if not _effective(side.curves[case], (momentum, plain)):
            continue
        value, variance, df = _difference([reported[momentum].scores], [reported[plain].scores])
        effects.append(MomentumEffect(case, *_interval(value, variance, df, level), variance, df))
    return effects


def depends_on_environment(side: Side, momentum: str, plain: str) -> Outcome:
    """Judge whether the effect of momentum differs between two environments, for at least one agent.

    Intervals of all pairs hold together at 95 % (Bonferroni).
    """
    effects = momentum_effects(side, momentum, plain)
    pairs = [(a, b) for a, b in combinations(effects, 2) if a.case[1] == b.case[1]]
    if not pairs:
        return Outcome("not decided", NOTHING, "For no agent do two environments have a rate at which either learns.")
    level = 1 - (1 - LEVEL) / len(pairs)
    differences = [_between(a, b, level) for a, b in pairs]
    said = {stats.verdict(each.low, each.high, side.rope) for each in differences}
    largest = max(differences, key=lambda each: abs(each.value))
    first, second = pairs[differences.index(largest)]
    each_case = joined(
        f"{_signed(Estimate(each.value, each.low, each.high))} ({', '.join(each.case)})" for each in effects
    )
    numbers = (
        f"{momentum} minus {plain}: {each_case}. The largest difference between environments, {first.case[0]} minus "
        f"{second.case[0]} with {first.case[1]}: {_signed(largest)}."
    )
    if said & {"better", "worse"}:
        return Outcome("confirmed", largest, numbers)
    return Outcome("not confirmed" if said == {"equivalent"} else "not decided", largest, numbers)


def better_optimum(side: Side, agent: str, arms: Sequence[str], other: str) -> Outcome:
    """Judge whether the best of some arms, tuned, ends with a higher score than another arm, with one agent."""
    pairs: list[tuple[Reported, Reported]] = []
    names = []
    for case in side.reported:
        if case[1] != agent or not _effective(side.curves[case], (*arms, other)):
            continue
        chosen = max((arm for arm in arms if arm in side.arms), key=lambda arm: side.curves[case][arm].means.max())
        pairs.append((side.reported[case][chosen], side.reported[case][other]))
        names.append(f"{chosen} {pairs[-1][0].finals.mean():.2f}, {other} {pairs[-1][1].finals.mean():.2f} ({case[0]})")
    if not pairs:
        return Outcome("not decided", NOTHING, f"With {agent}, none of them learns in any environment.")
    value, variance, df = _difference([a.finals for a, _ in pairs], [b.finals for _, b in pairs])
    effect = Estimate(*_interval(value, variance, df, LEVEL))
    numbers = f"Final scores: {joined(names)}; on average {_signed(effect)}."
    return Outcome(decide(effect, side.rope, "better"), effect, numbers)


def _effective(curves: Mapping[str, RateCurve], arms: Sequence[str]) -> list[RateCurve]:
    """Return the curves of those of these arms that learn at their best rate."""
    return [curves[arm] for arm in arms if arm in curves and curves[arm].effective]


def _lost_beyond(side: Side, arms: Sequence[str]) -> tuple[Estimate, int]:
    """Return the share of runs beyond the windows of arms that did not learn, and in how many cases there are any."""
    parts: list[Array] = []
    values: list[float] = []
    for case, curves in side.curves.items():
        lost = [c.unlearnt[c.beyond()].mean(0) for c in _effective(curves, arms) if c.beyond()]
        if lost:
            by_seed = np.mean(lost, axis=0)
            parts.append(by_seed[side.drawn(case)].mean(1))
            values.append(float(by_seed.mean()))
    return (_estimate(values, parts) if parts else NOTHING), len(parts)


def _kept(curves: Array) -> Array:
    """Return the share of its best score that a curve ``(B, L)`` has on average over rates, ``(B,)``."""
    best = curves.max(1)
    return np.where(best > 0, curves.mean(1) / np.where(best > 0, best, 1.0), 0.0)


def _estimate(values: Sequence[float], parts: Sequence[Array]) -> Estimate:
    """Return the mean over cases, with the interval of its resampled values."""
    low, high = np.quantile(np.mean(parts, axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(np.mean(values))
    return Estimate(value, min(float(low), value), max(float(high), value))


def _difference(first: Sequence[Array], second: Sequence[Array]) -> tuple[float, float, float]:
    """Return the mean difference of several pairs of samples, its variance, and Welch's degrees of freedom."""
    count = len(first)
    value = float(np.mean([a.mean() - b.mean() for a, b in zip(first, second, strict=True)]))
    samples = [*first, *second]
    parts = np.array([np.var(x, ddof=1) / len(x) if len(x) > 1 else np.nan for x in samples]) / count**2
    variance = float(parts.sum())
    weights = float(np.sum(parts**2 / np.array([max(len(x) - 1, 1) for x in samples])))
    return value, variance, variance**2 / weights if weights > 0 else np.inf


def _interval(value: float, variance: float, df: float, level: float) -> tuple[float, float, float]:
    half = float(student.ppf((1 + level) / 2, df) * np.sqrt(variance)) if variance > 0 else variance
    return value, value - half, value + half


def _between(first: MomentumEffect, second: MomentumEffect, level: float) -> Estimate:
    """Return the difference of two effects, with an interval of this level."""
    variance = first.variance + second.variance
    weights = first.variance**2 / first.df + second.variance**2 / second.df
    df = variance**2 / weights if weights > 0 else np.inf
    return Estimate(*_interval(first.value - second.value, variance, df, level))


def _signed(effect: Estimate, unit: str = "") -> str:
    value, low, high = (round(number, 2) + 0.0 for number in effect)  # never -0.00
    if np.isnan(low):
        return f"{value:+.2f}{unit} (no interval)"
    return f"{value:+.2f}{unit} [{low:+.2f}, {high:+.2f}]"


def _share(effect: Estimate) -> str:
    value, low, high = (percent(round(number, 2)) for number in effect)
    return f"{value} [{low}, {high}]"


def _in_cases(count: int, side: Side) -> str:
    return "." if count == len(side.cases) else f" (in {count} of {len(side.cases)} cases, those where they learnt)."


def _none_learns(first: Sequence[str], second: Sequence[str]) -> str:
    return f"In no case did one of {_names(first)} and one of {_names(second)} learn."


def _names(arms: Sequence[str]) -> str:
    return joined(arms, "or")
