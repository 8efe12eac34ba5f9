"""The rules that judge the claims of a study, on scores whose verdict is known beforehand."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from pgkit.compare.plan.schema import half_decades
from pgkit.compare.reproduction import rules
from pgkit.compare.reproduction.measures import Array, Case, RateCurve, Reported, Side
from pgkit.compare.reproduction.rules import Outcome
from pgkit.stats import Estimate

RATES = np.array(half_decades(-10, 0))
CARTPOLE, PENDULUM = ("CartPole-v1", "actor-critic"), ("Pendulum-v1", "actor-critic")
SEEDS = 10
JITTER = 0.001 * np.arange(SEEDS)
HALF = np.arange(SEEDS) % 2 == 0
"""The seeds that behave in one way where seeds disagree."""


def peak(at: int = 5, reach: int = 0, beside: float = 0.0) -> Array:
    """Scores ``(L, S)``: 1 at a rate and up to ``reach`` rates beside it, else ``beside``."""
    means = np.where(np.abs(np.arange(len(RATES)) - at) <= reach, 1.0, beside)
    scores: Array = means[:, None] + JITTER
    return scores


def seeds_disagree(first: Array, second: Array) -> Array:
    """Every other seed as in ``first``, the others as in ``second``."""
    return np.where(HALF, first, second)


def side(arms: Mapping[str, Array], case: Case = CARTPOLE) -> Side:
    """A plan with one case, whose runs did not learn where they score less than 0.1."""
    curves = {arm: RateCurve(RATES, scores, scores, scores < 0.1, 0.1) for arm, scores in arms.items()}
    reported = {arm: Reported(1.0, curve.scores[curve.best], curve.finals[curve.best]) for arm, curve in curves.items()}
    return Side("log", (case,), tuple(arms), {case: curves}, {case: reported}, {case: reported}, 0.05)


def joined(*sides: Side) -> Side:
    """Several cases as one plan."""
    cases = tuple(case for each in sides for case in each.cases)
    curves = {case: each.curves[case] for each in sides for case in each.cases}
    reported = {case: each.reported[case] for each in sides for case in each.cases}
    return Side("log", cases, sides[0].arms, curves, reported, reported, 0.05)


def around(mean: float, sd: float) -> Array:
    """Scores of all rates, those of the best around a mean."""
    scores = peak()
    scores[5] = mean + sd * np.linspace(-1, 1, SEEDS)
    return scores


def test_a_window_is_contiguous_and_counts_decades_between_its_ends() -> None:
    scores = peak(at=5, reach=1)
    scores[9] = 0.99  # good again, but not beside the best
    curve = RateCurve(RATES, scores, scores, scores < 0.1, 0.1)
    assert (curve.window, curve.cut_off) == ((4, 6), "")
    assert curve.decades == pytest.approx(1.0, abs=1e-3)
    assert [float(RATES[index]) for index in curve.beyond()] == [0.0316, 0.1]  # a decade above 0.01


WINDOWS = {
    "confirmed": {"adam": peak(), "sgd": peak(reach=2)},
    "not confirmed": {"adam": peak(reach=2), "sgd": peak(reach=2)},
    "not decided": {"adam": peak(), "sgd": seeds_disagree(peak(reach=2), peak(beside=0.8))},
}


@pytest.mark.parametrize("verdict", WINDOWS)
def test_narrower_windows(verdict: str) -> None:
    outcome = rules.narrower_windows(side(WINDOWS[verdict]), ["adam"], ["sgd"])
    assert outcome.verdict == verdict
    assert outcome.effect.low <= outcome.effect.value <= outcome.effect.high


def test_wider_windows_refute_narrower_ones_with_their_numbers() -> None:
    outcome = rules.narrower_windows(side({"adam": peak(reach=2), "sgd": peak()}), ["adam"], ["sgd"])
    assert outcome.verdict == "not confirmed"
    assert outcome.effect.value == pytest.approx(2.0, abs=1e-3)
    assert outcome.numbers == (
        "2.00 decades against 0.00: +2.00 decades [+2.00, +2.00]. 0 of 2 windows reach an end of the grid."
    )


def test_arms_that_learn_nowhere_have_no_window() -> None:
    nothing = peak() * 0.05
    outcome = rules.narrower_windows(side({"adam": peak(), "sgd": nothing}), ["adam"], ["sgd"])
    assert (outcome.verdict, outcome.numbers) == ("not decided", "In no case did one of adam and one of sgd learn.")
    assert (
        rules.evener_rates(side({"nesterov": nothing, "adam": peak()}), "nesterov", ["adam"]).verdict == "not decided"
    )


BEYOND = {
    "confirmed": peak(),
    "not confirmed": peak(beside=0.5),
    "not decided": seeds_disagree(peak(), peak(beside=0.5)),
}


@pytest.mark.parametrize("verdict", BEYOND)
def test_diverging_beyond(verdict: str) -> None:
    outcome = rules.diverging_beyond(side({"adam": BEYOND[verdict], "sgd": peak()}), ["adam"], ["sgd"])
    assert outcome.verdict == verdict
    share = {"confirmed": 1.0, "not confirmed": 0.0, "not decided": 0.5}[verdict]
    assert outcome.effect.value == pytest.approx(share)
    assert "The others': 100 %" in outcome.numbers


def test_a_window_up_to_the_end_of_the_grid_says_nothing_of_what_is_beyond() -> None:
    outcome = rules.diverging_beyond(side({"adam": peak(at=10), "sgd": peak()}), ["adam"], ["sgd"])
    assert side({"adam": peak(at=10)}).curves[CARTPOLE]["adam"].cut_off == "high"
    assert outcome.verdict == "not decided"
    assert "ends below the highest rate" in outcome.numbers


EVENER = {
    "confirmed": (peak(beside=0.8), peak()),
    "not confirmed": (peak(), peak(beside=0.8)),
    "not decided": (seeds_disagree(peak(), peak(beside=0.4)), peak(beside=0.18)),
}


@pytest.mark.parametrize("verdict", EVENER)
def test_evener_rates(verdict: str) -> None:
    nesterov, adam = EVENER[verdict]
    outcome = rules.evener_rates(side({"nesterov": nesterov, "adam": adam}), "nesterov", ["adam", "rmsprop"])
    assert outcome.verdict == verdict


MOMENTUM = {"confirmed": (0.5, 0.01), "not confirmed": (0.01, 0.01), "not decided": (0.1, 0.2)}


@pytest.mark.parametrize("verdict", MOMENTUM)
def test_depends_on_environment(verdict: str) -> None:
    gain, sd = MOMENTUM[verdict]
    first = side({"nesterov": around(0.4 + gain, sd), "sgd": around(0.4, sd)})
    second = side({"nesterov": around(0.4, sd), "sgd": around(0.4, sd)}, PENDULUM)
    outcome = rules.depends_on_environment(joined(first, second), "nesterov", "sgd")
    assert outcome.verdict == verdict
    assert outcome.effect.value == pytest.approx(gain)


def test_momentum_in_one_environment_depends_on_nothing() -> None:
    first = side({"nesterov": peak(), "sgd": peak()})
    idle = side({"nesterov": peak() * 0.01, "sgd": peak() * 0.01}, PENDULUM)
    for plan in (first, joined(first, idle)):
        assert rules.depends_on_environment(plan, "nesterov", "sgd").verdict == "not decided"


@pytest.mark.parametrize("verdict", MOMENTUM)
def test_better_optimum(verdict: str) -> None:
    gain, sd = MOMENTUM[verdict]
    plan = side({"adam": around(0.4 + gain, sd), "adamax": around(0.3, sd), "nesterov": around(0.4, sd)})
    outcome = rules.better_optimum(plan, "actor-critic", ["adam", "adamax"], "nesterov")
    assert outcome.verdict == verdict
    assert outcome.effect.value == pytest.approx(gain)
    assert rules.better_optimum(plan, "ppo", ["adam"], "nesterov").verdict == "not decided"


def test_nothing_is_decided_before_every_case_is_complete() -> None:
    def yes(_: Side) -> Outcome:
        return Outcome("confirmed", Estimate(1.0, 1.0, 1.0), "")

    whole = side({"adam": peak()})
    assert rules.whole(yes)(whole).verdict == "confirmed"
    partly = Side("log", (CARTPOLE, PENDULUM), whole.arms, whole.curves, whole.reported, whole.fresh, 0.05)
    outcome = rules.whole(yes)(partly)
    assert outcome.verdict == "not decided"
    assert outcome.numbers == "1 of 2 cases are missing: Pendulum-v1, actor-critic."


def test_nothing_is_decided_with_two_seeds() -> None:
    judge = rules.whole(lambda side: rules.narrower_windows(side, ["adam"], ["sgd"]))
    arms = WINDOWS["confirmed"]
    assert judge(side(arms)).verdict == "confirmed"
    outcome = judge(side({arm: scores[:, :2] for arm, scores in arms.items()}))
    assert outcome.verdict == "not decided"
    assert outcome.numbers.endswith("Seeds: 2, too few to decide.")


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [((0.1, 0.2), "confirmed"), ((-0.2, -0.1), "not confirmed"), ((-0.01, 0.01), "not confirmed"), ((0.0, 0.2), "?")],
)
def test_an_effect_must_lie_beyond_what_matters(limits: Sequence[float], verdict: str) -> None:
    said = rules.decide(Estimate(sum(limits) / 2, *limits), 0.05, "better")
    assert said == verdict.replace("?", "not decided")
    mirrored = Estimate(-sum(limits) / 2, -limits[1], -limits[0])
    assert rules.decide(mirrored, 0.05, "worse") == said
