"""Every sentence of the report is about one case, and says what the tables of that case say."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.comparisons import PEAKS, synthetic
from helpers.small_comparison import TOML, write_toml

from pgkit import stats
from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Run, read_plan
from pgkit.compare.report import prose, stability
from pgkit.compare.report.glossary import glossary
from pgkit.compare.report.html import page, summary
from pgkit.compare.tables import Analysis

REINFORCE, ACTOR_CRITIC = ("CartPole-v1", "reinforce"), ("CartPole-v1", "actor-critic")


def with_tables(analysis: Analysis, **tables: pd.DataFrame) -> Analysis:
    return replace(analysis, tables=dict(analysis.tables) | tables)


def two_grids() -> Analysis:
    """The actor-critic has two learning rates that REINFORCE has not, as after an extension of its grid."""
    analysis = synthetic("quick", evaluation=10)
    parts = {}
    for name in ("sensitivity", "runs"):
        table = analysis.tables[name]
        low = (table["agent"] == "reinforce") & (table["lr"] < 5e-3)
        tuning = table["stage"] == "tuning" if name == "runs" else True
        parts[name] = table[~(low & tuning)]
    parts["sensitivity"] = parts["sensitivity"].assign(selected=lambda t: t["lr"] == t["optimizer"].map(PEAKS))
    rmsprop = (parts["sensitivity"]["agent"] == "reinforce") & (parts["sensitivity"]["optimizer"] == "rmsprop")
    parts["sensitivity"].loc[rmsprop, "selected"] = parts["sensitivity"].loc[rmsprop, "lr"] == 1e-2
    return with_tables(analysis, **parts)


def half_done() -> Analysis:
    """Only REINFORCE has been evaluated."""
    analysis = synthetic("quick", evaluation=10)
    arms, runs = analysis.tables["arms"], analysis.tables["runs"]
    waiting = (runs["agent"] == "actor-critic") & (runs["stage"] == "evaluation")
    return with_tables(analysis, arms=arms[arms["agent"] == "reinforce"], runs=runs[~waiting])


ANALYSES = {
    "quick": synthetic("quick", evaluation=10),
    "standard": synthetic(),
    "few seeds": synthetic(evaluation=5),
    "two grids": two_grids(),
    "half done": half_done(),
}


@pytest.fixture(params=ANALYSES)
def analysis(request: pytest.FixtureRequest) -> Analysis:
    return ANALYSES[request.param]


def evaluated(analysis: Analysis) -> list[tuple[str, str]]:
    return [case for case in analysis.cases if len(analysis.of("arms", case))]


def counts(analysis: Analysis, case: tuple[str, str]) -> pd.DataFrame:
    """What the runs of a case say of each arm, counted one by one."""
    runs = analysis.of("runs", case)
    runs = runs[runs["stage"] == "evaluation"]
    rows = {}
    for arm in PEAKS:
        of_arm = runs[runs["optimizer"] == arm]
        worst = np.sort(of_arm["auc"])[: -(-len(of_arm) // 10)]
        rows[arm] = {
            "n": len(of_arm),
            "learnt": sum(outcome == "learnt" for outcome in of_arm["outcome"]),
            "failed": sum(outcome == "failed" for outcome in of_arm["outcome"]),
            "collapsed": sum(of_arm["collapsed"]),
            "worst": round(worst.mean(), 2),
        }
    return pd.DataFrame(rows).T


SHORT = r"[^.;]*; [^.;]* collapsed on the way; the worst tenth .*?\d\.\d\d(?: \([a-z, ]*\))?\.(?: |$)"


def names(text: str) -> set[str]:
    return set(re.split(r", | and ", text))


# --- each sentence against the tables ---


def test_the_sentence_about_stability_is_that_of_the_runs(analysis: Analysis) -> None:
    for case, answer in zip(evaluated(analysis), prose.answers(analysis), strict=True):
        expected = counts(analysis, case)
        sentence = re.search(SHORT, answer.text)
        assert sentence is not None
        learnt, collapsed, worst = sentence[0].split("; ")
        for clause, column in ((learnt, "learnt"), (collapsed, "collapsed")):
            n = expected["n"].iloc[0]
            if told := re.search(r"rom (\d+) of (\d+) runs \((.*?)\) to (\d+) of \2 runs \((.*?)\)", clause):
                low, total, lowest, high, highest = told.groups()
                ends = (expected[column].min(), expected[column].max())
                assert (int(low), int(high), int(total)) == (*ends, n)
                for end, named in zip(ends, (lowest, highest), strict=True):
                    assert names(named) == set(expected.index[expected[column] == end])
            else:
                (same,) = set(expected[column])
                assert {0: "no run", n: "every run"}.get(same, f"{same:.0f} of {n:.0f} runs") in clause.lower()
        low, lowest, high, highest = re.search(r"from (\S+) \((.*?)\) to (\S+) \((.*?)\)", worst).groups()
        assert (float(low), float(high)) == (expected["worst"].min(), expected["worst"].max())
        assert names(lowest) == set(expected.index[expected["worst"] == float(low)])
        assert names(highest) == set(expected.index[expected["worst"] == float(high)])


def test_means_intervals_and_medians_are_those_of_the_case(analysis: Analysis) -> None:
    for case, answer in zip(evaluated(analysis), prose.answers(analysis), strict=True):
        arms = analysis.of("arms", case).set_index("optimizer")
        said = answer.text + answer.sure
        for arm in arms.index if "Mean scores" in said else ():
            row = arms.loc[arm]
            interval = f" [{row['t_low']:.2f}, {row['t_high']:.2f}]" if row["n"] >= 10 else ""
            median = f" (median {row['median']:.2f})" if abs(row["skew"]) > 1 else ""
            assert f"{arm} {row['mean']:.2f}{interval}{median}" in said
        for low, high, named in re.findall(r"(\d+) to (\d+) % \(([a-z, ]*)\)", said):
            arm = min(names(named))
            ends = [100 * arms.loc[arm, [f"{name}_low", f"{name}_high"]] for name in ("learnt", "collapse")]
            assert (low, high) in [(f"{first:.0f}", f"{last:.0f}") for first, last in ends]


def test_the_learning_rates_at_which_all_learn_are_those_of_the_tuning_runs() -> None:
    for analysis in (ANALYSES["quick"], ANALYSES["two grids"]):
        for case, answer in zip(analysis.cases, prose.answers(analysis), strict=True):
            runs = analysis.of("runs", case)
            runs = runs[runs["stage"] == "tuning"]
            lost = set(runs.loc[runs["outcome"] != "learnt", ["optimizer", "lr"]].itertuples(index=False, name=None))
            ranges = re.findall(r"from ([\de.-]+) to ([\de.-]+) \(([a-z, ]*)\)", answer.text.partition("All tuning")[2])
            assert ranges
            for low, high, named in ranges:
                for arm in names(named):
                    rates = sorted(runs.loc[runs["optimizer"] == arm, "lr"].unique())
                    inside = [float(low) <= lr <= float(high) for lr in rates]
                    assert not any((arm, lr) in lost for lr, within in zip(rates, inside, strict=True) if within)
                    outer = [k for k in (inside.index(True) - 1, len(inside) - inside[::-1].index(True)) if k >= 0]
                    assert all((arm, rates[k]) in lost for k in outer if k < len(rates))


def test_remarks_count_the_runs_of_their_case(analysis: Analysis) -> None:
    seen = 0
    for case in evaluated(analysis):
        expected = counts(analysis, case)
        for remark in prose.remarks(analysis, case):
            word = remark.partition(":")[0]
            for count, n, arm in re.findall(r"(\d+) of (\d+) runs of ([a-z]+) \(", remark):
                row = expected.loc[arm]
                wanted = {"Did not learn": row["n"] - row["learnt"], "Collapsed": row["collapsed"]}[word]
                assert (int(count), int(n)) == (wanted, row["n"])
                seen += 1
            if word.startswith("Failed"):
                told = {arm: int(count) for count, arm in re.findall(r"(\d+) of ([a-z]+)", remark)}
                assert told == expected.loc[expected["failed"] > 0, "failed"].to_dict()
    assert seen > 2


def test_runs_are_counted_by_case_and_by_how_they_ended(analysis: Analysis) -> None:
    for case in analysis.cases:
        runs = analysis.of("runs", case)
        said = prose.runs_of_case(analysis, case)
        stages = dict(re.findall(r"(tuning|evaluation) (\d+) \(", said))
        assert {stage: int(count) for stage, count in stages.items()} == runs["stage"].value_counts().to_dict()
        ends = dict.fromkeys(("learnt", "did not learn", "failed"), 0)
        for count, outcome in re.findall(r"(\d+) (learnt|did not learn|failed)", said):
            ends[outcome] += int(count)
        assert {outcome: count for outcome, count in ends.items() if count} == runs["outcome"].value_counts().to_dict()


def test_totals_are_those_of_all_runs() -> None:
    analysis = ANALYSES["standard"]
    ends = analysis.tables["runs"]["outcome"].value_counts()
    assert prose.state_of_runs(analysis) == (
        f"{len(analysis.tables['runs']) + 1} planned, {ends.sum()} finished: {ends['did not learn']} did not learn, "
        f"{ends.get('failed', 0)} failed; 1 missing"
    )


def test_each_case_states_its_own_grid() -> None:
    said = prose.introduction(ANALYSES["two grids"])
    assert "5 learning rates from 1e-2 to 1 (CartPole-v1, reinforce)" in said
    assert "and 7 learning rates from 1e-3 to 1 (CartPole-v1, actor-critic), each with 3 tuning seeds" in said
    assert "again with 10 fresh seeds, and only those" in said, "what is the same in all cases is said once"
    assert "7 learning rates from 1e-3 to 1, each with" in prose.introduction(ANALYSES["quick"])


def test_a_case_that_waits_for_its_evaluation_is_not_said_to_have_one() -> None:
    said = prose.introduction(ANALYSES["half done"])
    assert "10 fresh seeds (CartPole-v1, reinforce) and no fresh seed yet (CartPole-v1, actor-critic)" in said
    assert [answer.case for answer in prose.answers(ANALYSES["half done"])] == ["CartPole-v1, reinforce"]


SCALES = {"CartPole-v1": ScoreScale(22.2, 500.0, 475.0)}


def test_hyperparameters_that_were_declared_are_not_called_defaults(tmp_path) -> None:
    path = write_toml(tmp_path, TOML)
    empty = pd.DataFrame(columns=[*Run._fields])
    baselines = pd.DataFrame(columns=["environment", "policy", "episodes", "return_mean", "return_sd"])
    for declared, said in (
        ('optimizers=["sgd","adam"]', "(at their documented defaults)"),
        (
            'optimizers=["sgd",{name="adam",beta2=0.9,label="quick adam"}]',
            "(at their documented defaults, but quick adam has beta2 = 0.9)",
        ),
    ):
        analysis = analyse(read_plan(path, [declared]), SCALES, baselines, empty, {})
        assert analysis.facts["not_varied"][-1].endswith(said)


# --- what can be said at the quick tier ---


def frame(learnt: list[int], collapses: list[int], n: int = 10) -> pd.DataFrame:
    rows = []
    for arm, good, fallen in zip("abc", learnt, collapses, strict=False):
        row = {"optimizer": arm, "n": n, "learnt": good, "collapses": fallen, "worst_tenth": good / n}
        for name, count in (("learnt", good), ("collapse", fallen)):
            share = stats.wilson(count, n)
            row |= {f"{name}_rate": share.value, f"{name}_low": share.low, f"{name}_high": share.high}
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("learnt", "collapses", "said"),
    [
        ([10, 10], [0, 0], "Every run learnt; no run collapsed on the way; the worst tenth of the runs scored 1.00."),
        ([0, 0], [0, 0], "No run learnt; no run collapsed on the way; the worst tenth of the runs scored 0.00."),
        ([7], [2], "7 of 10 runs learnt; 2 of 10 runs collapsed on the way; the worst tenth of the runs scored 0.70."),
        (
            [7, 7],
            [1, 1],
            "7 of 10 runs of each optimizer learnt; 1 of 10 runs of each optimizer collapsed on the way",
        ),
        ([10, 4, 10], [0, 3, 1], "From 4 of 10 runs (b) to 10 of 10 runs (a and c) learnt; from 0 of 10 runs (a) to "),
    ],
)
def test_stability_is_one_plain_sentence(learnt: list[int], collapses: list[int], said: str) -> None:
    sentence = stability.in_short(frame(learnt, collapses))
    assert sentence.startswith(said)
    assert len(re.findall(r"\.(?: |$)", sentence)) == 1


def test_it_is_said_whether_these_runs_tell_optimizers_apart() -> None:
    near = stability.uncertainty(frame([10, 9], [0, 3]))
    assert near.startswith(
        "95 % intervals with 10 runs per optimizer: 60 to 98 % (b) and 72 to 100 % (a) of runs learn"
    )
    assert near.endswith("They overlap: so few runs cannot tell the optimizers apart by them.")
    far = stability.uncertainty(frame([10, 0], [0, 0]))
    assert far.endswith("Those of runs that learn lie apart, a difference that is worth confirming.")
    assert stability.uncertainty(frame([10], [1])).endswith("72 to 100 % of runs learn, 2 to 40 % collapse.")
    few = stability.uncertainty(frame([3, 2], [0, 0], n=5))
    assert few == "With 5 runs per optimizer there are too few for intervals."


def test_a_selected_rate_at_which_runs_do_not_learn_is_named() -> None:
    rows = [
        {"optimizer": arm, "lr": lr, "learnt_rate": share, "selected": lr == 0.1}
        for arm, shares in (("a", (1, 1, 0.5)), ("b", (1, 0.5, 1)))
        for lr, share in zip((0.01, 0.1, 1.0), shares, strict=True)
    ]
    table = pd.DataFrame(rows)
    assert stability.learning_rates(table) == (
        "All tuning runs learnt at learning rates from 1e-2 to 0.1 (a); "
        "at the selected learning rate of b some did not learn."
    )
    alone = stability.learning_rates(table[table["optimizer"] == "b"])
    assert alone == "At the selected learning rate of b some tuning runs did not learn."


def test_the_quick_report_leads_with_stability() -> None:
    analysis = ANALYSES["quick"]
    answer = prose.answers(analysis)[0]
    assert answer.text.startswith(stability.in_short(analysis.of("arms", REINFORCE)))
    assert answer.sure.startswith(stability.uncertainty(analysis.of("arms", REINFORCE)))
    assert answer.sure.endswith("it ranks nothing.")


# --- words ---


def visible(html: str) -> str:
    html = re.sub(r"<(style|script|svg).*?</\1>", " ", html, flags=re.DOTALL)
    titles = " ".join(re.findall(r'title="([^"]*)"', html))
    return " ".join(re.sub(r"<[^>]+>", " ", html).split()) + titles


def test_runs_that_did_not_learn_are_not_called_failed() -> None:
    analysis = ANALYSES["standard"]
    runs, arms = analysis.tables["runs"], analysis.tables["arms"]
    outcome = runs["outcome"].replace({"failed": "did not learn"})
    facts = dict(analysis.facts) | {"failed": 0}
    none = replace(with_tables(analysis, runs=runs.assign(outcome=outcome), arms=arms.assign(failed=0)), facts=facts)
    assert (outcome == "did not learn").any()
    for case in none.cases:
        said = " ".join([*prose.remarks(none, case), prose.runs_of_case(none, case)])
        assert "did not learn" in said
        assert "fail" not in said.lower()
    assert ", 0 failed" in prose.state_of_runs(none)


def test_the_report_uses_the_words_of_the_field_and_explains_them() -> None:
    for analysis in (ANALYSES["standard"], ANALYSES["quick"]):
        html = page(analysis, [])
        words = glossary(analysis.plan)
        for word, meaning in words.items():
            assert f"<dt>{word}</dt><dd>" in html
            assert len(meaning) > 20
        for word in ("actor optimizer", "deterministic policy", "stochastic policy", "trivial baselines", "replicate"):
            assert word in visible(html).lower()
        for text in (visible(html), summary(analysis)):
            assert not re.search(r"greedy|most likely actions|actions sampled|stupid|\barm\b", text)


def test_a_range_of_one_learning_rate_is_a_learning_rate() -> None:
    """Not "learning rates from 0.1 to 0.1"."""
    rows = [
        {"optimizer": arm, "lr": lr, "selected": lr == 0.1, "learnt_rate": float(arm == "wide" or lr == 0.1)}
        for arm in ("narrow", "wide")
        for lr in (0.01, 0.1)
    ]
    table = pd.DataFrame(rows)
    assert stability.learning_rates(table) == (
        "All tuning runs learnt at learning rates 0.1 (narrow) and from 1e-2 to 0.1 (wide)."
    )
    narrow = table[table["optimizer"] == "narrow"]
    assert stability.learning_rates(narrow) == "All tuning runs learnt at learning rate 0.1 (narrow)."
