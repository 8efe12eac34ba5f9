"""Each rule speaks at its threshold and is silent one step beside it; nothing is said of what was not measured."""

import re

import numpy as np
import pytest
from helpers.diagnosed_points import DEAD, FRAGILE, REFERENCE, course, healthy_points, point, quantity, share

from pgkit.diagnose.history import at_level
from pgkit.diagnose.interventions import INTERVENTIONS
from pgkit.diagnose.results import PointResult, Quantity
from pgkit.diagnose.rules import fewest_falls
from pgkit.diagnose.thresholds import Thresholds
from pgkit.diagnose.verdicts import HEADLINES, RULES, summary, verdicts
from pgkit.stats import wilson


def spoken(*points, reference=REFERENCE, estimator="gae-0.95", thresholds=None):
    """Verdicts by rule."""
    return {each.rule: each for each in verdicts(points, reference, estimator, thresholds)}


def rules_at(**changes):
    """Names of the rules that speak of a single point, without those that speak of nothing."""
    return set(spoken(point(**changes))) - {"not measured", "healthy", "nothing resolved"}


def intervened(**improvements):
    """A fragile point at which interventions improved P(half) by (low, high)."""
    changes = dict(FRAGILE)
    for name, (low, high) in improvements.items():
        changes[f"interventions__{name}__half_share"] = share(0.8 - (low + high) / 2, 0.05, 0.4)
        changes[f"interventions__{name}__improvement"] = Quantity((low + high) / 2, low, high, 64)
    return point(**changes)


# 1. Saturated


def test_a_dead_policy_is_saturated():
    alive = point(0.0, return__mean=quantity(23.0, 1.0), noise__actor__grad_norm=quantity(0.56))
    verdict = spoken(alive, point(0.25, **DEAD), point(0.5, **DEAD))["saturated"]
    assert verdict.env_steps == [125_000, 250_000]
    for number in ("at 125,000 steps", "99 %", "1e-23", "0.56", "9.4 [9.3, 9.5]", "39 updates", "the reference, 475"):
        assert number in verdict.words


@pytest.mark.parametrize(
    ("name", "speaks", "silent"),
    [
        ("health__policy__certain", quantity(0.951), quantity(0.95)),
        ("noise__actor__grad_norm", quantity(0.99e-4 * 0.56), quantity(1.01e-4 * 0.56)),
        ("post_update__K__change", quantity(0.0, 22.7), quantity(0.0, 22.8)),
        ("post_update__K__change", quantity(2.7, 20.0), quantity(2.8, 20.0)),
        ("return__mean", quantity(373.9, 10.0), quantity(374.1, 10.0)),  # 475 - .2 x 455 = 384
    ],
)
def test_saturated_needs_all_conditions(name, speaks, silent):
    alive = point(0.0, noise__actor__grad_norm=quantity(0.56))
    assert "saturated" in spoken(alive, point(0.5, **DEAD | {name: speaks}))
    assert "saturated" not in spoken(alive, point(0.5, **DEAD | {name: silent}))


# 2. Fragile


def test_a_fragile_point_is_put_into_words():
    verdict = spoken(point(0.01, **FRAGILE), point(0.02))["fragile"]
    assert verdict.words == (
        "The next 39 updates of this optimizer would have cut the return from 494 [488, 500] to 83 [58, 108] on "
        "average at 5,000 steps (1 % of training), and would have left 80 % [69 %, 88 %] of 64 trials with less than "
        "half of it."
    )
    assert verdict.refuted_by.startswith("fewer than 12 of 64 copies")
    assert verdict.env_steps == [5_000]
    assert set(verdict.evidence) == {"post_update/K/half_share", "post_update/K/mean", "return/mean"}


def test_twelve_of_64_copies_are_fragile_and_eleven_are_not():
    for count, speaks in ((12, True), (11, False)):
        assert ("fragile" in rules_at(post_update__K__half_share=Quantity(*wilson(count, 64), 64))) == speaks


@pytest.mark.parametrize("copies", [8, 16, 32, 48, 64, 100, 256])
@pytest.mark.parametrize("limit", [0.05, 0.1, 0.3])
def test_the_fewest_falls_are_those_of_wilsons_interval(copies, limit):
    count = fewest_falls(copies, limit)
    assert wilson(count, copies).low > limit >= wilson(count - 1, copies).low


def test_the_worst_point_is_described_and_the_others_are_named():
    other = point(0.05, post_update__K__half_share=share(0.3, 0.2, 0.4))
    verdict = spoken(other, point(0.1, **FRAGILE), point(0.2))["fragile"]
    assert "80 %" in verdict.words
    assert verdict.words.endswith("The same holds at 25,000 steps.")
    assert verdict.env_steps == [25_000, 50_000]


@pytest.mark.parametrize("name", ["batch_x8", "critic_fitted", "optimizer_reset"])
def test_a_cure_names_its_cause(name):
    verdict = spoken(intervened(**{name: (0.11, 0.5)}))[f"fragile/{name}"]
    assert str(INTERVENTIONS[name].cause).lower() in verdict.words.lower()
    assert INTERVENTIONS[name].change in verdict.words
    assert f"interventions/{name}/improvement" in verdict.evidence
    assert "points [11, 50]" in verdict.words
    beside = spoken(intervened(**{name: (0.1, 0.5)}))
    assert f"fragile/{name}" not in beside
    assert "fragile/cause not found" in beside


def test_a_smaller_rate_means_the_landscape_only_where_a_larger_batch_does_not_help():
    cures, fails = (0.3, 0.6), (-0.2, 0.1)
    assert "fragile/rate_div_10" in spoken(intervened(rate_div_10=cures, batch_x8=fails))
    assert "fragile/rate_div_10" not in spoken(intervened(rate_div_10=cures, batch_x8=cures))
    assert "fragile/rate_div_10" not in spoken(intervened(rate_div_10=cures))  # nobody tried the batch
    assert "fragile/rate_div_10" not in spoken(intervened(rate_div_10=(0.1, 0.6), batch_x8=fails))


def test_several_causes_may_be_said():
    rules = spoken(intervened(rate_div_10=(0.5, 0.9), batch_x8=(-0.3, 0.0), critic_fitted=(0.4, 0.7)))
    assert {"fragile/rate_div_10", "fragile/critic_fitted"} <= set(rules)
    assert "fragile/cause not found" not in rules


def test_lambda_1_alone_is_no_cause():
    assert "cause not found" in spoken(intervened(lambda_1=(0.2, 0.5)))["fragile/cause not found"].words


def test_no_cause_is_sought_where_nothing_was_tried():
    assert {rule for rule in spoken(point(**FRAGILE)) if rule.startswith("fragile")} == {"fragile"}


# 3. One update


def test_downhill():
    verdict = spoken(point(parts__odd=quantity(-67.0, 24.0, 20)))["downhill"]
    assert "-67 [-91, -43]" in verdict.words
    assert "downhill" in rules_at(parts__odd=quantity(-1.0, 0.99, 20))
    assert "downhill" not in rules_at(parts__odd=quantity(-1.0, 1.0, 20))


def test_an_overshooting_update_names_its_best_step():
    parts = {"parts__odd": quantity(6.6, 8.0, 20), "parts__even": quantity(-13.7, 6.0, 20)}
    best = Quantity(0.24, -0.1, 0.6, 20)
    verdict = spoken(point(**parts, parts__best_multiple=best))["overshoots"]
    assert "0.24 [-0.1, 0.6] of its own" in verdict.words
    assert "+6.6 [-1.4, 14.6]" in verdict.words
    unknown = Quantity(np.nan, n=20, reason="the parabola has no top")
    assert "best step is unknown." in spoken(point(**parts, parts__best_multiple=unknown))["overshoots"].words
    assert "overshoots" not in rules_at(**parts | {"parts__odd": quantity(13.8, 8.0, 20)})  # gains altogether
    assert "overshoots" not in rules_at(**parts | {"parts__odd": quantity(-0.1, 8.0, 20)})  # no gain to overshoot
    assert "overshoots" not in rules_at(**parts | {"parts__even": quantity(-13.7, 13.8, 20)})  # not resolved


def test_noise_eats_the_step():
    parts = {"parts__odd": quantity(2.0, 1.0, 20), "parts__even": quantity(-1.0, 1.0, 20)}
    verdict = spoken(point(**parts, parts__gap=quantity(-1.1, 1.0)))["noise eats the step"]
    assert "would gain 1 " in verdict.words
    assert "noise eats the step" not in rules_at(**parts, parts__gap=quantity(-1.1, 1.1))
    assert "noise eats the step" not in rules_at(**parts, parts__gap=quantity(-0.9, 0.5))
    assert "noise eats the step" not in rules_at(
        parts__odd=quantity(1.0, 0.5, 20), parts__even=quantity(-2.0, 0.5, 20), parts__gap=quantity(-1.1, 0.5)
    )


def test_a_higher_level_widens_the_intervals_of_one_update():
    changes = {"parts__odd": quantity(-1.0, 0.9, 20)}
    assert "downhill" in spoken(point(**changes))
    assert "downhill" not in spoken(point(**changes), thresholds=Thresholds(step_level=0.995))
    assert at_level(quantity(0.0, 2.093024, 20), 0.99).high == pytest.approx(2.860935, abs=1e-5)


# 4. Critic


def test_a_constant_critic():
    critic = {
        "critic__explained_variance": quantity(0.1, 0.09, 768),
        "critic__target_variance": quantity(300.0, 50.0, 768),
    }
    assert "0.1 [0.01, 0.19]" in spoken(point(**critic))["critic/constant"].words
    assert "critic/constant" not in rules_at(**critic | {"critic__explained_variance": quantity(0.1, 0.1, 768)})
    assert "critic/constant" not in rules_at(**critic | {"critic__target_variance": quantity(1.0, 1.0, 768)})
    assert "critic/constant" not in rules_at(**critic | {"critic__target_variance": None})


def test_an_untrained_critic_is_no_fault():
    ill = {
        "critic__explained_variance": quantity(0.0, 0.1),
        "critic__target_variance": quantity(9.0, 1.0),
        "estimators__gae-0.95__bias2": quantity(5.0, 1.0, 48),
    }
    assert {"critic/constant", "critic/bias"} <= set(spoken(point(0.01, **ill)))
    assert not {"critic/constant", "critic/bias"} & set(spoken(point(0.0, **ill)))


def test_the_bias_counts_for_the_estimator_of_the_run_only():
    bias = {"estimators__gae-0.95__bias2": quantity(129.0, 127.9, 48)}
    verdict = spoken(point(**bias))["critic/bias"]
    assert "129 [1.1, 257] times" in verdict.words
    assert "critic/bias" not in spoken(point(**bias), estimator="gae-1")
    assert "critic/bias" not in spoken(point(**bias), estimator=None)
    assert "critic/bias" not in rules_at(**{"estimators__gae-0.95__bias2": quantity(129.0, 128.0, 48)})


# 5. Cliff


@pytest.mark.parametrize(("alpha", "rule"), [(1.0, "cliff"), (2.0, "cliff/near"), (8.0, "cliff/near"), (16.0, None)])
def test_a_cliff_is_as_near_as_it_is(alpha, rule):
    lines = {"cliff__alpha": Quantity(alpha, n=50), "cliff__random_share": Quantity(0.0, n=10)}
    assert rules_at(**lines) == ({rule} if rule else set())


def test_a_cliff_needs_random_directions_in_which_there_is_none():
    assert rules_at(cliff__alpha=Quantity(1.0)) == set()
    steep = {"cliff__alpha": Quantity(1.0, n=50), "cliff__random_share": Quantity(0.3, n=10)}
    assert rules_at(**steep) == {"cliff/steep all round"}


# 6. Stalled


def plateau(**changes):
    """A member that learns, stands still at 200 for half of the training, and learns again."""
    rising = {0: 22.0, 1: 200.0, 2: 190.0, 3: 210.0, 4: 490.0}
    return [point(k / 4, return__mean=quantity(value, 10.0), **changes) for k, value in rising.items()]


def test_a_plateau_is_stalled_with_cause_not_found():
    verdict = spoken(*plateau())["stalled/cause not found"]
    assert verdict.env_steps == [125_000, 250_000, 375_000]
    for text in ("210 [200, 220]", "from 125,000 to 375,000 steps (50 % of training)", "curvature was not measured"):
        assert text in verdict.words


@pytest.mark.parametrize(("value", "stalls"), [(222.7, True), (222.8, False)])
def test_a_stall_stays_within_the_rope(value, stalls):
    points = [point(share, return__mean=quantity(value, 10.0)) for share, value in ((0.2, 200.0), (0.5, value))]
    assert ("stalled/cause not found" in spoken(*points)) == stalls


@pytest.mark.parametrize(("end", "stalls"), [(0.4, True), (0.39, False)])
def test_a_stall_lasts_a_fifth_of_the_training(end, stalls):
    assert ("stalled/cause not found" in spoken(point(0.2), point(end))) == stalls


def test_standing_still_at_the_reference_is_no_stall():
    assert "stalled/cause not found" in spoken(*course(460.0, 460.0, 460.0))
    assert "stalled/cause not found" not in spoken(*course(465.0, 465.0, 465.0))  # not resolved to be below
    assert "stalled/cause not found" not in spoken(*course(460.0, 460.0, 460.0), reference=None)


def test_a_stall_that_one_batch_does_not_resolve_is_limited_by_noise():
    verdict = spoken(*plateau(noise__actor__nsr=Quantity(4.0, 1.01, 15.9, 64)))["stalled/noise-limited"]
    assert "4 [1.01, 15.9] times as much noise as signal" in verdict.words
    for low, high in ((1.0, 15.9), (1.01, 16.0)):
        assert "stalled/noise-limited" not in spoken(*plateau(noise__actor__nsr=Quantity(4.0, low, high, 64)))
    assert "stalled/noise-limited" not in spoken(*plateau(noise__actor__nsr=Quantity(np.nan, 1.5, 9.0)))


FLAT = {
    "noise__actor__p_flip": quantity(0.3),
    "noise__actor__nsr": Quantity.missing("not resolved"),
    "parts__odd": quantity(0.1, 0.5, 20),
}
SADDLE = {"curvature__top": quantity(5.0, 4.0), "curvature__bottom": quantity(-5.0, 4.0)} | FLAT
OPTIMUM = FLAT | {
    "curvature__top": quantity(0.0, 1.0),
    "curvature__bottom": quantity(-5.0, 4.0),
    "curvature__gradient": quantity(-1.0, 2.0),
    "curvature__random_up": Quantity(0.0, n=25),
}


@pytest.mark.parametrize(
    "beside",
    [
        {"curvature__top": quantity(5.0, 5.1)},
        {"curvature__bottom": quantity(-5.0, 5.1)},
        {"noise__actor__p_flip": quantity(0.04)},
        {"noise__actor__p_flip": None},
        {"parts__odd": quantity(0.0, 22.8, 20)},
        {"curvature__top_differences": quantity(5.0, 5.1)},
    ],
)
def test_a_saddle_needs_both_curvatures_and_no_gradient(beside):
    assert "stalled/saddle" in spoken(*plateau(**SADDLE))
    assert "stalled/saddle" in spoken(*plateau(**SADDLE, curvature__top_differences=quantity(5.0, 4.9)))
    assert "stalled/saddle" not in spoken(*plateau(**SADDLE | beside))


@pytest.mark.parametrize(
    "beside",
    [
        {"curvature__top": quantity(1.1, 1.0)},
        {"curvature__gradient": quantity(2.1, 2.0)},
        {"curvature__random_up": Quantity(0.04, n=25)},
        {"curvature__random_up": None},
        {"curvature__bottom": quantity(-5.0, 5.1)},
        {"noise__actor__p_flip": quantity(0.04)},
        {"parts__odd": quantity(0.6, 0.5, 20)},
    ],
)
def test_like_a_local_optimum_needs_that_nothing_leads_up(beside):
    verdict = spoken(*plateau(**OPTIMUM))["stalled/like a local optimum"]
    assert "looks like a local optimum" in verdict.words
    assert "0 [-1, 1]" in verdict.words  # what upward curvature could still be there
    assert "stalled/like a local optimum" not in spoken(*plateau(**OPTIMUM | beside))


# 7. Healthy


def test_a_solved_run_is_healthy_and_says_what_would_have_shown():
    verdict = spoken(*healthy_points())["healthy"]
    assert "500 [490, 510]" in verdict.words
    assert "12 of 64 copies" in verdict.words
    assert "by 1 in one update" in verdict.words


def test_a_rising_run_is_healthy_without_a_reference():
    assert "rises by" in spoken(*healthy_points(), reference=None)["healthy"].words
    assert "healthy" in spoken(*course(22.0, 100.0, 200.0, 300.0))


def test_a_run_that_fell_unnoticed_is_not_healthy():
    verdict = spoken(*course(22.0, 300.0, 400.0, 120.0))["nothing resolved"]
    assert "neither rises" in verdict.words
    assert "12 of 64 copies" in verdict.words


@pytest.mark.parametrize(
    "missing",
    ["post_update/K/mean", "post_update/K/change", "post_update/K/half_share", "health/policy/certain", "parts/odd"],
)
def test_nothing_is_healthy_that_was_not_measured(missing):
    points = [
        PointResult(p.member, p.env_steps, p.share, False, {k: v for k, v in p.quantities.items() if k != missing})
        for p in healthy_points()
    ]
    rules = spoken(*points)
    assert "healthy" not in rules
    assert missing in rules["not measured"].words


def test_the_last_point_needs_no_further_updates():
    *before, last = healthy_points()
    kept = {name: value for name, value in last.quantities.items() if not name.startswith(("post_update", "parts"))}
    ended = PointResult(last.member, last.env_steps, last.share, False, kept)
    assert "healthy" in spoken(*before, ended)
    unplayed = PointResult(last.member, 1.0, 0.0, False, kept)
    assert "were not played at 1 of 5 points" in spoken(unplayed, *before, last)["nothing resolved"].words


def test_a_healthy_run_with_one_fragile_point_is_not_called_healthy():
    assert "healthy" not in spoken(*healthy_points(), point(0.5, **FRAGILE))


# Order, and what is never said


def test_verdicts_come_in_the_order_of_the_rules():
    everything = intervened(batch_x8=(0.3, 0.6))
    changes = {name.replace("/", "__"): value for name, value in everything.quantities.items()} | {
        "critic__explained_variance": quantity(0.0, 0.1),
        "critic__target_variance": quantity(9.0, 1.0),
        "estimators__gae-0.95__bias2": quantity(5.0, 1.0),
        "parts__odd": quantity(-5.0, 1.0, 20),
        "cliff__alpha": Quantity(1.0),
        "cliff__random_share": Quantity(0.0, n=10),
    }
    points = [point(0.01, **changes), *(point(share, **DEAD) for share in (0.5, 0.75, 1.0))]
    rules = [verdict.rule for verdict in verdicts(points, REFERENCE, "gae-0.95")]
    assert rules == [
        "saturated",
        "fragile",
        "fragile/batch_x8",
        "downhill",
        "critic/constant",
        "critic/bias",
        "cliff",
        "stalled/cause not found",
    ]
    assert all(any(rule.startswith(headline) for headline in HEADLINES) for rule in rules)


def test_nothing_is_said_of_a_point_without_the_next_updates():
    """Whatever gradients, networks, critics, lines and curvatures look like."""
    terrible = {
        **DEAD,
        **SADDLE,
        "parts__odd": quantity(-5.0, 1.0, 20),
        "critic__explained_variance": quantity(0.0, 0.1),
        "critic__target_variance": quantity(9.0, 1.0),
        "cliff__alpha": Quantity(1.0),
        "cliff__random_share": Quantity(0.0, n=10),
        "post_update__K__half_share": share(0.8, 0.7, 0.9),
    }
    measured = [point(share, **terrible) for share in (0.1, 0.5, 1.0)]
    assert set(spoken(*measured)) - {"not measured"}
    unplayed = [point(share, **terrible | {"post_update__K__mean": None}) for share in (0.1, 0.5, 1.0)]
    assert set(spoken(*unplayed)) == {"nothing resolved", "not measured"}


def test_a_low_signal_to_noise_ratio_or_rank_alone_is_no_verdict():
    noisy = {
        "noise__actor__nsr": quantity(500.0, 100.0),
        "noise__actor__update_snr": quantity(0.001, 0.0005),
        "health__actor__srank": quantity(1.0),
        "health__actor__sign_balance": quantity(0.0),
        "curvature__sharpness_ratio": quantity(10.0, 1.0),
    }
    assert rules_at(**noisy) == set()


def test_dormant_units_change_nothing():
    fine = {"health__actor__dormant": quantity(0.0)}
    ill = {"health__actor__dormant": quantity(1.0)}
    assert verdicts([point(**fine)], REFERENCE) == verdicts([point(**ill)], REFERENCE) == verdicts([point()], REFERENCE)


def test_the_same_measurements_in_another_order_give_the_same_verdicts():
    points = [*healthy_points(), point(0.5, **FRAGILE)]
    assert verdicts(points, REFERENCE) == verdicts(points[::-1], REFERENCE)


def test_members_are_not_mixed():
    other = PointResult("seed-4", 0.0, 0.0, False, {})
    with pytest.raises(ValueError, match="one member"):
        verdicts([point(), other])
    with pytest.raises(ValueError, match="one member"):
        verdicts([])


def test_thresholds_can_be_changed():
    changes = {"post_update__K__half_share": share(0.2, 0.12, 0.3)}
    assert "fragile" in spoken(point(**changes))
    assert "fragile" not in spoken(point(**changes), thresholds=Thresholds(fragile=0.12))


def test_without_a_reference_stalls_cannot_be_judged():
    assert "stalled (there is no reference return)" in spoken(point(), reference=None)["not measured"].words


def test_without_an_estimator_its_bias_cannot_be_judged():
    assert (
        "the estimator that the run learns from is not known" in spoken(point(), estimator=None)["not measured"].words
    )


def test_every_verdict_names_numbers_and_what_refutes_it():
    points = [*plateau(**SADDLE), intervened(batch_x8=(0.3, 0.6)), point(0.9, **DEAD)]
    for verdict in verdicts(points, REFERENCE):
        if verdict.rule != "not measured":
            assert any(character.isdigit() for character in verdict.words)
            assert verdict.evidence
            assert verdict.env_steps
        assert verdict.refuted_by
        assert not re.search(r"\bnan\b|\bNone\b|unknown", verdict.words)


# The first paragraph


def test_the_summary_tells_the_course_then_the_cause():
    points = [point(0.0, return__mean=quantity(22.0, 1.0)), intervened(critic_fitted=(0.4, 0.7)), point(0.5, **DEAD)]
    text = summary(verdicts(points, REFERENCE), points)
    order = ["was 22 [21, 23] at 0 steps", "494 [488, 500]", "9.4 [9.3, 9.5]", "would have cut", "The critic is wrong"]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    assert text.count(". ") in (1, 2, 3)  # two to four sentences


def test_the_summary_of_a_healthy_run():
    points = healthy_points()
    text = summary(verdicts(points, REFERENCE), points)
    assert text.startswith("The return of seed-3 was 22 [12, 32] at 0 steps (0 % of training) and 500 [490, 510] at")
    assert "Healthy" in text
    assert "Not measured" in text


def test_every_rule_can_be_the_headline():
    assert len({rule.name for rule in RULES}) == len(RULES) == 7
