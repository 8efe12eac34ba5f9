"""Returns of policies that are compared: all play the same episodes' random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgkit.config.device import resolve_device
from pgkit.config.schema import TrainConfig
from pgkit.envs.base import Environments
from pgkit.nn.policy import Policy
from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
from pgkit.training.build_policy import build_policy
from pgkit.training.population import build_evaluation_envs
from pgkit.tree import take_tree
from pgkit.types import Params

MAX_ENVS = 2048
"""How many episodes run at the same time, where environments are pgkit's own."""


@dataclass
class Player:
    """Plays episodes with common random numbers: episode e of a block begins and goes on alike for all parameters.

    Attributes:
        policy: what the parameters mean.
        envs: where they are played.
        seed: of the episodes' random numbers.
        env_steps: environment steps that have been played.
    """

    policy: Policy
    envs: Environments
    seed: int
    env_steps: float = 0.0

    def play(
        self, params: Params, episodes: int, block: int = 0, obs_stats: dict[str, Tensor] | None = None
    ) -> NDArray[np.float64]:
        """Undiscounted returns ``(P, E)`` of whole episodes, sampled actions.

        Args:
            params: leaves ``(P, ...)``.
            episodes: E.
            block: another number gives other episodes.
            obs_stats: statistics of the observations, leaves ``(1, ...)`` or ``(P, ...)``, if policies act on
                normalized ones.
        """
        count = len(next(iter(params.values())))
        if obs_stats is not None and len(next(iter(obs_stats.values()))) != count:
            obs_stats = take_tree(obs_stats, torch.zeros(count, dtype=torch.int64))
        keys = [EvalKey(self.seed, block)] * count
        result = evaluate_policy(
            self.policy, params, self.envs, keys, episodes, stream="diagnosis", obs_stats=obs_stats
        )
        self.env_steps += float(result.lengths.sum())
        return result.returns.numpy()


@contextmanager
def open_player(config: TrainConfig, seed: int) -> Iterator[Player]:
    """A player in the environment of a configuration, which closes with the block."""
    envs = build_evaluation_envs(config, MAX_ENVS, resolve_device(config.device))
    try:
        yield Player(build_policy(config, envs.info), envs, seed)
    finally:
        envs.close()


def without_skill(params: Params) -> Params:
    """Parameters of a policy that knows nothing: outputs are 0, so discrete actions are uniform, others standard
    normal. Leaves keep their shapes."""
    return {name: torch.zeros_like(leaf) for name, leaf in params.items()}
