"""Playing a policy without learning: evaluation episodes on streams of their own."""

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.envs import normalize
from pgkit.envs.base import Elementwise, Environments
from pgkit.nn.policy import Policy
from pgkit.rollouts.compiled import ActingState, compiled_rollout, elementwise
from pgkit.rollouts.statistics import Statistics, init_env_stats
from pgkit.seeding import stream_keys, stream_seed, uniform
from pgkit.tree import take_tree
from pgkit.types import Params

_POINT_STRIDE = 1 << 40  # counters of action noise: one evaluation never reaches into the next
_BLOCK = 32  # steps; after so many, players whose episodes are all over leave
_COMPILED_BLOCK = 128  # the same where they cost nothing until then


class EvalKey(NamedTuple):
    """Who plays: a member's seed, and which of its evaluations this is (counted from 0)."""

    seed: int
    evaluation: int


class Episodes(NamedTuple):
    """Undiscounted returns ``(P, E)`` and lengths in steps ``(P, E)`` of E episodes of each player."""

    returns: Tensor
    lengths: Tensor


def evaluate_policy(
    policy: Policy,
    params: Params,
    envs: Environments,
    players: Sequence[EvalKey],
    episodes: int,
    *,
    stream: str = "evaluation",
    deterministic: bool = False,
    obs_stats: normalize.Stats | None = None,
) -> Episodes:
    """Play E whole episodes for each player; episode e is a function of seed, point and parameters alone.

    Args:
        policy: what the parameters belong to.
        params: leaves ``(P, ...)``, one row for each player.
        envs: at least E sub-environments that can be seeded one by one; more let more players play at once.
        players: P of them.
        episodes: E.
        stream: "evaluation" (while training) or "report" (final results): where the random numbers come from.
        deterministic: take the most likely action instead of sampling.
        obs_stats: running statistics of the players' observation normaliser, if they train with one.
    """
    at_once = max(1, envs.info.num_envs // episodes)
    parts = []
    for start in range(0, len(players), at_once):
        rows = torch.arange(start, min(start + at_once, len(players)), device=envs.info.device)
        group = take_tree({"params": params, "obs_stats": obs_stats}, rows)
        chosen = players[start : start + at_once]
        parts.append(_play(policy, envs, chosen, episodes, stream, deterministic, **group))
    return Episodes(torch.cat([part.returns for part in parts]), torch.cat([part.lengths for part in parts]))


@torch.no_grad()
def _play(
    policy: Policy,
    envs: Environments,
    players: Sequence[EvalKey],
    episodes: int,
    stream: str,
    deterministic: bool,
    params: Params,
    obs_stats: normalize.Stats | None,
) -> Episodes:
    shape, device = (len(players), episodes), envs.info.device
    running = torch.arange(len(players) * episodes, device=device)  # of all players' episodes
    env_seeds = [
        stream_seed(p.seed, f"{stream}_env", p.evaluation * episodes + e) for p in players for e in range(episodes)
    ]
    obs = envs.reset(env_seeds, running).view(*shape, -1)
    keys = stream_keys([player.seed for player in players], f"{stream}_action").to(device)[:, None, None]
    counters = torch.tensor([player.evaluation * _POINT_STRIDE for player in players], device=device)[:, None, None]
    counters = counters + torch.arange(episodes * policy.head.noise, device=device).view(episodes, -1)
    returns = torch.zeros(shape, dtype=torch.float64, device=device).flatten()
    lengths = torch.zeros(shape, dtype=torch.int64, device=device).flatten()
    so_far = returns.clone()  # of the episodes that are running
    compiled = None if obs_stats is not None else elementwise(envs, policy, params)
    if compiled is not None:
        start = obs, keys.flatten(), counters[:, 0, 0]
        return _compiled_play(policy, params, compiled, *start, deterministic)
    state, index = (params, obs_stats, obs, keys, counters), running  # of the players that still play
    for block in count():
        if not len(running):
            break
        params, obs_stats, obs, keys, counters = state
        steps = torch.arange(_BLOCK, device=device).view(-1, 1, 1, 1) + block * _BLOCK
        noise = uniform(keys, counters + steps * (episodes * policy.head.noise))
        for step, own_noise in enumerate(noise, block * _BLOCK + 1):
            if not len(running):
                break
            outputs = policy.outputs(params, obs if obs_stats is None else normalize.apply(obs_stats, obs))
            action = policy.head.mode(outputs) if deterministic else policy.head.sample(outputs, own_noise)
            result = envs.step(action.flatten(0, 1)[index], running)
            obs.view(-1, obs.shape[2])[index] = result.obs
            so_far += result.reward
            over = result.terminated | result.truncated
            if over.any():
                returns[running[over]], lengths[running[over]] = so_far[over], step
                running, index, so_far = running[~over], index[~over], so_far[~over]
        left, place = torch.unique(index // episodes, return_inverse=True)
        if len(left) < len(obs):
            state, index = take_tree(state, left), place * episodes + index % episodes
    return Episodes(returns.view(shape), lengths.view(shape))


def _compiled_play(
    policy: Policy, params: Params, envs: Elementwise, obs: Tensor, keys: Tensor, counters: Tensor, deterministic: bool
) -> Episodes:
    """The same, a block of steps at a time."""
    size, episodes = obs.shape[:2]
    players, running = torch.arange(size), torch.ones(size, episodes, dtype=torch.bool)
    counts = init_env_stats(size, episodes, obs.device)
    results = counts.clone()
    while len(players):
        place = ActingState(obs, players, keys, counters, counts, running)
        rollout = compiled_rollout(
            policy, params, envs, place, _COMPILED_BLOCK, taped=False, deterministic=deterministic
        )
        results[players] = counts
        state = params, rollout.obs[-1], keys, counters + _COMPILED_BLOCK * episodes, players, counts, running
        rows = running.any(1).nonzero().squeeze(1)
        if len(rows) < len(players):
            state = take_tree(state, rows)
        params, obs, keys, counters, players, counts, running = state
    episodes_of = Statistics(*results.unbind(1)[2:])
    return Episodes(episodes_of.returns, episodes_of.lengths.long())
