"""Baseline policies that every learner must beat, random and constant: the floor of the scale of scores."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgkit.compare.plan.plan import Plan
from pgkit.config.schema import TrainConfig
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.stats.curves import normalize
from pgkit.stats.samples import FloatArray
from pgkit.training.build_policy import build_policy
from pgkit.training.population import build_evaluation_envs

EPISODES = 1000
"""Episodes of each baseline policy."""

AT_ONCE = 200


class ScoreScale(NamedTuple):
    """Maps the returns of an environment to scores.

    Attributes:
        random: the return that scores 0.
        reference: the return that scores 1.
        threshold: the return that counts as solved.
    """

    random: float
    reference: float
    threshold: float

    def score(self, returns: ArrayLike) -> FloatArray:
        """Return normalised scores, see :func:`pgkit.stats.normalize`."""
        return normalize(returns, self.random, self.reference)


def measure_baselines(plan: Plan) -> pd.DataFrame:
    """Measure the random policy and, if actions are discrete, every constant policy in each environment.

    The random policy draws discrete actions uniformly, others from a clipped standard normal distribution.
    """
    configs = {case.environment: case.config for case in plan.cases}
    return pd.DataFrame([row for name, config in configs.items() for row in _baselines(name, config)])


def scales(plan: Plan, baselines: pd.DataFrame) -> dict[str, ScoreScale]:
    """Return the score scale of every environment: as declared, with the measured random return as default."""
    by_environment = {}
    for name, environment in plan.config.environments.items():
        random = environment.random_return
        if random is None:
            rows = baselines[(baselines["environment"] == name) & (baselines["policy"] == "random")]
            random = float(rows["return_mean"].iloc[0])
        by_environment[name] = ScoreScale(random, environment.reference_return, environment.threshold)
    return by_environment


def _baselines(name: str, config: TrainConfig) -> list[dict[str, object]]:
    envs = build_evaluation_envs(config, AT_ONCE, torch.device("cpu"))
    try:
        policy = build_policy(config, envs.info)
        zero = {key: torch.zeros_like(leaf) for key, leaf in policy.init([0]).items()}
        policies: dict[str, tuple[Mapping[str, Tensor], bool]] = {"random": (zero, False)}
        if policy.head.name == "categorical":
            bias = max(key for key in zero if key.startswith("actor.") and key.endswith(".bias"))
            for action in range(policy.head.width):
                chosen = zero[bias].clone()
                chosen[..., action] = 1.0
                policies[f"constant {action}"] = ({**zero, bias: chosen}, True)
        rows = []
        for policy_name, (params, deterministic) in policies.items():
            played = [
                evaluate_policy(
                    policy, dict(params), envs, [EvalKey(0, point)], AT_ONCE, deterministic=deterministic
                ).returns
                for point in range(EPISODES // AT_ONCE)
            ]
            returns = torch.cat(played, 1).double()
            rows.append(
                {
                    "environment": name,
                    "policy": policy_name,
                    "episodes": EPISODES,
                    "return_mean": returns.mean().item(),
                    "return_sd": returns.std().item(),
                }
            )
        return rows
    finally:
        envs.close()
