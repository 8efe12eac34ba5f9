"""Synthetic members with one fault each get its name, and the order of the rules decides between several."""

import numpy as np
import pytest
from helpers.diagnosed_points import DEAD, FRAGILE, REFERENCE, course, healthy_points, point, quantity, share

from pgkit.diagnose.classify import BUDGET_SHARE, RULES, ClassRule, classify, decide, deciding_rule, signs
from pgkit.diagnose.results import PointResult, Quantity
from pgkit.diagnose.verdicts import verdicts


def label(points, **options):
    return classify(verdicts(points, REFERENCE, "gae-0.95"), points, REFERENCE, **options)


def signs_of(points, **options):
    return signs(verdicts(points, REFERENCE, "gae-0.95"), points, REFERENCE, **options)


LARGE = {"post_update__1__kl": quantity(0.05, 0.01)}
TINY = {"post_update__1__kl": quantity(2e-7, 1e-8)}
CONSTANT = {
    "critic__explained_variance": quantity(0.0, 0.09, 768),
    "critic__target_variance": quantity(300.0, 50.0, 768),
}
EAGER = {"parts__odd": quantity(2.0, 1.0, 20), "parts__best_multiple": Quantity(np.nan, 5.0, np.inf, 20)}


def died_of_large_steps():
    """One large update ruins the policy before half of its return means anything."""
    start = point(0.0, return__mean=quantity(22.0, 1.0), **LARGE, post_update__K__half_share=Quantity.missing("random"))
    return [start, *(point(at, **DEAD) for at in (0.01, 0.1, 0.5, 1.0))]


def members():
    """Members by name, with the label of their fault."""
    slow = course(22.0, 30.0, 40.0, 60.0)
    return {
        "good": (healthy_points(), "healthy"),
        "rising": (course(22.0, 100.0, 200.0, 300.0), "healthy"),
        "died of large steps": (died_of_large_steps(), "step too large"),
        "large steps, but solved": (
            [point(0.1, **FRAGILE | LARGE), point(1.0, return__mean=quantity(500.0), **LARGE)],
            "step too large",
        ),
        "tiny steps": (course(22.0, 30.0, 40.0, 60.0, **TINY), "step too small"),
        "small steps, larger are better": (course(22.0, 30.0, 40.0, 60.0, **EAGER), "step too small"),
        "constant critic": (course(22.0, 60.0, 90.0, 120.0, **CONSTANT), "critic wrong"),
        "biased critic": (
            course(22.0, 60.0, 90.0, 120.0, **{"estimators__gae-0.95__bias2": quantity(3.0, 1.0, 48)}),
            "critic wrong",
        ),
        "entropy is gone": ([*slow[:2], *(point(at, **DEAD) for at in (0.5, 0.75, 1.0))], "saturated"),
        "fell for no known reason": (course(22.0, 300.0, 400.0, 120.0), "not resolved"),
    }


@pytest.mark.parametrize("name", members())
def test_members_are_classified(name):
    points, expected = members()[name]
    assert label(points) == expected, deciding_rule(signs_of(points))


def test_a_corpse_of_a_large_step_is_saturated_too_but_not_called_so():
    points = died_of_large_steps()
    assert signs_of(points)["saturated_at_end"] == 1
    assert label(points) == "step too large"
    small = [point(0.0, return__mean=quantity(22.0, 1.0)), *points[1:]]
    assert label(small) == "saturated"


@pytest.mark.parametrize(("certain", "expected"), [(0.51, "saturated"), (0.49, "step too large")])
def test_a_policy_without_a_choice_from_the_start_was_not_made_so_by_its_updates(certain, expected):
    start = point(0.0, return__mean=quantity(22.0, 1.0), **LARGE, health__policy__certain=quantity(certain))
    assert label([start, *died_of_large_steps()[1:]]) == expected
    later = PointResult(start.member, 5_000.0, 0.01, False, start.quantities)
    assert np.isnan(signs_of([later])["certain_at_start"])


def test_the_step_is_judged_only_where_there_is_a_choice():
    turning_over = LARGE | {"health__policy__certain": quantity(0.99, 0.005, 2048)}
    points = [point(at, return__mean=quantity(30.0, 1.0), **turning_over) for at in (0.1, 0.5, 1.0)]
    assert np.isnan(signs_of(points)["kl"])
    assert label(points) == "saturated"
    before = [point(0.0, **LARGE), *points]
    assert signs_of(before)["kl"] == pytest.approx(0.05)
    assert label(before) == "step too large"


@pytest.mark.parametrize(("kl", "expected"), [(0.021, "step too large"), (0.019, "healthy")])
def test_large_updates_are_a_fault_even_of_a_solved_run(kl, expected):
    assert label(course(22.0, 100.0, 300.0, 500.0, post_update__1__kl=quantity(kl))) == expected


@pytest.mark.parametrize(("fragile", "expected"), [(3, "step too large"), (2, "healthy")])
def test_small_updates_count_as_large_if_most_points_are_fragile(fragile, expected):
    points = [point(0.1 * k, **FRAGILE if k < fragile else {}) for k in range(4)]
    assert label([*points[:3], point(1.0, return__mean=quantity(500.0, 5.0))]) == expected


def test_tiny_steps_come_before_a_bad_critic():
    points = course(22.0, 30.0, 40.0, 60.0, **TINY, **CONSTANT)
    assert signs_of(points)["constant_critic"] == 1
    assert label(points) == "step too small"


def test_a_constant_critic_of_a_solved_run_is_no_fault():
    assert label(course(22.0, 100.0, 300.0, 500.0, **CONSTANT)) == "healthy"


def test_a_critic_is_not_judged_where_the_task_is_solved_nor_before_training():
    solved = course(22.0, 500.0, 500.0, **CONSTANT)
    assert np.isnan(signs_of(solved)["constant_critic"])
    half = [*course(22.0, 100.0, 500.0), point(0.7, **CONSTANT), point(0.8, critic__explained_variance=quantity(0.9))]
    assert signs_of(half)["constant_critic"] == 1  # the other one has no resolved variance of targets
    half.append(point(0.9, **CONSTANT | {"critic__explained_variance": quantity(0.9, 0.05)}))
    assert signs_of(half)["constant_critic"] == 0.5


@pytest.mark.parametrize(("cure", "expected"), [("critic_fitted", "critic wrong"), ("batch_x8", "step too large")])
def test_a_cure_decides(cure, expected):
    cured = FRAGILE | {
        f"interventions__{cure}__improvement": quantity(0.5, 0.2),
        f"interventions__{cure}__half_share": share(0.3, 0.2, 0.4),
    }
    points = [*course(22.0, 100.0, 200.0, 300.0), point(0.5, **cured)]
    assert label(points) == expected
    assert label([*points, point(1.0, return__mean=quantity(500.0))]) == "healthy"  # it came back


def test_signs_leave_dead_points_out():
    measured = signs_of(died_of_large_steps())
    assert measured["kl"] == pytest.approx(0.05)
    assert np.isnan(measured["fragile"])


def test_a_solved_run_that_hardly_moves_has_small_steps_only_if_it_still_rises():
    assert label(course(22.0, 100.0, 300.0, 500.0, **TINY)) == "step too small"
    still = TINY | {"post_update__K__change": quantity(0.0, 1.0)}
    assert label(course(22.0, 500.0, 500.0, 500.0, **still)) == "healthy"


def test_updates_at_the_reference_do_not_count_as_small():
    solved = {"return__mean": quantity(500.0, 5.0), "post_update__1__kl": quantity(1e-8)}
    points = [*course(22.0, 100.0), *(point(at, **solved) for at in (1.1, 1.2, 1.3))]
    assert signs_of(points)["kl"] == pytest.approx(0.0005)
    assert signs_of(points[2:])["kl"] == pytest.approx(1e-8)


def test_the_path_is_the_length_of_all_updates():
    measured = signs_of(healthy_points())
    assert measured["path"] == pytest.approx(39 / BUDGET_SHARE * np.sqrt(2 * 0.0005))
    assert signs_of(healthy_points(), total_updates=100)["path"] == pytest.approx(100 * np.sqrt(0.001))
    assert label(course(22.0, 30.0, 40.0, 60.0), total_updates=100) == "step too small"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (EAGER, 1),
        (EAGER | {"parts__best_multiple": Quantity(np.nan, 4.9, np.inf, 20)}, 0),
        (EAGER | {"parts__odd": quantity(2.0, 2.0, 20)}, 0),
    ],
)
def test_a_larger_step_is_wanted_only_for_certain(changes, expected):
    assert signs_of([point(**changes)])["larger_is_better"] == expected


def test_rising_by_the_next_updates_or_over_the_second_half():
    still = {"post_update__K__change": quantity(1.0, 1.0)}
    assert signs_of(course(22.0, 100.0, 110.0))["rising"] == 1
    assert signs_of(course(22.0, 100.0, 120.0, **still))["rising"] == 0  # 110 is in both intervals
    assert signs_of(course(22.0, 100.0, 121.0, **still))["rising"] == 1


def test_nothing_is_decided_from_what_was_not_measured():
    assert decide({}) == "not resolved"
    assert decide({"kl": np.nan, "fragile": 1.0, "solved": np.nan}) == "step too large"  # by fragility alone
    assert decide({"kl": np.nan, "fragile": np.nan, "path": np.nan, "solved": 0.0}) == "not resolved"


def test_the_first_rule_decides_and_rules_can_be_replaced():
    rules = [ClassRule("a", "saturated", {"kl": 0.1}), ClassRule("b", "healthy", {"kl": 0.0}, {"kl": 0.05})]
    assert [decide({"kl": kl}, rules) for kl in (0.1, 0.07, 0.05, 0.049)] == [
        "saturated",
        "not resolved",
        "not resolved",
        "healthy",
    ]
    assert label(healthy_points(), rules=rules) == "healthy"
    assert label(died_of_large_steps(), rules=rules[1:]) == "not resolved"


def test_rules_use_signs_that_exist():
    known = signs_of(healthy_points()).keys()
    assert all({*rule.at_least, *rule.below} <= known for rule in RULES)
    assert {rule.label for rule in RULES} == {
        "healthy",
        "step too large",
        "step too small",
        "critic wrong",
        "saturated",
    }
