"""Columns of the report's tables: their order, headers, formats and help texts."""

from pgkit.plots.columns import Column, View, estimate, number, p_value, reward, whole, word
from pgkit.plots.style import percent, rate, short_number


def _event(count: str, name: str, header: str, help: str) -> tuple[Column, Column]:
    """Return the columns of an event: its count, and its rate with Wilson's interval."""
    limits = (f"{name}_low", f"{name}_high")
    return Column(count, header, whole, help), Column(f"{name}_rate", f"{header}, rate", percent, "Wilson 95 %", limits)


ARM = Column(
    "optimizer", "actor optimizer", word, "actor optimizer, by its label in the plan; the critic's is the same for all"
)
LR = Column("lr", "learning rate", rate, "of the actor optimizer")
SETTING = Column("setting", "setting", whole, "number of the setting, see the selected settings in full")
N = Column("n", "runs", whole, "replicates: they differ in their training seed only")

LEARNT = "runs whose final score is not below the line that the plan draws, 0.1 by default, and that did not fail"
FAILED = "runs with a loss, gradient or parameter that is not finite"
COLLAPSED = "runs that lost half the range and did not recover within a tenth of the budget"
SOLVED = "runs that reached the threshold and stayed there: the running mean of 5 evaluations, until the end"
WORST_TENTH = "mean score of the worst tenth of the runs; bootstrap 95 %, which knows nothing below the worst run"

TAIL = ("worst_tenth_low", "worst_tenth_high")
"""Limits of the worst tenth."""

ARMS_IN_SHORT = View(
    "arms",
    "Each optimizer at its selected setting, on fresh seeds",
    (
        ARM,
        SETTING,
        LR,
        N,
        Column("mean", "score", number, "mean normalised area under the learning curve; 95 % t", ("t_low", "t_high")),
        Column(
            "greedy_auc", "score, deterministic", number, "the same of the deterministic policy: not what is compared"
        ),
        Column("median", "median"),
        Column("final", "final", number, "mean score of the last 10 % of evaluations"),
        Column("worst_tenth", "worst tenth", number, WORST_TENTH),
        Column("learnt", "learnt", whole, LEARNT),
        Column("failed", "failed", whole, FAILED),
        Column("collapses", "collapsed", whole, COLLAPSED),
        Column("solved", "solved", whole, SOLVED),
        Column("p_best", "P(best)", percent, "bootstrap probability of the highest mean"),
    ),
    open=True,
)

ARMS_SCORES = View(
    "arms",
    "Scores on evaluation seeds, in full",
    (
        ARM,
        SETTING,
        LR,
        N,
        Column("mean", "mean", number, "with its 95 % interval by Student's t", ("t_low", "t_high")),
        Column("mean", "mean, BCa", number, "with its 95 % BCa bootstrap interval", ("bca_low", "bca_high")),
        Column("median", "median"),
        Column("sd", "sd", number, "standard deviation over seeds"),
        Column("skew", "skew", number, "beyond 1 either way the t interval is in doubt"),
        Column("tolerance_low", "tolerance, low", number, "90 % of runs are within, with the confidence below"),
        Column("tolerance_high", "tolerance, high"),
        Column("tolerance_confidence", "its confidence", percent, "achieved confidence of the tolerance interval"),
        Column("final", "final"),
        Column("greedy", "deterministic", number, "score of the final policy, deterministic"),
        Column(
            "greedy_auc", "deterministic, area", number, "area under the learning curve of the deterministic policy"
        ),
        Column("p_best", "P(best)", percent, "bootstrap probability of the highest mean"),
        Column("mean_rank", "mean rank", number, "1 is the highest mean; bootstrap"),
    ),
)

ARMS_STABILITY = View(
    "arms",
    "Stability on evaluation seeds, in full",
    (
        ARM,
        *_event("learnt", "learnt", "learnt", LEARNT),
        Column("failed", "failed", whole, FAILED),
        *_event("collapses", "collapse", "collapsed", COLLAPSED),
        *_event("solved", "solved", "solved", SOLVED),
        Column("worst_tenth", "worst tenth", number, WORST_TENTH, TAIL),
        Column("steps_mean", "steps to threshold", short_number, "restricted mean, censored runs included"),
        Column("steps_median", "median steps", short_number, "Kaplan-Meier; a dash: fewer than half got there"),
        Column("dt", "DT", number, "dispersion across time: IQR of differences, last half of training"),
        Column("srt", "SRT", number, "short-term risk: lower CVaR (5 %) of differences"),
        Column("lrt", "LRT", number, "long-term risk: upper CVaR (5 %) of drawdown"),
        Column("max_drawdown", "max drawdown", number, "mean over runs"),
        Column("worst_drawdown", "worst drawdown", number, "largest of all runs"),
        Column("retention", "retention", number, "final / best so far"),
        Column("dr", "DR", number, "dispersion across runs: IQR over seeds, mean over points"),
        Column("rr", "RR", number, "risk across runs: lower CVaR (5 %) over seeds, mean over points"),
        Column("df", "DF", number, "dispersion across episodes of the final policy: IQR"),
        Column("rf", "RF", number, "risk across episodes of the final policy: lower CVaR (5 %)"),
    ),
)

PAIRS = View(
    "pairs",
    "Pairs: is the first better than the second?",
    (
        Column("first", "first", word),
        Column("second", "second", word),
        Column("verdict", "verdict", word),
        Column("difference", "difference", number, "of mean scores; Welch's 95 % interval", ("low", "high")),
        Column("p", "p", p_value, "permutation test"),
        Column("p_holm", "p, Holm", p_value, "corrected for the number of pairs"),
        estimate("improvement", "P(first > second)", percent, "probability of improvement"),
        Column(
            "second_best_verdict", "with second-best settings", word, "the verdict with the second-best setting of each"
        ),
        Column("flips", "flips", word, "whether that changes the verdict"),
    ),
    open=True,
)

PAIRS_EXPLORATORY = View(
    "pairs",
    "Pairs (exploratory: no verdicts)",
    tuple(c for c in PAIRS.columns if c.name not in ("verdict", "second_best_verdict", "flips", "p", "p_holm")),
    open=True,
)

RATES = View(
    "rates",
    "How much the learning rate matters, on tuning seeds",
    (
        ARM,
        estimate("width", "width", help="decades of the contiguous learning rates within 90 % of the best"),
        estimate("area", "area", help="area under the score over log10 of the learning rate"),
        estimate("times_sqrt10", "best rate x \u221a10", help="score at half a decade above the best rate"),
        estimate("over_sqrt10", "best rate / \u221a10", help="score at half a decade below the best rate"),
        estimate(
            "safe_ratio", "safe ratio", help="largest learning rate at which every run learnt / best learning rate"
        ),
    ),
    open=True,
)

SCREENING = View(
    "screening",
    "Learning rates that screening has dropped",
    (
        ARM,
        LR,
        Column("rung", "rung", whole, "which of the comparisons in the plan dropped it"),
        Column("seeds", "seeds", whole, "tuning seeds that it was trained on"),
        Column("share", "share of steps", percent, "that each of these runs was trained for"),
        Column("score", "score so far", number, "mean score until then: not comparable with scores of whole runs"),
        Column("env_steps", "env steps", short_number),
    ),
)

SELECTED = View(
    "selection",
    "The selected settings, in full",
    (
        ARM,
        SETTING,
        Column("hyperparameters", "selected", word),
        Column("second_hyperparameters", "second best", word, "of the uncertainty set"),
        Column("edge", "edge", word, "the end of its range at which the selected rate is"),
    ),
    open=True,
)

DETAILS = (
    ARMS_SCORES,
    ARMS_STABILITY,
    View(
        "selection",
        "What tuning selected, and what it cost",
        (
            ARM,
            Column("setting", "selected setting", whole),
            Column("lr", "selected learning rate", rate),
            Column("second_setting", "second-best setting", whole, "of the uncertainty set"),
            Column("second_lr", "second-best learning rate", rate, "of the uncertainty set"),
            Column("edge", "edge", word, "the end of the grid, or of its range, at which the best rate is"),
            Column("runs", "runs", whole),
            Column("env_steps", "env steps", short_number),
        ),
    ),
    View(
        "sensitivity",
        "Every setting on tuning seeds (no measure of performance)",
        (
            ARM,
            SETTING,
            LR,
            N,
            Column("mean", "mean score"),
            Column("learnt_rate", "learnt", percent, LEARNT),
            Column("chosen_share", "chosen", percent, "share of bootstrap resamples that select it"),
            Column("in_set", "in uncertainty set", word, "chosen in at least 5 %"),
            Column("selected", "selected", word),
        ),
    ),
    View(
        "neighbours",
        "What if the setting is missed? (evaluation seeds)",
        (
            ARM,
            SETTING,
            LR,
            Column("offset", "offset", whole, "0: the second-best setting, elsewhere on the grid"),
            N,
            Column("mean", "mean score"),
            Column("minimum", "minimum"),
            Column("learnt_rate", "learnt", percent, LEARNT),
        ),
    ),
    View(
        "expected_best",
        "Expected best score of k learning rates, on tuning seeds",
        (ARM, Column("k", "k", whole), Column("value", "expected best", number, "", ("low", "high"))),
    ),
    View(
        "runs",
        "Every evaluation run",
        (
            ARM,
            SETTING,
            LR,
            Column("seed", "seed", whole),
            Column("auc", "score"),
            Column("final", "final"),
            Column("best", "best"),
            Column("greedy", "deterministic"),
            Column("greedy_auc", "deterministic, area"),
            Column("outcome", "outcome", word),
            Column("failed_at", "failed at", short_number),
            Column("collapsed", "collapsed", word),
            Column("solved", "solved", word, SOLVED),
            Column("steps_to_threshold", "steps to threshold", short_number, "a dash: never, censored"),
            Column("max_drawdown", "max drawdown"),
            Column("retention", "retention"),
        ),
        rows=("stage", "evaluation"),
    ),
)

ACROSS = View(
    "across",
    "Across environments",
    (
        Column("agent", "agent", word),
        ARM,
        Column("without", "without", word, "the environment that is left out"),
        *(estimate("iqm", "IQM"), estimate("mean", "mean"), estimate("optimality_gap", "optimality gap")),
        estimate("phi", "phi", help="what one setting for all environments costs"),
    ),
    open=True,
)

BASELINES = View(
    "baselines",
    "Trivial baselines: policies that learn nothing",
    (
        Column("environment", "environment", word),
        Column("policy", "policy", word),
        Column("episodes", "episodes", whole),
        *(Column("return_mean", "mean return", reward), Column("return_sd", "sd", reward), Column("score", "score")),
    ),
    open=True,
)
