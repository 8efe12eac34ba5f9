"""What each measured fact says about a member: one short function a rule.

A rule takes the :class:`pgkit.diagnose.history.History` of a member and returns what it has to say, nothing where a
quantity is missing. It speaks only of points at which the next K updates were played: all else is correlation.
"""

import math
from collections.abc import Sequence

from scipy import stats as scipy_stats

from pgkit.diagnose.history import (
    AFTER,
    BEST,
    CERTAIN,
    CLIFF,
    EVEN,
    EXPLAINED,
    GAP,
    GRADIENT,
    HALF,
    ODD,
    RANDOM_FALLS,
    RETURN,
    TARGETS,
    TOTAL,
    History,
    at_level,
    exists,
    get,
    within,
)
from pgkit.diagnose.interventions import INTERVENTIONS
from pgkit.diagnose.results import PointResult, Quantity, Verdict
from pgkit.diagnose.words import also_at, at_point, change, joined, number, percent, with_interval
from pgkit.stats import LEVEL


def saturated(history: History) -> list[Verdict]:
    """The policy is certain nearly everywhere, its gradient has vanished, and K updates do not move its return."""
    limits = history.thresholds
    norms = [get(point, GRADIENT).value for point in history.points if exists(point, GRADIENT)]
    largest = max(norms, default=math.nan)
    stuck = [
        point
        for point in history.played
        if get(point, CERTAIN).value > limits.saturated_states
        and get(point, GRADIENT).value < limits.vanished_gradient * largest
        and within(get(point, f"{AFTER}/change"), history.rope)
        and history.is_far(point)
    ]
    if not stuck:
        return []
    first = stuck[0]
    words = (
        f"The policy cannot move {at_point(first)}: in {percent(get(first, CERTAIN))} of states one action has a "
        f"probability above .99, the gradient's median norm is {number(get(first, GRADIENT).value)} (it has been "
        f"{number(largest)} in this run), and {_updates(first)} change the return of "
        f"{with_interval(get(first, RETURN))} by {change(get(first, f'{AFTER}/change'))}, far below "
        f"{history.best_in_words()}. How it got there is another question.{also_at(stuck[1:])}"
    )
    refuted_by = f"a change of the return by more than {number(history.rope)} within as many updates"
    return [history.speak("saturated", stuck, words, [CERTAIN, GRADIENT, f"{AFTER}/change", RETURN], refuted_by)]


def fragile(history: History) -> list[Verdict]:
    """The next updates cost half of the return too often; then, which interventions prevent that."""
    points = [point for point in history.played if get(point, HALF).low > history.thresholds.fragile]
    if not points:
        return []
    worst = max(points, key=lambda point: get(point, HALF).low)
    share = get(worst, HALF)
    before, after = get(worst, RETURN), get(worst, f"{AFTER}/mean")
    verb = "cut" if after.value < before.value else "taken"
    words = (
        f"{_capital(_updates(worst))} of this optimizer would have {verb} the return from {with_interval(before)} to "
        f"{with_interval(after)} on average {at_point(worst)}, and would have left {percent(share)} of {share.n} "
        f"trials with less than half of it.{_others(points, worst)}"
    )
    refuted_by = (
        f"fewer than {fewest_falls(share.n, history.thresholds.fragile)} of {share.n} copies below half of the return "
        "with other random numbers"
    )
    verdict = history.speak("fragile", points, words, [HALF, f"{AFTER}/mean", RETURN], refuted_by)
    return [verdict, *_causes(history, points)]


def fewest_falls(copies: int, share: float) -> int:
    """Return the smallest count of copies whose Wilson interval lies above a share.

    >>> fewest_falls(64, 0.1)
    12
    """
    z = scipy_stats.norm.ppf((1 + LEVEL) / 2)
    # Wilson's lower limit is above `share` where the score test against it rejects.
    return math.floor(copies * share + z * math.sqrt(copies * share * (1 - share))) + 1


def _causes(history: History, points: Sequence[PointResult]) -> list[Verdict]:
    """What the interventions say of fragile points: each cure is a cause."""
    tried = [point for point in points if _improvements(point)]
    verdicts = []
    for name in INTERVENTIONS:
        cured = [point for point in tried if _cures(history, point, name)]
        if name == "rate_div_10":  # only if noise is not what a small rate averages out
            cured = [
                point
                for point in cured
                if exists(point, _improvement("batch_x8")) and not _cures(history, point, "batch_x8")
            ]
        if cured and INTERVENTIONS[name].cause is not None:
            verdicts.append(_cause(history, name, cured))
    explained = {step for verdict in verdicts for step in verdict.env_steps}
    unexplained = [point for point in tried if point.env_steps not in explained]
    return verdicts + ([_no_cause(history, unexplained)] if unexplained else [])


def _cause(history: History, name: str, points: Sequence[PointResult]) -> Verdict:
    """Say that one intervention helped."""
    best = max(points, key=lambda point: get(point, _improvement(name)).low)
    each = INTERVENTIONS[name]
    names = [HALF, f"interventions/{name}/half_share", _improvement(name)]
    others = ""
    if name == "rate_div_10":
        names.append(_improvement("batch_x8"))
        others = f"; a batch 8 times as large did not ({_points_of(get(best, names[-1]))})"
    caution = f" {_capital(each.caution)}." if each.caution else ""
    words = (
        f"{_capital(each.cause or '')}: with {each.change}, {percent(get(best, names[1]))} of the trials fall below "
        f"half instead of {percent(get(best, HALF))} {at_point(best)}, a difference of "
        f"{_points_of(get(best, names[2]))}{others}.{caution}{_others(points, best)}"
    )
    refuted_by = f"no difference with {each.change} when the trials are repeated with other random numbers"
    return history.speak(f"fragile/{name}", points, words, names, refuted_by)


def _no_cause(history: History, points: Sequence[PointResult]) -> Verdict:
    """Say that nothing that was tried helped enough."""
    point = points[0]
    results = _improvements(point)
    texts = [f"{INTERVENTIONS[name].change} {_points_of(quantity)}" for name, quantity in results.items()]
    words = (
        f"Fragile {at_point(point)}, cause not found: nothing that was tried lowers the share of trials below half by "
        f"more than {100 * history.thresholds.cure:.0f} points for certain ({joined(texts)}).{also_at(points[1:])}"
    )
    refuted_by = "an intervention with a resolved improvement, with more copies or another change"
    return history.speak("fragile/cause not found", points, words, [_improvement(name) for name in results], refuted_by)


def one_update(history: History) -> list[Verdict]:
    """The mean update goes downhill, overshoots, or gains less than its noise costs."""
    return [*_downhill(history), *_overshoots(history), *_noise_eats(history)]


def _downhill(history: History) -> list[Verdict]:
    """The mean update loses to first order."""
    level = history.thresholds.step_level
    points = [point for point in history.played if at_level(get(point, ODD), level).high < 0]
    if not points:
        return []
    worst = min(points, key=lambda point: get(point, ODD).high)
    words = (
        f"The mean update goes downhill {at_point(worst)}: to first order it changes the return of "
        f"{with_interval(get(worst, RETURN))} by {change(get(worst, ODD))}. Momentum or a wrong estimator can do that."
        f"{_others(points, worst)}"
    )
    refuted_by = "a gain of the mean update on other episodes, or of the mean of other copies"
    return [history.speak("downhill", points, words, [ODD, RETURN], refuted_by)]


def _overshoots(history: History) -> list[Verdict]:
    """The mean update gains to first order and loses altogether; only where the overshoot is resolved."""
    level = history.thresholds.step_level
    points = [
        point
        for point in history.played
        if get(point, ODD).value > 0
        and get(point, ODD).value + get(point, EVEN).value < 0
        and at_level(get(point, EVEN), level).high < 0
    ]
    if not points:
        return []
    worst = min(points, key=lambda point: get(point, ODD).value + get(point, EVEN).value)
    words = (
        f"One update overshoots {at_point(worst)}: its direction gains {change(get(worst, ODD))}, but its length costs "
        f"{change(get(worst, EVEN))}, which together with noise changes the return of "
        f"{with_interval(get(worst, RETURN))} by {change(get(worst, TOTAL))}. The best step is "
        f"{with_interval(get(worst, BEST))}{' of its own' if exists(worst, BEST) else ''}.{_others(points, worst)}"
    )
    refuted_by = "a mean update that gains on other episodes, or half of it that gains less than the whole"
    return [history.speak("overshoots", points, words, [ODD, EVEN, TOTAL, BEST, RETURN], refuted_by)]


def _noise_eats(history: History) -> list[Verdict]:
    """What noise costs is resolved, and more than the mean update gains."""
    level = history.thresholds.step_level
    points = [
        point
        for point in history.played
        if at_level(get(point, GAP), level).high < 0
        and -get(point, GAP).value > get(point, ODD).value + get(point, EVEN).value > 0
    ]
    if not points:
        return []
    worst = min(points, key=lambda point: get(point, GAP).value)
    words = (
        f"Noise eats the step {at_point(worst)}: the mean update would gain "
        f"{number(get(worst, ODD).value + get(worst, EVEN).value)} (direction {change(get(worst, ODD))}, length "
        f"{change(get(worst, EVEN))}), but the noise of one batch costs {change(get(worst, GAP))}."
        f"{_others(points, worst)}"
    )
    refuted_by = "updates from larger batches that gain no more than these"
    return [history.speak("noise eats the step", points, words, [ODD, EVEN, GAP], refuted_by)]


def constant_critic(history: History) -> list[Verdict]:
    """The critic explains nothing of returns that do vary."""
    limit = history.thresholds.explained
    points = [point for point in history.trained if get(point, TARGETS).low > 0 and get(point, EXPLAINED).high < limit]
    if not points:
        return []
    worst = min(points, key=lambda point: get(point, EXPLAINED).high)
    words = (
        f"The critic is no better than a constant {at_point(worst)}: it explains "
        f"{with_interval(get(worst, EXPLAINED))} of the variance of returns, which is "
        f"{with_interval(get(worst, TARGETS))}.{_others(points, worst)}"
    )
    refuted_by = f"an explained variance above {limit} on other episodes"
    return [history.speak("critic/constant", points, words, [EXPLAINED, TARGETS], refuted_by)]


def biased_critic(history: History) -> list[Verdict]:
    """The critic's error is most of the gradient that the run learns from."""
    name = history.bias
    points = [point for point in history.trained if get(point, name).low > history.thresholds.critic_bias]
    if not points:
        return []
    worst = max(points, key=lambda point: get(point, name).low)
    words = (
        f"The gradient is mostly the critic's error {at_point(worst)}: the squared bias of {history.estimator} is "
        f"{with_interval(get(worst, name))} times the squared true gradient.{_others(points, worst)}"
    )
    refuted_by = "a smaller bias against more episodes, or with a critic that was fitted first"
    return [history.speak("critic/bias", points, words, [name], refuted_by)]


def cliff(history: History) -> list[Verdict]:
    """The return halves within a few multiples of an update, though not in random directions of that length."""
    limits = history.thresholds
    points = [
        point
        for point in history.played
        if get(point, CLIFF).value <= limits.near_cliff and exists(point, RANDOM_FALLS)
    ]
    if not points:
        return []
    worst = min(points, key=lambda point: get(point, CLIFF).value)
    alpha = get(worst, CLIFF).value
    shares = get(worst, RANDOM_FALLS)
    where = (
        f"{at_point(worst)}: {number(alpha)} times an update, along the mean update or the gradient, the return of "
        f"{with_interval(get(worst, RETURN))} has halved"
    )
    if shares.value > 0:
        rule = "cliff/steep all round"
        words = f"The return is steep all round {where}, and so it has in {percent(shares)} of random directions."
    else:
        rule = "cliff" if alpha <= limits.cliff else "cliff/near"
        near = "There is a cliff" if rule == "cliff" else "A cliff is near"
        words = f"{near} {where}, and in none of {shares.n} random directions of that length."
    refuted_by = "the same lines on other episodes"
    return [history.speak(rule, points, words + _others(points, worst), [CLIFF, RANDOM_FALLS, RETURN], refuted_by)]


def _improvement(name: str) -> str:
    return f"interventions/{name}/improvement"


def _improvements(point: PointResult) -> dict[str, Quantity]:
    """Return the improvements that were measured at a point, by intervention."""
    return {name: get(point, _improvement(name)) for name in INTERVENTIONS if exists(point, _improvement(name))}


def _cures(history: History, point: PointResult, name: str) -> bool:
    return get(point, _improvement(name)).low > history.thresholds.cure


def _updates(point: PointResult) -> str:
    """Say how many updates K are."""
    count = get(point, "post_update/updates").value
    return "the next updates" if math.isnan(count) else f"the next {count:.0f} updates"


def _points_of(quantity: Quantity) -> str:
    """Write a difference of shares in percentage points."""
    low, high = (f"{100 * end:.0f}" for end in (quantity.low, quantity.high))
    return f"{100 * quantity.value:.0f} points [{low}, {high}]"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _others(points: Sequence[PointResult], spoken_of: PointResult) -> str:
    return also_at([point for point in points if point is not spoken_of])
