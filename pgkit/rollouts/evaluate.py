"""Evaluation of policies: whole episodes without learning, on random streams that training does not use."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.envs import normalize
from pgkit.envs.base import CompiledEnvs, EnvInfo, Environments
from pgkit.nn.policy import Policy
from pgkit.rollouts.compiled import ActingState, compiled_envs, compiled_rollout
from pgkit.rollouts.statistics import init_env_stats, per_env_statistics
from pgkit.seeding import stream_keys, stream_seeds, uniform
from pgkit.tree import take_tree
from pgkit.types import Params

_EVALUATION_STRIDE = 1 << 40
"""Distance of the counters of action noise of two evaluations, more than one evaluation can use."""

_BLOCK_STEPS = 32
"""After so many steps, rows whose episodes are all over are dropped."""

_COMPILED_BLOCK_STEPS = 128
"""The same for compiled rollouts, in which such rows cost nothing until then."""


class EvalKey(NamedTuple):
    """What the randomness of an evaluation depends on.

    Attributes:
        seed: seed of the member.
        evaluation: which of the member's evaluations it is, from 0 on.
    """

    seed: int
    evaluation: int


class Episodes(NamedTuple):
    """E finished episodes of each of P evaluations.

    Attributes:
        returns: ``(P, E)`` float64, undiscounted returns.
        lengths: ``(P, E)`` int64, lengths in steps.
    """

    returns: Tensor
    lengths: Tensor


def evaluate_policy(
    policy: Policy,
    params: Params,
    envs: Environments,
    eval_keys: Sequence[EvalKey],
    episodes: int,
    *,
    stream: str = "evaluation",
    deterministic: bool = False,
    obs_stats: normalize.Stats | None = None,
) -> Episodes:
    """Run E whole episodes of each evaluation.

    Episode e depends on its key and its parameters alone, not on how many evaluations run together.

    Args:
        policy: the policy that the parameters belong to.
        params: leaves ``(P, ...)``, one row per evaluation.
        envs: sub-environments that can be reset one by one. With fewer than E, the episodes of an evaluation run one
            part after the other; with a multiple of E, several evaluations run at the same time.
        eval_keys: P keys.
        episodes: E.
        stream: source of the random numbers: "evaluation" (during training) or "report" (final results).
        deterministic: take the most likely action instead of a sample.
        obs_stats: running statistics of each row's observations, if the policy acts on normalized ones.

    Example:
        >>> from pgkit.envs import make_envs
        >>> from pgkit.nn.distributions import head_for
        >>> from pgkit.nn.policy import Policy
        >>> from pgkit.rollouts.evaluate import EvalKey, evaluate_policy
        >>> envs = make_envs("CartPole-v1", 10)
        >>> policy = Policy(envs.info.obs_dim, head_for(envs.info.action_space))
        >>> params = policy.init(seeds=[0, 1])
        >>> result = evaluate_policy(policy, params, envs, [EvalKey(0, 0), EvalKey(1, 0)], episodes=5)
        >>> result.returns.shape, bool((result.returns == result.lengths).all())  # CartPole pays 1 per step
        (torch.Size([2, 5]), True)
    """
    count = envs.info.num_envs
    at_once = max(1, count // episodes)
    chunks = [range(first, min(first + count, episodes)) for first in range(0, episodes, count)]
    parts = []
    for start in range(0, len(eval_keys), at_once):
        group = eval_keys[start : start + at_once]
        rows = torch.arange(start, start + len(group), device=envs.info.device)
        row_inputs = take_tree({"params": params, "obs_stats": obs_stats}, rows)
        results = [
            _evaluate_group(policy, envs, group, episodes, chunk, stream, deterministic, **row_inputs)
            for chunk in chunks
        ]
        parts.append(Episodes(*(torch.cat(columns, 1) for columns in zip(*results, strict=True))))
    return Episodes(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def unfinished_note(episodes: Episodes, info: EnvInfo) -> str | None:
    """One line if episodes were cut because they did not end; None if all ended."""
    if info.max_episode_steps is not None:
        return None
    cut = int((episodes.lengths >= info.longest_episode).sum())
    if not cut:
        return None
    return (
        f"{cut} of {episodes.lengths.numel()} episodes of an evaluation in {info.name} were cut after "
        f"{info.longest_episode:,} steps, because they had not ended: env.max_episode_steps sets a time limit"
    )


class _Rows(NamedTuple):
    """One row for each evaluation that is running.

    Attributes:
        params: leaves ``(P, ...)``.
        obs_stats: statistics ``(P, ...)`` of observations, or None.
        obs: ``(P, C, D)``, observations of their environments.
        noise_keys: int64 ``(P,)``, streams of action noise.
        counters: int64 ``(P,)``, the first number that is used of each stream.
        memory: ``(P, C, M)``, what a recurrent policy remembers.
    """

    params: Params
    obs_stats: normalize.Stats | None
    obs: Tensor
    noise_keys: Tensor
    counters: Tensor
    memory: Tensor


@torch.no_grad()
def _evaluate_group(
    policy: Policy,
    envs: Environments,
    eval_keys: Sequence[EvalKey],
    episodes: int,
    chunk: range,
    stream: str,
    deterministic: bool,
    params: Params,
    obs_stats: normalize.Stats | None,
) -> Episodes:
    """C of the E episodes (``chunk``) of each of a few evaluations; environment ``row * C + c`` runs one of them."""
    device = envs.info.device
    numbers = [key.evaluation * episodes + e for key in eval_keys for e in chunk]
    env_seeds = stream_seeds([key.seed for key in eval_keys for _ in chunk], f"{stream}_env", numbers)
    obs = envs.reset(env_seeds, torch.arange(len(env_seeds), device=device)).view(len(eval_keys), len(chunk), -1)
    noise_keys = stream_keys([key.seed for key in eval_keys], f"{stream}_action").to(device)
    counters = torch.tensor([key.evaluation * _EVALUATION_STRIDE for key in eval_keys], device=device)
    env_step = None if obs_stats is not None else compiled_envs(envs, policy, params)
    if env_step is not None and len(chunk) == episodes:
        return _run_compiled(policy, params, env_step, obs, noise_keys, counters, deterministic)
    memory = torch.zeros(*obs.shape[:2], policy.memory, device=device)
    rows = _Rows(params, obs_stats, obs, noise_keys, counters, memory)
    return _run_stepwise(policy, envs, rows, episodes, chunk, deterministic)


def _run_stepwise(
    policy: Policy, envs: Environments, rows: _Rows, episodes: int, chunk: range, deterministic: bool
) -> Episodes:
    """Step the environments whose episodes are running, until none is or the rest has taken too long.

    Args:
        policy: the policy.
        envs: the environments, just reset.
        rows: one for each evaluation.
        episodes: E.
        chunk: the C of them that are run.
        deterministic: take the most likely action.
    """
    obs = rows.obs
    shape = obs.shape[:2]
    noise = policy.head.noise
    noise_index = torch.arange(chunk.start * noise, chunk.stop * noise, device=obs.device).view(len(chunk), -1)
    rows = rows._replace(noise_keys=rows.noise_keys[:, None, None], counters=rows.counters[:, None, None] + noise_index)
    returns = torch.zeros(shape.numel(), dtype=torch.float64, device=obs.device)
    lengths = torch.zeros(shape.numel(), dtype=torch.int64, device=obs.device)
    running = torch.arange(shape.numel(), device=obs.device)  # environments whose episodes are running
    places = running  # where these are among the environments of all rows that are left
    return_so_far = returns.clone()  # of the running episodes
    start = 0
    while start < envs.info.longest_episode:
        params, obs_stats, obs, row_noise_keys, row_counters, memory = rows
        steps = torch.arange(_BLOCK_STEPS, device=obs.device).view(-1, 1, 1, 1) + start
        block_noise = uniform(row_noise_keys, row_counters + steps * episodes * noise)
        for length, step_noise in enumerate(block_noise, start + 1):
            seen = obs if obs_stats is None else normalize.apply_to_features(obs_stats, obs)
            outputs, memory = policy.step(params, seen, memory)
            action = policy.head.mode(outputs) if deterministic else policy.head.sample(outputs, step_noise)
            transition = envs.step(action.flatten(0, 1)[places], running)
            obs.view(-1, obs.shape[2])[places] = transition.obs
            return_so_far += transition.reward
            over = transition.terminated | transition.truncated
            if over.any():
                returns[running[over]] = return_so_far[over]
                lengths[running[over]] = length
                running = running[~over]
                places = places[~over]
                return_so_far = return_so_far[~over]
            if not len(running):
                return Episodes(returns.view(shape), lengths.view(shape))
        rows = rows._replace(memory=memory)
        left, new_rows = torch.unique(places // shape[1], return_inverse=True)
        if len(left) < len(obs):
            rows = _Rows(*take_tree(tuple(rows), left))
            places = new_rows * shape[1] + places % shape[1]
        start += _BLOCK_STEPS
    returns[running] = return_so_far
    lengths[running] = start
    return Episodes(returns.view(shape), lengths.view(shape))


def _run_compiled(
    policy: Policy,
    params: Params,
    env_step: CompiledEnvs,
    obs: Tensor,
    noise_keys: Tensor,
    counters: Tensor,
    deterministic: bool,
) -> Episodes:
    """The same as :func:`_run_stepwise`, in compiled rollouts of a block of steps."""
    num_rows, episodes = obs.shape[:2]
    members = torch.arange(num_rows)
    running = torch.ones(num_rows, episodes, dtype=torch.bool)
    env_stats = init_env_stats(num_rows, episodes, obs.device)
    final_env_stats = env_stats.clone()
    while len(members):
        state = ActingState(obs, members, noise_keys, counters, env_stats, running)
        rollout = compiled_rollout(
            policy, params, env_step, state, _COMPILED_BLOCK_STEPS, keep_outputs=False, deterministic=deterministic
        )
        final_env_stats[members] = env_stats  # changed in place by the rollout, as is ``running``
        counters = counters + _COMPILED_BLOCK_STEPS * episodes * policy.head.noise
        rows = (params, rollout.obs[-1], noise_keys, counters, members, env_stats, running)
        left = running.any(1).nonzero().squeeze(1)
        if len(left) < len(members):
            rows = take_tree(rows, left)
        params, obs, noise_keys, counters, members, env_stats, running = rows
    statistics = per_env_statistics(final_env_stats)
    return Episodes(statistics.returns, statistics.lengths.long())
