"""Whole episodes: one of every environment, however long it is.

An environment whose episode is over idles until all episodes of its member are over: nothing changes in it, and its
steps are padding (``valid`` is False), which networks skip where samples can be packed.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.envs.base import CompiledEnvs
from pgkit.errors import PgkitError
from pgkit.kernels.packing import pack
from pgkit.nn.policy import Policy
from pgkit.rollouts.collector import ActingStrategy, Collector, CompiledSteps, StepByStep
from pgkit.rollouts.compiled import ActingState, compiled_envs, compiled_rollout
from pgkit.rollouts.memory import as_sequences
from pgkit.rollouts.statistics import update_env_stats
from pgkit.rollouts.trajectory import MemberRollout, concatenate, pad, stack_steps
from pgkit.system.cpu import use_compiled
from pgkit.tree import replace_members, select_members, take_tree
from pgkit.types import Params, Rollout

FIRST_BOUNDARY = 32
"""Members leave a rollout after 32, 64, 128, ... steps."""


class _Active(NamedTuple):
    """Members with an episode under way.

    Attributes:
        rows: int64 ``(p,)``, their places in the parameters.
        obs: ``(p, N, D)``.
        running: bool ``(p, N)``, environments whose episode is not over.
        memory: ``(p, N, M)``, what a recurrent policy remembers.
    """

    rows: Tensor
    obs: Tensor
    running: Tensor
    memory: Tensor


@dataclass(frozen=True)
class WholeEpisodes:
    """One whole episode of every environment, in chunks of doubling length.

    Members whose episodes are all over leave at the next boundary, 32, 64, 128, ... steps, with a rollout padded to
    it. So a member's shapes, and with them its rounding, depend on its own episodes alone.

    Attributes:
        envs: environments whose step is compiled; None to step them from Python.
    """

    envs: CompiledEnvs | None = None

    def collect(self, collector: Collector, params: Params) -> list[MemberRollout]:
        """Act until the last episode is over.

        Raises:
            PgkitError: the environments cannot step a few of them alone: those that are done would go on.
        """
        info = collector.envs.info
        if not info.can_step_subset:
            raise PgkitError(f"environment {info.name!r} steps all at once: it cannot give whole episodes")
        steps_before = collector.env_steps
        counts = collector.state.counts
        _begin_episodes(collector, params)
        obs = collector.state.obs
        members = torch.arange(len(obs), device=obs.device)
        first_memory = torch.zeros_like(collector.state.memory)
        active = _Active(members, obs, torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device), first_memory)
        record: list[Rollout] = []
        rollouts = []
        length = 0
        boundary = FIRST_BOUNDARY
        while len(active.rows):
            active_params = take_tree(params, active.rows)
            while length < boundary and active.running.any():
                chunk, active = self._act(collector, active_params, active, range(length, boundary))
                record.append(chunk)
                length += len(chunk.valid)
            staying = active.running.any(1)
            if not staying.all():
                leaving = active.rows[~staying]
                rows = None if len(leaving) == len(members) else leaving
                rollout = pad(concatenate(record, ~staying), boundary)
                counts = replace_members(counts, rows, update_env_stats(select_members(counts, rows), rollout))
                scaled = as_sequences(collector.scale(rows, rollout), select_members(first_memory, rows))
                rollouts.append(MemberRollout(rows, scaled, rollout, select_members(steps_before, rows)))
            record = [concatenate(record, staying)]
            active = _Active(*(tensor[staying] for tensor in active))
            length = boundary
            boundary *= 2
            if length >= info.longest_episode and len(active.rows):
                raise PgkitError(
                    f"environment {info.name!r}: an episode has not ended after {length:,} steps, and the agent learns "
                    "from whole episodes: set a time limit, such as env.max_episode_steps=1000"
                )
        collector.finish(collector.state.obs, counts, collector.state.memory, waiting=True)
        return [member._replace(rollout=pack_samples(collector.policy, member.rollout)) for member in rollouts]

    def _act(self, collector: Collector, params: Params, active: _Active, steps: range) -> tuple[Rollout, _Active]:
        """At most these steps of the active members, and where they stand after them."""
        if self.envs is None:
            return _step_running(collector, params, active, steps)
        rows = active.rows
        running = active.running.clone()  # the compiled rollout writes into it
        numbers_per_step = collector.envs_per_member * collector.policy.head.noise
        counters = collector.state.counters[rows] + steps.start * numbers_per_step
        counts = collector.state.counts[rows]  # thrown away: steps are counted when the episodes are complete
        start = ActingState(active.obs, collector.members[rows], collector.keys[rows], counters, counts, running)
        rollout = compiled_rollout(collector.policy, params, self.envs, start, len(steps), keep_outputs=False)
        return rollout, active._replace(obs=rollout.obs[-1], running=running)


@dataclass(frozen=True)
class EpisodesToHorizon:
    """One whole episode of every environment, padded to the longest that there can be.

    No number is read on the way, so that it can be captured. The environments have to wait at the end of an episode.

    Attributes:
        envs: environments whose step is compiled.
        horizon: steps of the longest episode.
    """

    envs: CompiledEnvs
    horizon: int

    def collect(self, collector: Collector, params: Params) -> list[MemberRollout]:
        """Reset all environments by one step, then act for ``horizon`` steps."""
        steps_before = collector.env_steps
        start = collector.acting_state()
        reset = compiled_rollout(collector.policy, params, self.envs, start, 1, keep_outputs=False)
        obs = reset.obs[-1].clone()
        start = start._replace(obs=obs, running=torch.ones(obs.shape[:2], dtype=torch.bool))
        rollout = compiled_rollout(collector.policy, params, self.envs, start, self.horizon, keep_outputs=False)
        collector.finish(obs, start.counts, collector.state.memory, waiting=True)
        scaled = pack_samples(collector.policy, collector.scale(None, rollout), allow_host_read=False)
        return [MemberRollout(None, scaled, rollout, steps_before)]


def fastest_strategy(collector: Collector, params: Params, steps: int | None) -> ActingStrategy:
    """The fastest way to act that the environments, the policy and the device allow.

    Args:
        collector: whose members act.
        params: leaves ``(P, ...)``.
        steps: T; None for whole episodes.
    """
    envs = None
    if not collector.normalization.observations:  # a compiled rollout hands observations to the network as they are
        envs = compiled_envs(collector.envs, collector.policy, params)
    if steps is None:
        return WholeEpisodes(envs)
    return StepByStep(steps) if envs is None else CompiledSteps(envs, steps)


def _begin_episodes(collector: Collector, params: Params) -> None:
    """Begin an episode in every environment."""
    state = collector.state
    if state.waiting and collector.envs.info.autoreset == "next_step":
        noise = collector.noise(0, 1)[0]
        action, _ = collector.act(params, state.obs, noise, state.memory)  # ignored: the step is a reset
        transition = collector.envs.step(action.flatten(0, 1), collector.env_index(collector.members))
        collector.state = replace(state, obs=transition.obs.view_as(state.obs))


def _step_running(collector: Collector, params: Params, active: _Active, steps: range) -> tuple[Rollout, _Active]:
    """At most these steps, from Python, while an environment is running."""
    record = []
    for noise in collector.noise(steps.start, steps.stop)[:, active.rows]:
        action, memory = collector.act(params, active.obs, noise, active.memory, active.rows)
        step, obs = _step(collector, action, active)
        record.append(step)
        running = active.running & ~(step.terminated | step.truncated)
        active = _Active(active.rows, obs, running, memory)
        if not running.any():
            break
    return stack_steps(record, active.obs), active


def _step(collector: Collector, action: Tensor, active: _Active) -> tuple[Rollout, Tensor]:
    """Step the environments that are running; returns that step and the observations after it."""
    rows, obs, running, _ = active
    count, device = collector.envs_per_member, obs.device
    running_index = running.flatten().nonzero().squeeze(1)
    index = (collector.members[rows][:, None] * count + torch.arange(count, device=device)).flatten()
    transition = collector.envs.step(action.flatten(0, 1)[running_index], index[running_index])
    flags = torch.zeros(2, running.numel(), dtype=torch.bool, device=device)
    flags[:, running_index] = torch.stack([transition.terminated, transition.truncated])
    reward = torch.zeros(running.numel(), device=device)
    reward[running_index] = transition.reward
    next_obs = obs.flatten(0, 1).clone()
    next_obs[running_index] = transition.obs if transition.final_obs is None else transition.final_obs
    if transition.final_obs is not None:
        # The environment has begun its next episode already: keep that observation for the next rollout.
        state = collector.state
        first_obs = state.obs[rows].flatten(0, 1)
        first_obs[running_index] = transition.obs
        collector.state = replace(state, obs=replace_members(state.obs, rows, first_obs.view_as(obs)))
    terminated, truncated = flags.view(2, *running.shape)
    rollout = Rollout(obs, action, reward.view_as(terminated), terminated, truncated, running)
    return rollout, next_obs.view_as(obs)


def pack_samples(policy: Policy, rollout: Rollout, allow_host_read: bool = True) -> Rollout:
    """Pack the samples of whole episodes, if the policy's networks take them so, to leave out the padding."""
    has_masks = policy.has_masks(rollout.obs)
    if has_masks or not policy.supports_packing or not use_compiled(rollout.obs.dtype, rollout.obs.device):
        return rollout
    return replace(rollout, packing=pack(rollout.obs, rollout.valid, allow_host_read))
