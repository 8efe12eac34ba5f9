"""Callbacks that stop a run, under the names that they have in Stable-Baselines3."""

import math
from typing import Any

from pgkit.callbacks.protocol import Stop
from pgkit.callbacks.views import EvaluationView
from pgkit.errors import PgkitError, format_value


class StopTrainingOnRewardThreshold:
    """Stop each member once the mean return of an evaluation has reached a threshold.

    >>> import pgkit
    >>> from pgkit.callbacks import StopTrainingOnRewardThreshold
    >>> config = pgkit.load_config("cartpole-actor-critic", {"steps": 20_000, "evaluation.final_episodes": 5})
    >>> result = pgkit.train(config, callbacks=[StopTrainingOnRewardThreshold(30.0)])
    >>> result.table[0]["env_steps"] < 20_000
    True

    Args:
        reward_threshold: the mean undiscounted return of an evaluation, before any scaling.

    Raises:
        PgkitError: the threshold is no finite number.
    """

    def __init__(self, reward_threshold: float) -> None:
        if not _is_number(reward_threshold):
            raise PgkitError(f"reward_threshold must be a finite number, got {format_value(reward_threshold)}")
        self.reward_threshold = reward_threshold

    def on_evaluation(self, evaluation: EvaluationView) -> Stop | None:
        """Compare the mean return with the threshold."""
        if evaluation.return_mean < self.reward_threshold:
            return None
        reason = f"mean return {evaluation.return_mean:.1f} has reached {self.reward_threshold:g}"
        return Stop(reason, member=evaluation.member)


class StopTrainingOnNoModelImprovement:
    """Stop each member after so many evaluations in a row without a new best mean return.

    It counts in the evaluations themselves, so it goes on counting when a run is resumed.

    >>> from pgkit.callbacks import StopTrainingOnNoModelImprovement
    >>> patience = StopTrainingOnNoModelImprovement(max_no_improvement_evals=5, min_evals=10)

    Args:
        max_no_improvement_evals: how many evaluations in a row may bring nothing new; the next one stops the member.
        min_evals: evaluations before the first that counts.

    Raises:
        PgkitError: one is no whole number, or negative.
    """

    def __init__(self, max_no_improvement_evals: int, min_evals: int = 0) -> None:
        for name, count in (("max_no_improvement_evals", max_no_improvement_evals), ("min_evals", min_evals)):
            if type(count) is not int or count < 0:
                raise PgkitError(f"{name} must be a whole number of at least 0, got {format_value(count)}")
        self.max_no_improvement_evals = max_no_improvement_evals
        self.min_evals = min_evals

    def on_evaluation(self, evaluation: EvaluationView) -> Stop | None:
        """Count the evaluations since the best one."""
        history = evaluation.history
        best = history.index(max(history))
        without = len(history) - max(best + 1, self.min_evals)
        if without <= self.max_no_improvement_evals:
            return None
        reason = f"{without} evaluations without a better mean return than {history[best]:.1f}"
        return Stop(reason, member=evaluation.member)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
