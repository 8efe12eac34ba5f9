"""The words of the report, in the sense in which the field uses them."""

from collections.abc import Mapping
from typing import Any

from pgkit.stats.curves import FAILURE_BELOW


def glossary(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return the meaning of every word that a reader may not know, for the plan of an analysis."""
    below = plan.get("failure_below", FAILURE_BELOW)
    return {
        "task": "an environment with its scale of scores; agents are compared on a task one by one, never pooled",
        "agent": "the algorithm, such as REINFORCE or the actor-critic; an optimizer is judged within one agent",
        "actor optimizer": "what updates the policy, and what is compared; a critic has an optimizer of its own, which "
        "is the same in all runs",
        "learning rate": "that of the actor optimizer at the start of training; a schedule may lower it",
        "setting": "an actor optimizer with all its hyperparameters, the learning rate included",
        "run": "one training with one seed: the unit of all statistics, episodes are not",
        "replicates": "runs of one setting, which differ in their seed only",
        "tuning and evaluation seeds": "the first select settings, the second measure them; no seed is in both",
        "stochastic policy": "samples its actions; all scores are measured with it, unless a column says otherwise",
        "deterministic policy": "takes the most likely action, or the mean of a continuous one",
        "trivial baselines": "the random policy, which scores 0, and policies that always take the same action",
        "score": "the normalised return, 0 for the random policy and 1 for the reference return; of a run: the mean "
        "over all evaluations of its training, which is the normalised area under its learning curve",
        "final score": "the mean score of the last 10 % of the evaluations of a run",
        "failed": "a loss, gradient or parameter of the run was not finite; it scores 0 from then on",
        "did not learn": f"the run ended with a final score below {below:g}; it scores 0 from the evaluations on from "
        f"which its mean score stays below {below:g}. No other score is clipped",
        "learnt": "the run neither failed nor did it end as one that did not learn",
        "collapsed": "at some time the run lost half the range from its best score so far, and did not recover within "
        "a tenth of the budget; it may have learnt all the same",
        "solved": "the running mean of 5 evaluations reached the threshold of the task and stayed there to the end",
        "worst tenth": "the mean score of the 10 % of the runs with the lowest scores, rounded up to whole runs",
        "drawdown": "the best score so far minus the present one",
        "95 % interval": "of a mean by Student's t or BCa bootstrap, of a share by Wilson, of a difference by Welch",
        "ROPE": "region of practical equivalence: differences of mean scores that are too small to matter",
        "edge optimum": "the best learning rate is the last of its grid, so that a better one may lie outside",
    }
