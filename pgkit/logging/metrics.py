"""The table of metrics: whatever a run logs is listed here, once.

``python -m pgkit.logging`` prints it as Markdown.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from pgkit.errors import PgkitError


class Metric(NamedTuple):
    """A logged number.

    Attributes:
        tag: its name in TensorBoard and metrics.parquet; ``<...>`` stands for any one word.
        definition: how it is computed.
        unit: what it is measured in.
    """

    tag: str
    definition: str
    unit: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "train/episode_return",
        "mean undiscounted return, before any scaling, of the training episodes that ended since the last row",
        "reward",
    ),
    Metric("train/episode_length", "mean length of the same episodes", "env steps"),
    Metric(
        "time/env_steps_per_second",
        "environment steps of all members since the start over wall time, evaluations included",
        "1/s",
    ),
    Metric(
        "eval/return_mean",
        "mean undiscounted return over evaluation episodes on streams of their own; the last row is the final result",
        "reward",
    ),
    Metric("eval/return_std", "sample standard deviation of those returns", "reward"),
    Metric("eval/length_mean", "mean length of the evaluation episodes", "env steps"),
    Metric(
        "eval/greedy_return_mean",
        "mean undiscounted return of as many episodes with the most likely actions; only with evaluation.greedy",
        "reward",
    ),
    Metric("loss/policy", "policy-gradient loss, entropy bonus excluded, on the batch before the update", "-"),
    Metric("loss/value", "squared error of the critic on the same batch, as defined by the agent", "reward^2"),
    Metric("policy/entropy", "mean entropy of the policy in the batch's states, before the update", "nat"),
    Metric("policy/approx_kl", "mean KL(old || new) of the policy in the batch's states over one update", "nat"),
    Metric(
        "value/explained_variance",
        "1 - Var(target - value) / Var(target), values before the update; 1 is perfect, 0 no better than a constant",
        "-",
    ),
    Metric("optimizer/grad_norm", "Euclidean norm of the gradient before clipping", "-"),
    Metric("optimizer/grad_norm_clipped", "the same after clipping; only with max_grad_norm", "-"),
    Metric(
        "optimizer/clip_fraction", "1 where this update's gradient was clipped, else 0; only with max_grad_norm", "-"
    ),
    Metric("optimizer/update_norm", "Euclidean norm of the parameters' change by one update", "-"),
    Metric("optimizer/param_norm", "Euclidean norm of the parameters before the update", "-"),
    Metric("optimizer/update_ratio", "update_norm / param_norm", "-"),
    Metric("optimizer/update_cosine", "cosine between the update and the negative gradient; 1 for plain SGD", "-"),
    Metric("optimizer/lr", "learning rate of this update, after its schedule", "-"),
    Metric(
        "optimizer/<slot>_norm",
        "Euclidean norm of a slot of the optimizer's state, such as m (first moment) and v (second moment)",
        "-",
    ),
    Metric("optimizer/<hyperparameter>", "present value of any other hyperparameter, after its schedule", "-"),
    Metric(
        "optimizer/<part>/<name>",
        "any of the optimizer/ metrics for one network (actor, critic, trunk) or one group of parameters",
        "-",
    ),
    Metric(
        "compare/score",
        "mean over a setting's runs of the normalised area under their learning curves; comparisons",
        "-",
    ),
    Metric("compare/failure_rate", "share of a setting's runs that failed; comparisons", "-"),
    Metric(
        "compare/steps_to_threshold",
        "median over a setting's runs of the steps to the threshold; missing where half never got there; comparisons",
        "env steps",
    ),
)


def markdown() -> str:
    """The table as Markdown, for the README."""
    rows = [("tag", "definition", "unit"), ("---", "---", "---")]
    rows += [(f"`{metric.tag}`", metric.definition.replace("|", r"\|"), metric.unit) for metric in METRICS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@lru_cache(maxsize=4096)
def find(tag: str) -> Metric:
    """The row of the table that a tag belongs to; a row without ``<...>`` goes before one with.

    Raises:
        PgkitError: there is none.
    """
    for metric in METRICS:
        if re.fullmatch(_pattern(metric.tag), tag):
            return metric
    raise PgkitError(f"metric {tag!r} is not in the table of metrics (pgkit.logging.METRICS)")


def _pattern(tag: str) -> str:
    """A regular expression for a tag; a word may hold anything but a slash."""
    return re.sub(r"<\w+>", "[^/]+", re.escape(tag))
