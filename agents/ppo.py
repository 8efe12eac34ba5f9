"""Proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347): several epochs over each rollout, clipped.

    r_t = pi(a_t | s_t) / pi_old(a_t | s_t)
    loss = -mean min(r_t A_t, clip(r_t, 1 - c, 1 + c) A_t)  +  value_coef * value loss  -  entropy_coef * entropy

pi_old is the policy that acted, A_t = GAE(gamma, lam) with the critic of that time. Where r_t has left the interval in
the direction that A_t asks for, the gradient is 0: there is nothing to gain from going further. While r_t = 1, at the
first minibatch, it is actor-critic's. ``epochs``, ``minibatches`` and ``target_kl`` stand beside ``rollout_steps``,
because they are the training loop's, and work with every agent that collects steps.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pgkit.nn.policy import Policy
from pgkit.returns import EpisodeEnds, gae, normalize_advantage
from pgkit.tree import member_samples
from pgkit.types import Batch, Params, Rollout

collects = "steps"


class Config(BaseModel):
    """Settings of PPO, named as in Stable-Baselines3; a float may differ between members: a ``(P,)`` tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gamma: float = Field(0.99, ge=0, le=1, description="discount per step")
    lam: float = Field(0.95, ge=0, le=1, description="GAE's lambda (gae_lambda): 1 is n-step returns, 0 is TD(0)")
    clip_range: float = Field(0.2, gt=0, description="how far the ratio of probabilities may go from 1")
    clip_range_vf: float | None = Field(
        None, gt=0, description="how far a value may go from the one at acting, in units of the return; default: any"
    )
    normalize_advantage: bool = Field(True, description="mean 0, standard deviation 1 (sample's, plus 1e-8)")
    normalize_over: Literal["minibatch", "batch"] = Field("minibatch", description="samples that this is done over")
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    value_coef: float = Field(0.5, ge=0, description="weight of the value loss")


def targets(policy: Policy, params: Params, rollout: Rollout, config: Config) -> Batch:
    """Compute advantages, the returns that the critic should predict, and what the policy that acted thought."""
    value, next_value, cache = policy.values(params, rollout)
    ends = EpisodeEnds(rollout.terminated, rollout.truncated, rollout.valid)
    advantage = gae(rollout.reward, value, next_value, ends, config.gamma, config.lam)
    batch = Batch.from_rollout(rollout, advantage, advantage + value, cache)
    batch = batch._replace(log_prob=policy.log_prob(params, batch), value=member_samples(value))
    return _normalized(batch) if config.normalize_advantage and config.normalize_over == "batch" else batch


def loss(policy: Policy, params: Params, batch: Batch, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate + value_coef * value loss - entropy_coef * entropy, each a mean over samples, ``(P,)``."""
    if config.normalize_advantage and config.normalize_over == "minibatch":
        batch = _normalized(batch)
    metrics = policy.losses(params, batch, clip_range=config.clip_range, clip_range_vf=config.clip_range_vf)
    value_term = config.value_coef * metrics["loss/value"]
    bonus = config.entropy_coef * metrics["policy/entropy"]
    return metrics["loss/policy"] + value_term - bonus, metrics


def _normalized(batch: Batch) -> Batch:
    return batch._replace(advantage=normalize_advantage(batch.advantage, batch.valid, ddof=1))
