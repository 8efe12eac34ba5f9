"""Acting in environments: rollouts of fixed length, and whole episodes, for a population at once."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.envs import normalize
from pgkit.envs.base import Elementwise, Environments
from pgkit.errors import PgkitError
from pgkit.kernels.packing import pack
from pgkit.nn.policy import Policy
from pgkit.rollouts.compiled import ActingState, compiled_rollout, elementwise
from pgkit.rollouts.statistics import Statistics, env_steps, init_env_stats, member_statistics, update_env_stats
from pgkit.rollouts.trajectory import MemberRollout, _joined, _pad, _stack, _unflatten
from pgkit.seeding import stream_keys, uniform
from pgkit.system.cpu import use_compiled
from pgkit.tree import MemberRows, member_samples, put_tree, replace_members, select_members, take_tree
from pgkit.types import Params, Rollout

SHORTEST_PIECE = 32  # steps; whole episodes come in pieces of 32, 64, 128, ... steps

_KEPT = ("waiting", "obs", "counters", "counts", "obs_stats", "return_stats", "discounted")

_ROLLOUT_STRIDE = 1 << 32  # counters of action noise: one rollout never reaches into the next


class Normalization(NamedTuple):
    """How what the learner sees differs from what the environment says.

    Attributes:
        reward: constant factor of every reward.
        observations: subtract the running mean, divide by the running standard deviation, per member.
        returns: divide rewards by the running standard deviation of the discounted return, per member.
        gamma: discount of that return, ``(P,)``.
    """

    reward: float
    observations: bool
    returns: bool
    gamma: Tensor


class Collector:
    """The environments of a population, N for each member, and where they stand.

    All randomness of acting lives here and in the environments: member k draws from the streams of its seed alone.
    Running statistics are updated after each rollout, so that all its steps are scaled alike.
    """

    def __init__(self, policy: Policy, envs: Environments, obs: Tensor, seeds: Sequence[int], scaling: Normalization):
        size, self.count = obs.shape[:2]
        device = obs.device
        self.policy, self.envs, self.obs, self.scaling = policy, envs, obs, scaling
        self.longest: int | None = None  # steps of an episode, where whole ones are captured
        self.waiting = False  # after whole episodes every environment waits at the end of one
        self.members = torch.arange(size, device=device)  # whose environments these are
        self.keys = stream_keys(seeds, "action").to(device)
        self.counters = torch.zeros(size, dtype=torch.int64, device=device)  # of the next rollout's first noise
        self.obs_stats = normalize.init(size, policy.obs_dim, device)
        self.return_stats = normalize.init(size, 1, device)
        self.discounted = torch.zeros(size, self.count, device=device)  # return so far, as the normaliser sees it
        self.counts = init_env_stats(size, self.count, device)

    def take(self, rows: Tensor) -> "Collector":
        """The members at these rows, on the same environments; the others' are not stepped any more."""
        taken = copy.copy(self)
        for name in ("obs", "members", "keys", "counters", "counts", "obs_stats", "return_stats", "discounted"):
            setattr(taken, name, take_tree(getattr(self, name), rows))
        taken.scaling = self.scaling._replace(gamma=self.scaling.gamma[rows])
        return taken

    def state(self, envs: bool) -> dict[str, Any]:
        """Where it stands between two rollouts, as plain data; ``"envs"`` is None if not asked for or impossible."""
        kept = {name: getattr(self, name) for name in _KEPT} | {"counts": self.counts.clone()}  # changed in place
        there = self.envs.state(self._index(self.members)) if envs else None
        return kept | {"statistics": self.statistics._asdict(), "envs": there}

    def resumed(self, saved: Mapping[str, Any], restart: bool) -> "Collector":
        """This collector, fresh, where another of the same members stood, or ``anew`` with all episodes before it.

        Raises:
            PgkitError: the environments do not come back as they were.
        """
        begun = ("obs", "discounted", "waiting") if restart else ()
        taken = copy.copy(self)
        for name in _KEPT:
            setattr(taken, name, getattr(self, name) if name in begun else saved[name])
        if restart:
            taken.counts = saved["counts"].clone()
            taken.counts[:, :2] = 0.0  # of the episodes that were under way
        if saved["envs"] is not None and not restart:
            self.envs.restore(saved["envs"], self._index(self.members))
        return taken

    @property
    def statistics(self) -> Statistics:
        """What happened so far."""
        return member_statistics(self.counts)

    @property
    def env_steps(self) -> Tensor:
        """Environment steps of each member so far, float64 ``(P,)``."""
        return env_steps(self.counts)

    def sound(self, alive: Tensor) -> Tensor:
        """``alive`` ``(P,)`` without the members whose observation statistics are not finite."""
        return alive & self.obs_stats["squares"].isfinite().all(1) if self.scaling.observations else alive

    def repair(self, obs_stats: normalize.Stats) -> None:
        """Take these observation statistics for the members whose own are not finite."""
        rows = (~self.obs_stats["squares"].isfinite().all(1)).nonzero().squeeze(1)
        self.obs_stats = put_tree(self.obs_stats, rows, take_tree(obs_stats, rows))

    def steps(self, params: Params, length: int) -> list[MemberRollout]:
        """``length`` steps of every environment, episodes carried over from one rollout to the next."""
        compiled = None if self.scaling.observations else elementwise(self.envs, self.policy, params)
        if compiled is None:
            rollout = self._one_by_one(params, length)
        else:
            where = ActingState(self.obs, self.members, self.keys, self.counters, self.counts)
            rollout = compiled_rollout(self.policy, params, compiled, where, length)
        self.obs = rollout.obs[-1].clone()
        self.counters = self.counters + _ROLLOUT_STRIDE
        return [self._piece(None, rollout, counted=compiled is not None)]

    def _one_by_one(self, params: Params, length: int) -> Rollout:
        """The steps, of all environments at once each."""
        noise, index = self._noise(0, length), self._index(self.members)
        record, obs = [], self.obs
        for own_noise in noise:
            action = self._act(params, obs, own_noise, self.obs_stats)
            result = self.envs.step(action.flatten(0, 1), index)
            record.append(_unflatten(obs, action, result))
            obs = result.obs.view_as(obs)
        return _stack(record, obs)

    def episodes(self, params: Params) -> list[MemberRollout]:
        """One whole episode of every environment.

        Members whose episodes are all over leave at the next boundary 32, 64, 128, ... with a piece padded to
        it, so a member's shapes, and with them its rounding, depend on its own episodes alone. Environments
        that are done idle: nothing changes in them. Only the padding (``valid`` False) is computed in vain.

        Raises:
            PgkitError: the environments step all at once only, so that those that are done would go on.
        """
        if self.longest is not None:
            return [self._at_once(params, self.longest)]
        if not self.envs.info.can_step_subset:
            raise PgkitError(f"environment {self.envs.info.name!r} steps all at once: it cannot give whole episodes")
        obs = self._begin_episodes(params)
        compiled = None if self.scaling.observations else elementwise(self.envs, self.policy, params)
        going = torch.arange(len(self.members), device=self.obs.device)
        running = torch.ones(obs.shape[:2], dtype=torch.bool, device=obs.device)
        record: list[Rollout] = []
        pieces, done, boundary = [], 0, SHORTEST_PIECE
        while len(going):
            here = take_tree(params, going)
            while done < boundary and running.any():
                if compiled is None:
                    chunk, running = self._steps_running(here, obs, going, running, range(done, boundary))
                else:
                    steps = range(done, boundary)
                    chunk = self._compiled_steps_running(compiled, here, obs, going, running, steps)
                record.append(chunk)
                done, obs = done + len(chunk.valid), chunk.obs[-1]
            staying = running.any(1)
            if not staying.all():
                leaving = going[~staying]
                rows = None if len(leaving) == len(self.members) else leaving
                pieces.append(self._packed(self._piece(rows, _pad(_joined(record, ~staying), boundary))))
            record = [_joined(record, staying)]
            going, running, obs = going[staying], running[staying], obs[staying]
            done, boundary = boundary, 2 * boundary
        self.counters = self.counters + _ROLLOUT_STRIDE
        self.waiting = True
        return pieces

    def _at_once(self, params: Params, length: int) -> MemberRollout:
        """Whole episodes of environments that all wait, padded to their greatest length: nothing is looked at."""
        envs = self.envs.elementwise  # type: ignore[attr-defined] # they have it, or this would not be asked for
        where = ActingState(self.obs, self.members, self.keys, self.counters, self.counts)
        self.obs = compiled_rollout(self.policy, params, envs, where, 1, taped=False).obs[-1].clone()  # all are reset
        running = torch.ones(self.obs.shape[:2], dtype=torch.bool)
        where = where._replace(obs=self.obs, running=running)
        rollout = compiled_rollout(self.policy, params, envs, where, length, taped=False)
        self.counters = self.counters + _ROLLOUT_STRIDE
        return self._packed(self._piece(None, rollout, counted=True), look=False)

    def _steps_running(
        self, params: Params, obs: Tensor, going: Tensor, running: Tensor, steps: range
    ) -> tuple[Rollout, Tensor]:
        """At most these steps of the members that are going, while an environment is running; and which then are."""
        stats, record = take_tree(self.obs_stats, going), []
        for noise in self._noise(steps.start, steps.stop)[:, going]:
            action = self._act(params, obs, noise, stats)
            step, obs = self._step_running(obs, action, going, running)
            record.append(step)
            running = running & ~(step.terminated | step.truncated)
            if not running.any():
                break
        return _stack(record, obs), running

    def _compiled_steps_running(
        self, envs: Elementwise, params: Params, obs: Tensor, going: Tensor, running: Tensor, steps: range
    ) -> Rollout:
        """These steps of the members that are going, while an environment is running; ``running`` is changed."""
        counts = self.counts[going]  # of no use: they are counted when all is there
        counters = self.counters[going] + steps.start * self.count
        where = ActingState(obs, self.members[going], self.keys[going], counters, counts, running)
        return compiled_rollout(self.policy, params, envs, where, len(steps), taped=False)

    def _act(self, params: Params, obs: Tensor, noise: Tensor, stats: normalize.Stats) -> Tensor:
        seen = normalize.apply(stats, obs) if self.scaling.observations else obs
        return self.policy.head.sample(self.policy.outputs(params, seen), noise)

    def _noise(self, start: int, stop: int) -> Tensor:
        """Uniform numbers ``(stop - start, P, N, noise)`` of the steps from ``start`` to ``stop``."""
        width = self.count * self.policy.head.noise
        counter = torch.arange(start * width, stop * width, device=self.keys.device)
        counter = counter.view(stop - start, 1, self.count, -1) + self.counters[:, None, None]
        return uniform(self.keys[:, None, None], counter)

    def _index(self, members: Tensor) -> Tensor | None:
        """The environments of these members; None for all environments there are."""
        if len(members) * self.count == self.envs.info.num_envs:
            return None
        return (members[:, None] * self.count + torch.arange(self.count, device=members.device)).flatten()

    def _begin_episodes(self, params: Params) -> Tensor:
        """The first observation ``(P, N, D)`` of an episode in every environment."""
        if self.waiting and self.envs.info.autoreset == "next_step":
            action = self._act(params, self.obs, self._noise(0, 1)[0], self.obs_stats)  # ignored: the step is a reset
            self.obs = self.envs.step(action.flatten(0, 1), self._index(self.members)).obs.view_as(self.obs)
        return self.obs

    def _step_running(self, obs: Tensor, action: Tensor, going: Tensor, running: Tensor) -> tuple[Rollout, Tensor]:
        """Step the environments that are running, of the members that are going; the others keep what they have."""
        where = running.flatten().nonzero().squeeze(1)
        index = (self.members[going][:, None] * self.count + torch.arange(self.count, device=obs.device)).flatten()
        result = self.envs.step(action.flatten(0, 1)[where], index[where])
        flags = torch.zeros(2, running.numel(), dtype=torch.bool, device=obs.device)
        flags[:, where] = torch.stack([result.terminated, result.truncated])
        reward = torch.zeros(running.numel(), device=obs.device)
        reward[where] = result.reward
        after = obs.flatten(0, 1).clone()
        after[where] = result.obs if result.final_obs is None else result.final_obs
        if result.final_obs is not None:  # what follows an episode's end is the next one's beginning
            first_obs = self.obs[going].flatten(0, 1)
            first_obs[where] = result.obs
            self.obs = replace_members(
                self.obs, going, first_obs.view_as(obs)
            )  # not in place: the record holds the old one
        terminated, truncated = flags.view(2, *running.shape)
        rollout = Rollout(obs, action, reward.view_as(terminated), terminated, truncated, running)
        return rollout, after.view_as(obs)

    def _piece(self, rows: MemberRows, rollout: Rollout, counted: bool = False) -> MemberRollout:
        """Count what happened, unless that is done, and turn observations and rewards into what the learner sees."""
        if not counted:
            self.counts = replace_members(
                self.counts, rows, update_env_stats(select_members(self.counts, rows), rollout)
            )
        raw = rollout
        if self.scaling.observations:
            rollout = self._normalize_observations(rows, rollout)
        if self.scaling.reward != 1:
            rollout = replace(rollout, reward=rollout.reward * self.scaling.reward)
        if self.scaling.returns:
            rollout = self._normalize_rewards(rows, rollout)
        return MemberRollout(rows, rollout, raw)

    def _packed(self, piece: MemberRollout, look: bool = True) -> MemberRollout:
        """Whole episodes whose samples are packed, if the policy's networks take them so."""
        obs, valid = piece.rollout.obs, piece.rollout.valid
        if not self.policy.supports_packing or not use_compiled(obs.dtype, obs.device):
            return piece
        return piece._replace(rollout=replace(piece.rollout, packing=pack(obs, valid, look)))

    def _normalize_observations(self, rows: MemberRows, rollout: Rollout) -> Rollout:
        """Scale by the statistics that the actions were chosen with, then add this rollout to them."""
        stats = select_members(self.obs_stats, rows)
        updated = normalize.update(stats, member_samples(rollout.obs[:-1]), member_samples(rollout.valid))
        self.obs_stats = replace_members(self.obs_stats, rows, updated)

        def seen(obs: Tensor) -> Tensor:
            return normalize.apply(stats, obs.transpose(0, 1)).transpose(0, 1)

        final_obs = None if rollout.final_obs is None else seen(rollout.final_obs)
        return replace(rollout, obs=seen(rollout.obs), final_obs=final_obs)

    def _normalize_rewards(self, rows: MemberRows, rollout: Rollout) -> Rollout:
        """Divide by the standard deviation of the discounted return, this rollout included."""
        running, gamma = select_members(self.discounted, rows), select_members(self.scaling.gamma, rows)
        returns = []
        for reward, done in zip(rollout.reward, rollout.terminated | rollout.truncated, strict=True):
            running = normalize.discounted(running, reward, gamma)
            returns.append(running)
            running = torch.where(done, 0.0, running)
        self.discounted = replace_members(self.discounted, rows, running)
        samples, valid = member_samples(torch.stack(returns)).unsqueeze(2), member_samples(rollout.valid)
        stats = normalize.update(select_members(self.return_stats, rows), samples, valid)
        self.return_stats = replace_members(self.return_stats, rows, stats)
        scaled = normalize.scale(stats, member_samples(rollout.reward)).view(rollout.reward.transpose(0, 1).shape)
        return replace(rollout, reward=scaled.transpose(0, 1))
