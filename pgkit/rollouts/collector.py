"""Acting in environments: the collector of a population, and rollouts of a fixed number of steps.

A :class:`Collector` holds the environments of a population and where they stand. How its members act is up to an
:class:`ActingStrategy` that is passed in: :class:`StepByStep` and :class:`CompiledSteps` take a fixed number of steps,
the strategies of :mod:`pgkit.rollouts.episodes` whole episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from pgkit.envs import normalize
from pgkit.envs.base import CompiledEnvs, Environments
from pgkit.nn.policy import Policy
from pgkit.rollouts.compiled import ActingState, compiled_rollout
from pgkit.rollouts.memory import as_sequences, forget
from pgkit.rollouts.normalization import Normalization, normalize_observations, normalize_rewards
from pgkit.rollouts.statistics import Statistics, env_steps, init_env_stats, member_statistics, update_env_stats
from pgkit.rollouts.trajectory import MemberRollout, stack_transitions
from pgkit.seeding import stream_keys, uniform
from pgkit.tree import MemberRows, put_tree, replace_members, select_members, take_tree
from pgkit.types import Params, Rollout

_ROLLOUT_STRIDE = 1 << 32  # counters of action noise: one rollout never reaches into the next


@dataclass(frozen=True)
class CollectorState:
    """Where the members of a collector stand between two rollouts.

    Attributes:
        obs: ``(P, N, D)`` observations that the next actions are chosen from.
        counters: int64 ``(P,)``, position of each member in its stream of action noise.
        counts: float64 ``(P, 6, N)``, see :mod:`pgkit.rollouts.statistics`.
        obs_stats: running statistics of the observations.
        return_stats: running statistics of the discounted returns.
        discounted: ``(P, N)`` discounted return of the episodes under way.
        memory: ``(P, N, M)``, what the policy remembers of them; M is 0 unless it is recurrent.
        waiting: every environment waits at the end of an episode, as it does after whole episodes.
    """

    obs: Tensor
    counters: Tensor
    counts: Tensor
    obs_stats: normalize.Stats
    return_stats: normalize.Stats
    discounted: Tensor
    memory: Tensor
    waiting: bool = False

    @classmethod
    def initial(cls, obs: Tensor, features: int, memory: int) -> "CollectorState":
        """The state after a reset that gave ``(P, N, D)``, maybe with masks, of a policy that remembers M numbers."""
        members, envs_per_member = obs.shape[:2]
        return cls(
            obs=obs,
            counters=torch.zeros(members, dtype=torch.int64, device=obs.device),
            counts=init_env_stats(members, envs_per_member, obs.device),
            obs_stats=normalize.init(members, features, obs.device),
            return_stats=normalize.init(members, 1, obs.device),
            discounted=torch.zeros(members, envs_per_member, device=obs.device),
            memory=torch.zeros(members, envs_per_member, memory, device=obs.device),
        )

    @cached_property
    def env_steps(self) -> Tensor:
        """Environment steps of each member so far, float64 ``(P,)``."""
        return env_steps(self.counts)

    def dump(self) -> dict[str, Any]:
        """The attributes above by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, rows: Tensor) -> "CollectorState":
        """The state of the members at these rows."""
        return CollectorState(**take_tree(self.dump(), rows))


class ActingStrategy(Protocol):
    """A way to collect the rollouts of one update. All ways give the same bits for the same seeds."""

    def collect(self, collector: "Collector", params: Params) -> list[MemberRollout]:
        """Act with these parameters, leaves ``(P, ...)``, and move the collector's state on."""
        ...


@dataclass
class Collector:
    """The environments of a population, N for each member, and where they stand.

    All randomness of acting comes from here and from the environments: member k draws from the streams of its seed
    alone. Running statistics are updated after each rollout, so that all its steps are scaled alike.

    Attributes:
        policy: what the parameters mean.
        envs: the environments; those of member k are the N from ``members[k] * N`` on.
        normalization: how observations and rewards are scaled for the learner.
        members: int64 ``(P,)``.
        keys: int64 ``(P,)``, each member's stream of action noise.
        state: where the members stand; strategies replace it, nobody writes into it.
    """

    policy: Policy
    envs: Environments
    normalization: Normalization
    members: Tensor
    keys: Tensor
    state: CollectorState

    @classmethod
    def initial(
        cls, policy: Policy, envs: Environments, obs: Tensor, seeds: Sequence[int], normalization: Normalization
    ) -> "Collector":
        """A collector before its first rollout.

        Args:
            policy: what the parameters mean.
            envs: ``P * N`` environments, which have been reset.
            obs: ``(P, N, D)`` first observations.
            seeds: P of them, for the action noise.
            normalization: how observations and rewards are scaled for the learner.
        """
        members = torch.arange(len(obs), device=obs.device)
        keys = stream_keys(seeds, "action").to(obs.device)
        state = CollectorState.initial(obs, policy.obs_dim, policy.memory)
        return cls(policy, envs, normalization, members, keys, state)

    def take(self, rows: Tensor) -> "Collector":
        """The members at these rows, on the same environments; those of the others are not stepped any more."""
        return replace(
            self,
            normalization=self.normalization._replace(gamma=self.normalization.gamma[rows]),
            members=self.members[rows],
            keys=self.keys[rows],
            state=self.state.take(rows),
        )

    def dump(self, envs: bool) -> dict[str, Any]:
        """The state between two rollouts as plain data; ``"envs"`` is None if not asked for or impossible."""
        env_state = self.envs.state(self.env_index(self.members)) if envs else None
        return {**self.state.dump(), "statistics": self.statistics._asdict(), "envs": env_state}

    def resumed(self, saved: Mapping[str, Any], restart: bool) -> "Collector":
        """This new collector in the state that another of the same members was dumped in.

        Args:
            saved: what :meth:`dump` returned.
            restart: let all episodes begin anew, because the environments' state was not saved.

        Raises:
            PgkitError: the environments do not come back as they were.
        """
        state = CollectorState(**{name: saved[name] for name in self.state.dump()})
        if restart:
            counts = state.counts.clone()
            counts[:, :2] = 0.0  # return and length of the episodes that were under way
            fresh = self.state
            begun = {name: getattr(fresh, name) for name in ("obs", "discounted", "memory", "waiting")}
            state = replace(state, counts=counts, **begun)
        elif saved["envs"] is not None:
            self.envs.restore(saved["envs"], self.env_index(self.members))
        return replace(self, state=state)

    @property
    def envs_per_member(self) -> int:
        """N."""
        return self.state.obs.shape[1]

    @property
    def statistics(self) -> Statistics:
        """Steps and episodes of each member since the start of the run."""
        return member_statistics(self.state.counts)

    @property
    def env_steps(self) -> Tensor:
        """Environment steps of each member so far, float64 ``(P,)``."""
        return self.state.env_steps

    def finite(self, alive: Tensor) -> Tensor:
        """``alive`` ``(P,)`` without the members whose observation statistics are not finite."""
        if not self.normalization.observations:
            return alive
        return alive & self.state.obs_stats["squares"].isfinite().all(1)

    def repair(self, obs_stats: normalize.Stats) -> None:
        """Put these observation statistics in the place of those that are not finite."""
        rows = (~self.state.obs_stats["squares"].isfinite().all(1)).nonzero().squeeze(1)
        repaired = put_tree(self.state.obs_stats, rows, take_tree(obs_stats, rows))
        self.state = replace(self.state, obs_stats=repaired)

    def env_index(self, members: Tensor) -> Tensor | None:
        """The environments of these members, member-major, int64 ``(p * N,)``; None if that is all of them."""
        count = self.envs_per_member
        if len(members) * count == self.envs.info.num_envs:
            return None
        return (members[:, None] * count + torch.arange(count, device=members.device)).flatten()

    def noise(self, start: int, stop: int) -> Tensor:
        """Uniform numbers ``(stop - start, P, N, noise)`` of the steps from ``start`` to ``stop`` of this rollout."""
        width = self.envs_per_member * self.policy.head.noise
        counter = torch.arange(start * width, stop * width, device=self.keys.device)
        counter = counter.view(stop - start, 1, self.envs_per_member, -1) + self.state.counters[:, None, None]
        return uniform(self.keys[:, None, None], counter)

    def act(
        self, params: Params, obs: Tensor, noise: Tensor, memory: Tensor, rows: MemberRows = None
    ) -> tuple[Tensor, Tensor]:
        """Sample actions ``(p, N)`` or ``(p, N, A)`` of the members at these rows; also returns their new memory."""
        if self.normalization.observations:
            obs = normalize.apply_to_features(select_members(self.state.obs_stats, rows), obs)
        outputs, memory = self.policy.step(params, obs, memory)
        return self.policy.head.sample(outputs, noise), memory

    def acting_state(self) -> ActingState:
        """Where a compiled rollout begins, which counts its steps in a copy of the counts."""
        state = self.state
        return ActingState(state.obs, self.members, self.keys, state.counters, state.counts.clone())

    def finish(self, obs: Tensor, counts: Tensor, memory: Tensor, waiting: bool = False) -> None:
        """End a rollout: move on to these observations, counts and memory, and to new action noise."""
        counters = self.state.counters + _ROLLOUT_STRIDE
        self.state = replace(self.state, obs=obs, counts=counts, memory=memory, counters=counters, waiting=waiting)

    def scale(self, rows: MemberRows, rollout: Rollout) -> Rollout:
        """The rollout of the members at these rows as the learner sees it; running statistics take it in."""
        state, scaling = self.state, self.normalization
        if scaling.observations:
            rollout, stats = normalize_observations(rollout, select_members(state.obs_stats, rows))
            state = replace(state, obs_stats=replace_members(state.obs_stats, rows, stats))
        if scaling.reward_scale != 1:
            rollout = replace(rollout, reward=rollout.reward * scaling.reward_scale)
        if scaling.rewards:
            before = select_members((state.return_stats, state.discounted, scaling.gamma), rows)
            rollout, *after = normalize_rewards(rollout, *before)
            return_stats, discounted = replace_members((state.return_stats, state.discounted), rows, after)
            state = replace(state, return_stats=return_stats, discounted=discounted)
        self.state = state
        return rollout


@dataclass(frozen=True)
class StepByStep:
    """``length`` steps of every environment, each of all environments at once.

    It works with every environment, every policy and on every device. Episodes are carried over from one rollout to
    the next.
    """

    length: int

    def collect(self, collector: Collector, params: Params) -> list[MemberRollout]:
        """Act, step, record."""
        steps_before = collector.env_steps
        index = collector.env_index(collector.members)
        obs = collector.state.obs
        first_memory = memory = collector.state.memory
        record = []
        for noise in collector.noise(0, self.length):
            action, memory = collector.act(params, obs, noise, memory)
            transition = collector.envs.step(action.flatten(0, 1), index)
            obs = transition.obs.view_as(obs)
            record.append((obs, action, transition, memory))
            memory = forget(memory, transition)
        observations, actions, transitions, memories = zip(*record, strict=True)
        rollout = stack_transitions([collector.state.obs, *observations], actions, transitions)
        collector.finish(rollout.obs[-1].clone(), update_env_stats(collector.state.counts, rollout), memory)
        scaled = as_sequences(collector.scale(None, rollout), first_memory, memories)
        return [MemberRollout(None, scaled, rollout, steps_before)]


@dataclass(frozen=True)
class CompiledSteps:
    """``length`` steps of environments whose step is compiled, one member after the other, without Python between."""

    envs: CompiledEnvs
    length: int

    def collect(self, collector: Collector, params: Params) -> list[MemberRollout]:
        """Run the compiled rollout."""
        steps_before = collector.env_steps
        start = collector.acting_state()
        rollout = compiled_rollout(collector.policy, params, self.envs, start, self.length)
        collector.finish(rollout.obs[-1].clone(), start.counts, collector.state.memory)
        return [MemberRollout(None, collector.scale(None, rollout), rollout, steps_before)]
