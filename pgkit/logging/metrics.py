"""The table of metrics: every tag that a run may log, with definition and unit.

``python -m pgkit.logging`` prints it as Markdown.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from pgkit.errors import PgkitError


class Metric(NamedTuple):
    """One row of the table.

    Attributes:
        tag: the name in TensorBoard and ``metrics.parquet``; ``<...>`` stands for any word without a slash.
        definition: how the number is computed.
        unit: its unit; "-" for none.
    """

    tag: str
    definition: str
    unit: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "train/episode_return",
        "mean undiscounted return, before any scaling, of the training episodes that ended since the last log row",
        "reward",
    ),
    Metric("train/episode_length", "mean length of the same episodes", "env steps"),
    Metric(
        "time/env_steps_per_second",
        "environment steps of all members so far, divided by the wall time so far, evaluations included",
        "1/s",
    ),
    Metric(
        "eval/return_mean",
        "mean undiscounted return of evaluation episodes, on separate random streams; the last row is the final result",
        "reward",
    ),
    Metric("eval/return_std", "sample standard deviation of the same returns", "reward"),
    Metric("eval/length_mean", "mean length of the evaluation episodes", "env steps"),
    Metric(
        "eval/greedy_return_mean",
        "mean undiscounted return of as many episodes with the most likely actions; with evaluation.greedy only",
        "reward",
    ),
    Metric("loss/policy", "policy-gradient loss without the entropy bonus, on the batch before the update", "-"),
    Metric("loss/value", "squared error of the critic on the same batch, as defined by the agent", "reward^2"),
    Metric("policy/entropy", "mean entropy of the policy in the batch's states, before the update", "nat"),
    Metric("policy/approx_kl", "mean KL(old || new) of the policy in the batch's states over one update", "nat"),
    Metric(
        "update/optimizer_steps",
        "optimizer steps made from the rollout, of epochs * minibatches; with several, losses and optimizer/ are means "
        "over them",
        "-",
    ),
    Metric(
        "update/approx_kl",
        "mean of (r - 1) - log r over samples and steps, r the ratio of probabilities to the policy that acted; "
        "with epochs or minibatches",
        "nat",
    ),
    Metric("update/clip_fraction", "share of samples with |r - 1| > agent.clip_range, mean over steps; PPO only", "-"),
    Metric("update/stopped", "1 if target_kl has ended the update early, else 0; with epochs or minibatches", "-"),
    Metric(
        "value/explained_variance",
        "1 - Var(target - value) / Var(target), values before the update; 1 is perfect, 0 no better than a constant",
        "-",
    ),
    Metric("optimizer/grad_norm", "Euclidean norm of the gradient before clipping", "-"),
    Metric("optimizer/grad_norm_clipped", "the same after clipping; with max_grad_norm only", "-"),
    Metric(
        "optimizer/clip_fraction", "1 if the gradient of this update was clipped, else 0; with max_grad_norm only", "-"
    ),
    Metric("optimizer/update_norm", "Euclidean norm of the change of the parameters in one update", "-"),
    Metric("optimizer/param_norm", "Euclidean norm of the parameters before the update", "-"),
    Metric("optimizer/update_ratio", "update_norm / param_norm", "-"),
    Metric(
        "optimizer/update_cosine",
        "cosine between the update and the negative gradient; 1 for plain SGD",
        "-",
    ),
    Metric(
        "optimizer/step_scale",
        "share of the optimizer's step that was made, 0 for none; with kl_limit and trpo only",
        "-",
    ),
    Metric(
        "optimizer/step_kl",
        "mean KL(old || new) of it, measured, or by the Fisher matrix with kl_backtracking = false; with kl_limit and "
        "trpo only",
        "nat",
    ),
    Metric("optimizer/trac_scale", "S, by which TRAC multiplies the sum of all updates; with trac only", "-"),
    Metric("optimizer/lr", "learning rate of this update, schedule applied", "-"),
    Metric(
        "optimizer/<state>_norm",
        "Euclidean norm of one part of the optimizer's state, such as m (first moment) or v (second moment)",
        "-",
    ),
    Metric("optimizer/<hyperparameter>", "current value of any other hyperparameter, schedule applied", "-"),
    Metric(
        "optimizer/<part>/<name>",
        "any metric of optimizer/ for one network (actor, critic, trunk) or one group of parameters",
        "-",
    ),
    Metric(
        "compare/score",
        "in comparisons: normalised area under the learning curve, mean over the runs of a setting",
        "-",
    ),
    Metric("compare/learnt_rate", "in comparisons: share of the runs of a setting that learnt", "-"),
    Metric(
        "compare/steps_to_threshold",
        "in comparisons: steps to the threshold, median over the runs of a setting; missing if half never reach it",
        "env steps",
    ),
    *(
        Metric(
            f"diagnosis/<section>/{names}",
            f"in diagnoses: {what}, see QUANTITIES in pgkit/diagnose/results.py",
            "-",
        )
        for names, what in (
            ("<quantity>", "a number about a frozen policy"),
            ("<part>/<quantity>", "the same for a network, a number of updates, an estimator or an intervention"),
            ("<part>/<condition>/<quantity>", "the same for another optimizer at equal KL or equal length"),
        )
    ),
)


def markdown() -> str:
    """The table as Markdown, for the README."""
    rows = [("tag", "definition", "unit"), ("---", "---", "---")]
    rows += [(f"`{metric.tag}`", metric.definition.replace("|", r"\|"), metric.unit) for metric in METRICS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@lru_cache(maxsize=4096)
def lookup(tag: str) -> Metric:
    """The row of the table that describes a tag; a row without ``<...>`` comes before one with.

    Raises:
        PgkitError: no row describes it.
    """
    for metric in METRICS:
        if re.fullmatch(_pattern(metric.tag), tag):
            return metric
    raise PgkitError(f"metric {tag!r} is not in the table of metrics (pgkit.logging.METRICS)")


def _pattern(tag: str) -> str:
    """A regular expression for a tag of the table."""
    return re.sub(r"<\w+>", "[^/]+", re.escape(tag))
