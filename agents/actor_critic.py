"""Advantage actor-critic: the policy gradient from short rollouts, with a learned critic (Mnih et al. 2016, A2C).

    gradient = mean over samples of  grad log pi(a_t | s_t) * A_t,      A_t = GAE(gamma, lam)

With ``lam = 1``, A_t is the n-step return minus the value, where n goes up to the rollout's length; with ``lam = 0``
it is the TD(0) error; in between it is the generalized advantage of Schulman et al. 2016 (arXiv 1506.02438). Truncated
episodes, and the rollout's end, bootstrap from the value of the true next observation; terminated episodes do not.
"""

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pgkit.nn.policy import Policy
from pgkit.returns import EpisodeEnds, gae, normalize_advantage
from pgkit.types import Batch, Params, Rollout

collects = "steps"


class Config(BaseModel):
    """Settings of actor-critic; a float may differ between members, then it is a ``(P,)`` tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    lam: float = Field(1.0, ge=0, le=1, description="GAE's lambda: 1 is n-step returns, 0 is TD(0)")
    normalize_advantage: bool = Field(
        False,
        description="mean 0, standard deviation 1 (population's; in SB3 the sample's) per member and update",
    )
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    value_coef: float = Field(0.5, ge=0, description="weight of the value loss")


def targets(policy: Policy, params: Params, rollout: Rollout, config: Config) -> Batch:
    """Compute advantages, and the returns that the critic should predict."""
    value, next_value, cache = policy.values(params, rollout)
    ends = EpisodeEnds(rollout.terminated, rollout.truncated, rollout.valid)
    advantage = gae(rollout.reward, value, next_value, ends, config.gamma, config.lam)
    batch = Batch.from_rollout(rollout, advantage, advantage + value, cache)
    if config.normalize_advantage:
        batch = batch._replace(advantage=normalize_advantage(batch.advantage, batch.valid))
    return batch


def loss(policy: Policy, params: Params, batch: Batch, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss + value_coef * value loss - entropy_coef * entropy, each a mean over samples, ``(P,)``."""
    metrics = policy.losses(params, batch)
    value_term = config.value_coef * metrics["loss/value"]
    bonus = config.entropy_coef * metrics["policy/entropy"]
    return metrics["loss/policy"] + value_term - bonus, metrics
