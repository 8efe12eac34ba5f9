"""REINFORCE (Williams 1992): the policy gradient from whole episodes, with or without a baseline.

    gradient = mean over episodes of  sum_t  grad log pi(a_t | s_t) * (G_t - b_t)

``G_t`` is the discounted return from step t on (``returns = "reward_to_go"``) or of the whole episode (``"full"``), and
``b_t`` is the baseline. An episode ends where its task ends or where its time limit cuts it. Rewards after the time
limit count as zero, unless a learned value stands for them (``baseline = "value"``).
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pgkit.kernels.scan import total
from pgkit.nn.policy import Policy
from pgkit.returns import (
    EpisodeEnds,
    full_return,
    leave_one_out_baseline,
    mean_baseline,
    normalize_advantage,
    reward_to_go,
)
from pgkit.types import Batch, Params, Rollout

collects = "episodes"


class Config(BaseModel):
    """Settings of REINFORCE; a float may differ between members, then it is a ``(P,)`` tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    returns: Literal["reward_to_go", "full"] = Field("reward_to_go", description="what weighs each action")
    baseline: Literal["none", "mean", "leave_one_out", "value"] = Field("value", description="what is subtracted")
    normalize_advantage: bool = Field(
        False,
        description="mean 0, standard deviation 1 (population's; in SB3 the sample's) per member and update",
    )
    average: Literal["episode", "step"] = Field("step", description="divide the sum by episodes (unbiased) or by steps")
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    value_coef: float = Field(0.5, ge=0, description="weight of the value loss (baseline 'value')")


def targets(policy: Policy, params: Params, rollout: Rollout, config: Config) -> Batch:
    """Compute returns minus the baseline, and the returns that a learned baseline should predict."""
    ends = EpisodeEnds(rollout.terminated, rollout.truncated, rollout.valid)
    value = torch.zeros_like(rollout.reward)
    next_value = value  # what a time limit cuts off counts as zero
    cache = rollout.cache
    if config.baseline == "value":
        value, next_value, cache = policy.values(params, rollout)
    to_go = reward_to_go(rollout.reward, next_value, ends, config.gamma)
    weight = to_go
    if config.returns == "full":
        weight = full_return(rollout.reward, next_value, ends, config.gamma)
    advantage = weight - _baseline(config, weight, value, ends.valid)
    batch = Batch.from_rollout(rollout, advantage, to_go, cache)
    advantage = normalize_advantage(batch.advantage, batch.valid) if config.normalize_advantage else batch.advantage
    if config.average == "episode":  # the loss is a mean over samples; this makes it a sum over each episode's
        episodes = rollout.valid.shape[2]
        advantage = advantage * (total(batch.valid.to(advantage.dtype)).unsqueeze(1) / episodes)
    return batch._replace(advantage=advantage)


def _baseline(config: Config, weight: Tensor, value: Tensor, valid: Tensor) -> Tensor:
    if config.baseline == "mean":
        return mean_baseline(weight, valid)
    if config.baseline == "leave_one_out":
        return leave_one_out_baseline(weight, valid)
    return value  # 0 for "none"


def loss(policy: Policy, params: Params, batch: Batch, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss - entropy_coef * entropy (+ value_coef * value loss), each a mean over samples, ``(P,)``."""
    learned = config.baseline == "value"
    metrics = policy.losses(params, batch, critic=learned)
    policy_term = metrics["loss/policy"] - config.entropy_coef * metrics["policy/entropy"]
    return (policy_term + config.value_coef * metrics["loss/value"] if learned else policy_term), metrics
