"""Sentences about a comparison, generated from its tables; verdicts come from ``pairs`` only."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from pgkit.compare.plan.search_space import Range
from pgkit.compare.report import stability
from pgkit.compare.tables import FAILED, FEW_SEEDS, LEARNT, NOT_LEARNT, Analysis
from pgkit.plots.style import joined, percent, rate, short_number
from pgkit.stats import SKEW_LIMIT

ENOUGH_CONFIDENCE = 0.95
"""Confidence that a tolerance interval should reach."""


class Answer(NamedTuple):
    """The answer for one case: a sentence, and how certain it is."""

    case: str
    text: str
    sure: str


def case_name(case: tuple[str, str]) -> str:
    """Return the name of a case for readers."""
    environment, agent = case
    return f"{environment}, {agent}"


def introduction(analysis: Analysis) -> str:
    """Return a paragraph that says what was done, and what was not."""
    facts = analysis.facts
    tier = "" if analysis.claims else "This comparison is exploratory: no ranking claims. "
    best = "setting" if analysis.all_tuned else "learning rate"
    text = (
        f"{tier}{joined(analysis.labels)} were trained with {_per_case(analysis, _tried)}, each with "
        f"{_tuning_seeds(analysis)}; the best {best} of each was then trained again with "
        f"{_per_case(analysis, _evaluated)}, and only those runs are reported. A score of 0 is the random policy, 1 "
        "the reference return, averaged over the whole training; a run that failed or did not learn has 0 from then on."
    )
    fixed = (
        f" Not varied, so this comparison says nothing about: {joined(facts['not_varied'])}."
        if facts["not_varied"]
        else ""
    )
    return text + fixed


def _tuning_seeds(analysis: Analysis) -> str:
    """Say on how many seeds rates were tried, and that screening dropped some before."""
    count = len(analysis.plan["tuning_seeds"])
    if not analysis.screened:
        return f"{count} tuning seeds"
    facts = analysis.facts["screening"]
    return f"up to {count} tuning seeds, as screening dropped {facts['dropped']} of {facts['tried']} on the way"


def screening(analysis: Analysis) -> str:
    """Say by which rules rates were dropped, what that saved, and what is therefore not known."""
    facts = analysis.facts["screening"]
    share = facts["env_steps"] / facts["grid_env_steps"] if facts["grid_env_steps"] else 0.0
    return (
        f"{analysis.plan['screening']['rule']}. {facts['dropped']} of {facts['tried']} rates were dropped, so tuning "
        f"took {percent(share)} of the steps of the full grid. Widths and areas of good rates, the expected best of k "
        "rates and the cost of one rate for all environments need the full grid, and are left out."
    )


def metric(analysis: Analysis) -> str:
    """Return what is compared, in the words of the field; plans say it in those of the first version."""
    return str(analysis.plan["metric"]).replace("actions sampled", "stochastic policy")


def _per_case(analysis: Analysis, describe: Callable[[Analysis, tuple[str, str]], str]) -> str:
    """Describe every case, and name the cases where they differ."""
    texts = {case_name(case): describe(analysis, case) for case in analysis.cases}
    different = dict.fromkeys(texts.values())
    if len(different) == 1:
        return next(iter(different))
    return joined(f"{text} ({joined(case for case in texts if texts[case] == text)})" for text in different)


def _tried(analysis: Analysis, case: tuple[str, str]) -> str:
    """Say what each arm of a case was tuned over."""
    sensitivity = analysis.of("sensitivity", case)
    if analysis.all_tuned:
        count = int(sensitivity["setting"].nunique())
        text = f"{count} settings each, quasi-random points of the space of all tuned hyperparameters"
        return text if count else "no setting yet"
    tried = sorted({*sensitivity["lr"], *(analysis.of("screening", case)["lr"] if analysis.screened else ())})
    return (
        f"{len(tried)} learning rates from {rate(tried[0])} to {rate(tried[-1])}" if tried else "no learning rate yet"
    )


def _evaluated(analysis: Analysis, case: tuple[str, str]) -> str:
    """Say with how many seeds the arms of a case were evaluated."""
    arms = analysis.of("arms", case)
    return f"{_counts(arms['n'])} fresh seeds" if len(arms) else "no fresh seed yet"


def spaces(analysis: Analysis) -> dict[str, str]:
    """Return the tuned ranges of each arm as text; empty if only the learning rate was tuned."""
    declared = analysis.plan["spaces"] if analysis.all_tuned else {}
    return {
        label: "; ".join(f"{name} {Range.model_validate(each)}" for name, each in space.items())
        for label, space in declared.items()
    }


def answers(analysis: Analysis) -> list[Answer]:
    """Return the answer for each case with evaluation runs; it begins with stability where there are no verdicts."""
    tell = _verdict if analysis.claims else _exploration
    return [Answer(case_name(case), *tell(analysis, case)) for case in analysis.cases if len(analysis.of("arms", case))]


def remarks(analysis: Analysis, case: tuple[str, str]) -> list[str]:
    """Return what a reader must know about a case: edges, flips, failures, skew, confidence."""
    return [
        *_of_selection(analysis.of("selection", case), analysis.of("sensitivity", case), analysis.all_tuned),
        *(_flips(analysis.of("pairs", case)) if analysis.claims else ()),
        *_of_arms(analysis.of("arms", case)),
    ]


def _verdict(analysis: Analysis, case: tuple[str, str]) -> tuple[str, str]:
    """Say which optimizer is better than which, and how certain that is."""
    arms, beaten = analysis.of("arms", case).set_index("optimizer"), _beaten(analysis.of("pairs", case))
    ahead = [arm for arm in arms.index if not beaten.get(arm)]
    others = [arm for arm in arms.index if arm not in ahead]
    if len(arms) == 1:
        text = f"{ahead[0]} was the only optimizer: mean score {_mean(arms.loc[ahead[0]])}"
    elif len(ahead) == 1 and all(ahead[0] in beaten[arm] for arm in others):
        text = f"{ahead[0]} is better than {joined(others)}: mean score {_mean(arms.loc[ahead[0]])} against " + joined(
            f"{_mean(arms.loc[arm])} ({arm})" for arm in others
        )
    elif not others:
        text = f"No optimizer was shown to be better than another. Mean scores: {_means(arms)}"
    else:
        worse = joined(f"{arm} is worse than {joined(sorted(beaten[arm]))}" for arm in others)
        text = "No optimizer was shown to be better than all others. "
        text += f"None was shown to be better than {joined(ahead, 'or')}; {worse}. "
        text += f"Mean scores: {_means(arms)}"
    short = stability.in_short(analysis.of("arms", case))
    return f"{text}. {short}", _sureness(analysis, case, arms)


def _sureness(analysis: Analysis, case: tuple[str, str], arms: pd.DataFrame) -> str:
    pairs = analysis.of("pairs", case)
    if not len(pairs):
        return ""
    counts = {verdict: int((pairs["verdict"] == verdict).sum()) for verdict in ("equivalent", "unresolved")}
    resolved = len(pairs) - counts["unresolved"]
    top = str(arms["p_best"].idxmax())
    tested, flips = int((pairs["second_best_verdict"] != "").sum()), int(pairs["flips"].sum())
    change = f"{flips} of {tested} verdicts change" if flips else f"none of {tested} verdicts changes"
    unit = "settings" if analysis.all_tuned else "learning rates"
    second = f"With second-best {unit} {change}." if tested else f"Second-best {unit} were not evaluated."
    return (
        f"{resolved} of {len(pairs)} pairs are resolved ({counts['equivalent']} as equivalent within "
        f"{analysis.plan['rope']:g}, {counts['unresolved']} unresolved), with {_counts(arms['n'])} runs per optimizer. "
        f"{top} has the highest mean in {percent(arms.loc[top, 'p_best'])} of bootstrap resamples. {second}"
    )


def _exploration(analysis: Analysis, case: tuple[str, str]) -> tuple[str, str]:
    """Say what can be said without claims: how many runs learnt and collapsed, the worst of them, and the means."""
    arms, sensitivity = analysis.of("arms", case), analysis.of("sensitivity", case)
    text = stability.in_short(arms)
    if len(sensitivity) and not analysis.all_tuned and not analysis.screened:
        text += f" {stability.learning_rates(sensitivity)}"
    means = f"Mean scores, in the order of the plan: {_means(arms.set_index('optimizer'))}."
    return text, f"{stability.uncertainty(arms)} {means} This shows where to look next; it ranks nothing."


def _beaten(pairs: pd.DataFrame) -> dict[str, set[str]]:
    """Return for each arm the arms that are better."""
    beaten: dict[str, set[str]] = {}
    for pair in pairs.itertuples():
        if pair.verdict == "better":
            beaten.setdefault(str(pair.second), set()).add(str(pair.first))
        elif pair.verdict == "worse":
            beaten.setdefault(str(pair.first), set()).add(str(pair.second))
    return beaten


def _mean(arm: pd.Series) -> str:
    """Format a mean, with its interval if there are enough runs, and with the median if the scores are skewed."""
    interval = f" [{arm['t_low']:.2f}, {arm['t_high']:.2f}]" if arm["n"] >= FEW_SEEDS else ""
    median = f" (median {arm['median']:.2f})" if abs(arm["skew"]) > SKEW_LIMIT else ""
    return f"{arm['mean']:.2f}{interval}{median}"


def _means(arms: pd.DataFrame) -> str:
    return ", ".join(f"{arm} {_mean(row)}" for arm, row in arms.iterrows())


def _counts(n: pd.Series) -> str:
    return f"{n.min():.0f}" if n.min() == n.max() else f"{n.min():.0f} to {n.max():.0f}"


def _of_selection(selection: pd.DataFrame, sensitivity: pd.DataFrame, all_tuned: bool) -> Iterator[str]:
    where = "its range" if all_tuned else "the grid"
    for row in selection.itertuples():
        if row.edge:
            end = {"low": "lower", "high": "upper"}[str(row.edge)]
            yield (
                f"Edge optimum: the best rate of {row.optimizer}, {rate(row.lr)}, is at the {end} end of {where}; "
                "its true best may lie beyond, and it may be better than shown."
            )
    in_set = sensitivity[sensitivity["in_set"].astype(bool)].sort_values("chosen_share", ascending=False)
    for arm in selection["optimizer"]:
        rows = in_set[in_set["optimizer"] == arm]
        if len(rows) > 1:
            names = [f"setting {number}" for number in rows["setting"]] if all_tuned else map(rate, rows["lr"])
            chosen = zip(names, rows["chosen_share"], strict=True)
            shares = joined(f"{name} in {percent(share)}" for name, share in chosen)
            yield f"The selection for {arm} is uncertain: resampled tuning seeds choose {shares}."


def _flips(pairs: pd.DataFrame) -> Iterator[str]:
    for pair in pairs[pairs["flips"].astype(bool)].itertuples():
        yield (
            f"A verdict depends on the selection: {pair.first} against {pair.second} is {pair.verdict}, "
            f"but {pair.second_best_verdict} with the second-best settings."
        )


def _of_arms(arms: pd.DataFrame) -> Iterator[str]:
    events = (
        ("Did not learn", arms["n"] - arms["learnt"], 1 - arms["learnt_high"], 1 - arms["learnt_low"]),
        ("Collapsed", arms["collapses"], arms["collapse_low"], arms["collapse_high"]),
    )
    for words, counts, low, high in events:
        happened = [
            f"{counts[k]:.0f} of {arms['n'][k]:.0f} runs of {arms['optimizer'][k]} "
            f"(95 %: {percent(low[k])} to {percent(high[k])})"
            for k in arms.index[counts > 0]
        ]
        if happened:
            yield f"{words}: {joined(happened)}. They stay in every number."
    failed = [f"{row.failed} of {row.optimizer}" for row in arms[arms["failed"] > 0].itertuples()]
    if failed:
        yield f"Failed, as a number was not finite: {joined(failed)}."
    if len(arms) and arms["n"].min() < FEW_SEEDS:
        yield f"Fewer than {FEW_SEEDS} runs per optimizer: dots, minimum, median and maximum are shown, no intervals."
        return
    for row in arms[arms["skew"].abs() > SKEW_LIMIT].itertuples():
        yield (
            f"The scores of {row.optimizer} are skewed ({row.skew:.1f}), so few runs move their mean, {row.mean:.2f}: "
            f"the median is {row.median:.2f}, and the BCa interval [{row.bca_low:.2f}, {row.bca_high:.2f}] is to be "
            "trusted more than Student's t."
        )
    low = arms[arms["tolerance_confidence"] < ENOUGH_CONFIDENCE]
    if len(low):
        achieved = joined(
            dict.fromkeys(f"{percent(row.tolerance_confidence)} with {row.n:.0f} runs" for row in low.itertuples())
        )
        yield f"Tolerance intervals (90 % of runs) have a confidence of {achieved}, not 95 %, which needs 46 runs."


def tuning_cost(selection: pd.DataFrame) -> str:
    """Say what tuning cost for each arm."""
    return joined(
        f"{row.optimizer} {row.runs} runs, {short_number(row.env_steps)} steps" for row in selection.itertuples()
    )


def state_of_runs(analysis: Analysis) -> str:
    """Say how many runs were planned and finished, how they ended, and how many are missing."""
    facts = analysis.facts
    missing = f"; {facts['missing']} missing" if facts["missing"] else ""
    outcomes = f"{facts['not_learnt']} did not learn, {facts['failed']} failed"
    stopped = facts["planned"] - facts["finished"] - facts["missing"] if analysis.screened else 0
    screened = f"; {stopped} stopped early by screening" if stopped else ""
    return f"{facts['planned']} planned, {facts['finished']} finished: {outcomes}{screened}{missing}"


def runs_of_case(analysis: Analysis, case: tuple[str, str]) -> str:
    """Say how many runs of a case finished in each stage, and how they ended."""
    runs = analysis.of("runs", case)
    texts = []
    for stage, of_stage in runs.groupby("stage", sort=False):
        ends = [(int((of_stage["outcome"] == outcome).sum()), outcome) for outcome in (LEARNT, NOT_LEARNT, FAILED)]
        ended = joined(f"{count} {outcome}" for count, outcome in ends if count)
        texts.append(f"{stage} {len(of_stage)} ({ended})")
    return joined(texts)


def seeds(numbers: Sequence[int]) -> str:
    """Format a list of seeds, consecutive ones as a range."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]} ({len(numbers)})"
    return ", ".join(map(str, numbers)) or "none"
