"""Acting: every step counted by hand, episodes carried over or collected whole, and what the learner sees of them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import probe_envs
from torch import Tensor

from pgkit.envs import Environments, Transition, make_envs, wrap_vector_env
from pgkit.errors import PgkitError
from pgkit.nn.distributions import head_for
from pgkit.nn.policy import Policy
from pgkit.rollouts.collector import Collector
from pgkit.rollouts.episodes import fastest_strategy
from pgkit.rollouts.normalization import Normalization
from pgkit.rollouts.trajectory import MemberRollout
from pgkit.types import Rollout

COUNTING = "helpers.probe_envs:ProbeCounting-v0"
Step = tuple[tuple[int, int, int], tuple[int, int, int], float, bool, bool]


class Recorded:
    """Environments that remember which of them were stepped, call by call."""

    def __init__(self, envs: Environments) -> None:
        self.envs, self.info = envs, envs.info
        self.calls: list[list[int]] = []

    def reset(self, seeds: Sequence[int], index: Tensor | None = None) -> Tensor:
        return self.envs.reset(seeds, index)

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        self.calls.append(list(range(self.info.num_envs)) if index is None else index.tolist())
        return self.envs.step(action, index)

    def close(self) -> None:
        self.envs.close()


class AtOnce(Recorded):
    """The same environments with SAME_STEP autoreset: a done one is reset before its step is handed over."""

    def __init__(self, envs: Environments) -> None:
        super().__init__(envs)
        self.info = replace(envs.info, autoreset="same_step")

    def step(self, action: Tensor, index: Tensor | None = None) -> Transition:
        index = torch.arange(self.info.num_envs) if index is None else index
        result = super().step(action, index)
        done, obs = result.terminated | result.truncated, result.obs.clone()
        if done.any():
            obs[done] = self.envs.step(action[done], index[done]).obs
        return result._replace(obs=obs, final_obs=result.obs)


def collector(
    envs: Environments,
    env_seeds: Sequence[int],
    count: int,
    seeds: Sequence[int] | None = None,
    observations: bool = False,
    returns: bool = False,
    reward: float = 1.0,
) -> Collector:
    """``count`` environments for each member; discounts 0.9, 0.8, ..."""
    size = len(env_seeds) // count
    policy = Policy(envs.info.obs_dim, head_for(envs.info.action_space), hidden=(8,), critic_hidden=(8,))
    obs = envs.reset(env_seeds).view(size, count, -1)
    gamma = 0.9 - 0.1 * torch.arange(size)
    normalization = Normalization(reward, observations, returns, gamma)
    return Collector.initial(policy, envs, obs, seeds or range(size), normalization)


def params_of(acting: Collector, seeds: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Parameters that care about what they see."""
    params = acting.policy.init(seeds or range(len(acting.members)))
    return {name: leaf * 30 if name == "actor.1.weight" else leaf for name, leaf in params.items()}


def rollout_of(acting: Collector, params: dict[str, Tensor], length: int) -> MemberRollout:
    """The rollout of all members."""
    (rollout,) = fastest_strategy(acting, params, length).collect(acting, params)
    return rollout


def episodes(acting: Collector, params: dict[str, Tensor]) -> list[MemberRollout]:
    """Rollouts of some members each."""
    return fastest_strategy(acting, params, None).collect(acting, params)


def steps_of(base: int) -> list[Step]:
    """The first real steps of a counting environment: observation, next one, reward, terminated, truncated."""
    steps: list[Step] = []
    for episode in range(20):
        number = base + episode
        length = 2 + number % 3
        for step in range(1, length + 1):
            over = step == length
            reward = 100.0 * base + 10 * episode + step
            before, after = (base, episode, step - 1), (base, episode, step)
            steps.append((before, after, reward, over and number % 2 == 0, over and number % 2 == 1))
    return steps


def real_steps(rollouts: Sequence[Rollout], member: int, n: int) -> list[Step]:
    """The valid transitions of one environment, with the true next observation."""
    steps = []
    for rollout in rollouts:
        for t in range(len(rollout.valid)):
            if rollout.valid[t, member, n]:
                flags = [bool(flag[t, member, n]) for flag in (rollout.terminated, rollout.truncated)]
                true = rollout.obs[t + 1] if rollout.final_obs is None or not any(flags) else rollout.final_obs[t]
                before, after = (tuple(obs[member, n].tolist()) for obs in (rollout.obs[t], true))
                steps.append((before, after, rollout.reward[t, member, n].item(), *flags))
    return steps


def recount(rollouts: Sequence[Rollout]) -> list[list[float]]:
    """Steps, episodes, sum of returns and of lengths of each member, one number at a time."""
    size, count = rollouts[0].valid.shape[1:]
    totals = []
    for member in range(size):
        steps = episodes = returns = lengths = 0.0
        for n in range(count):
            so_far, length = 0.0, 0
            for _, _, reward, terminated, truncated in real_steps(rollouts, member, n):
                steps, so_far, length = steps + 1, so_far + reward, length + 1
                if terminated or truncated:
                    episodes, returns, lengths = episodes + 1, returns + so_far, lengths + length
                    so_far, length = 0.0, 0
        totals.append([steps, episodes, returns, lengths])
    return totals


def counts(acting: Collector) -> list[list[float]]:
    return torch.stack(acting.statistics, 1).tolist()


def by_member(rollouts: Sequence[MemberRollout]) -> dict[int, Rollout]:
    """Each member's own rollout, P = 1."""
    members = {}
    for rows, rollout, *_ in rollouts:
        for place, row in enumerate(range(rollout.valid.shape[1]) if rows is None else rows.tolist()):
            assert row not in members
            fields = (rollout.obs, rollout.action, rollout.reward, rollout.terminated, rollout.truncated, rollout.valid)
            members[row] = Rollout(*(tensor[:, place : place + 1] for tensor in fields))
    return members


def check_same(a: Rollout, b: Rollout) -> None:
    """The same valid steps to the last bit, in the same shapes; padding may hold anything."""
    assert torch.equal(a.valid, b.valid)
    for name in ("action", "reward", "terminated", "truncated"):
        assert torch.equal(getattr(a, name)[a.valid], getattr(b, name)[b.valid]), name
    for now in (slice(None, -1), slice(1, None)):
        assert torch.equal(a.obs[now][a.valid], b.obs[now][b.valid])


def test_fixed_steps_count_what_is_written_down_by_hand() -> None:
    """15 calls. Bases 0, 1, 4: episodes of 2, 3, 4, 2, ... and 3, 4, 2, 3, ... steps, a reset call after each."""
    envs = make_envs(COUNTING, 4)
    acting = collector(envs, [10, 31, 52, 74], 2)
    rollouts = [rollout_of(acting, params_of(acting), length).rollout for length in (5, 3, 7)]
    assert acting.statistics.env_steps.tolist() == [11 + 12, 12 + 12]
    assert acting.statistics.episodes.tolist() == [4 + 4, 3 + 4]
    # base 0, lengths 2 3 4 2: episodes e of n steps return 10 e n + n (n + 1) / 2
    first = [(0, 0, 2), (0, 1, 3), (0, 2, 4), (0, 3, 2), (1, 0, 3), (1, 1, 4), (1, 2, 2), (1, 3, 3)]
    assert acting.statistics.returns[0] == sum((100 * s + 10 * e) * n + n * (n + 1) / 2 for s, e, n in first)
    assert acting.statistics.lengths[0] == (2 + 3 + 4 + 2) + (3 + 4 + 2 + 3)
    for member, bases in enumerate([(0, 1), (2, 4)]):
        for n, base in enumerate(bases):
            steps = real_steps(rollouts, member, n)
            assert steps == steps_of(base)[: len(steps)]
    for before, after in pairwise(rollouts):
        assert torch.equal(before.obs[-1], after.obs[0])


def test_reset_steps_are_marked_and_empty() -> None:
    acting = collector(make_envs(COUNTING, 1), [10], 1)
    rollout = rollout_of(acting, params_of(acting), 7).rollout
    assert rollout.valid[:, 0, 0].tolist() == [True, True, False, True, True, True, False]
    dummy = ~rollout.valid
    for field in (rollout.reward, rollout.terminated, rollout.truncated):
        assert not field[dummy].any()


@pytest.mark.parametrize("backend", ["pgkit", "gymnasium"])
def test_statistics_of_cartpole_are_those_of_a_slow_recount(backend: str) -> None:
    acting = collector(make_envs("CartPole-v1", 6, backend=backend), range(6), 2)
    params, rollouts = params_of(acting), []
    for length in (1, 60, 17, 90):
        rollouts.append(rollout_of(acting, params, length).rollout)
        assert counts(acting) == recount(rollouts)
    assert acting.statistics.episodes.min() > 2
    assert len(set(acting.statistics.env_steps.tolist())) > 1


def test_each_rollout_draws_new_numbers() -> None:
    """The action noise is a function of seed, rollout and step: other rollouts and members get other numbers."""
    acting = collector(make_envs("helpers.probe_envs:ProbeCounting-v0", 2), [10, 10], 1)
    params = {name: torch.zeros_like(leaf) for name, leaf in acting.policy.init([0, 1]).items()}
    actions = torch.stack([rollout_of(acting, params, 64).rollout.action.squeeze(2) for _ in range(2)])
    drawn = {tuple(row) for row in actions.transpose(1, 2).flatten(0, 1).tolist()}
    assert len(drawn) == 4
    again = collector(make_envs("helpers.probe_envs:ProbeCounting-v0", 2), [10, 10], 1)
    assert torch.equal(rollout_of(again, params, 64).rollout.action.squeeze(2), actions[0])


def test_whole_episodes_of_counting_environments() -> None:
    """The first call collects every environment's episode 0, the second its episode 1, and so on."""
    acting = collector(make_envs(COUNTING, 6), [10, 31, 52, 73, 94, 5], 2)
    params, rollouts, passed = params_of(acting), [], [0] * 6
    for _ in range(3):
        members = by_member(episodes(acting, params))
        assert sorted(members) == [0, 1, 2]
        rollouts.append(members)
        for k in range(6):
            steps = real_steps([members[k // 2]], 0, k % 2)
            expected = steps_of([0, 1, 2, 3, 4, 5][k])
            length = next(i + 1 for i, step in enumerate(expected[passed[k] :]) if step[3] or step[4])
            assert steps == expected[passed[k] : passed[k] + length]
            passed[k] += length
        assert acting.statistics.env_steps.tolist() == [sum(passed[:2]), sum(passed[2:4]), sum(passed[4:])]
    assert acting.statistics.episodes.tolist() == [6, 6, 6]
    assert counts(acting) == [recount([rollout[member] for rollout in rollouts])[0] for member in range(3)]


@pytest.mark.parametrize("backend", ["pgkit", "gymnasium"])
def test_whole_episodes_come_in_parts_of_doubling_length(backend: str) -> None:
    acting = collector(make_envs("CartPole-v1", 24, backend=backend), range(24), 2)
    params = params_of(acting)
    rollouts: list[dict[int, Rollout]] = []
    padded = set()
    for _ in range(2):
        parts = episodes(acting, params)
        for rows, rollout, *_ in parts:
            lengths = rollout.valid.sum(0)
            padded.add(len(rollout.valid))
            assert rows is not None
            assert rollout.obs.shape == (len(rollout.valid) + 1, len(rows), 2, 4)
            for longest in lengths.amax(1).tolist():  # of every member, on its own
                assert len(rollout.valid) == min(32 * 2**k for k in range(8) if 32 * 2**k >= longest)
            steps = torch.arange(len(rollout.valid))[:, None, None]
            assert torch.equal(rollout.valid, steps < lengths)
            assert torch.equal(rollout.terminated | rollout.truncated, steps == lengths - 1)
            assert not rollout.reward[~rollout.valid].any()
        rollouts.append(by_member(parts))
        assert sorted(rollouts[-1]) == list(range(12))
    assert len(padded) > 1
    assert counts(acting) == [recount([rollout[member] for rollout in rollouts])[0] for member in range(12)]
    assert (acting.statistics.episodes == 4).all()


@pytest.mark.parametrize(("limit", "padded"), [(31, 32), (32, 32), (33, 64), (64, 64), (70, 128)])
def test_members_that_end_together_are_one_piece(limit: int, padded: int) -> None:
    acting = collector(make_envs("helpers.probes:ProbeEndless-v0", 4, max_episode_steps=limit), range(4), 2)
    ((rows, rollout, *_),) = episodes(acting, params_of(acting))
    assert rows is None
    assert rollout.valid.shape == (padded, 2, 2)
    assert acting.statistics.lengths.tolist() == acting.statistics.env_steps.tolist() == [2 * limit] * 2


@pytest.mark.parametrize("env_id", [COUNTING, "CartPole-v1"])
def test_finished_environments_are_not_stepped(env_id: str) -> None:
    envs = Recorded(make_envs(env_id, 6, backend="gymnasium"))
    acting = collector(envs, range(6), 2)
    params = params_of(acting)
    for first in (True, False):
        envs.calls.clear()
        members = by_member(episodes(acting, params))
        lengths = [int(members[k // 2].valid[:, 0, k % 2].sum()) for k in range(6)]
        assert len(set(lengths)) > 1
        expected = [[k for k in range(6) if t < lengths[k]] for t in range(max(lengths))]
        resets = [] if first else [list(range(6))]
        assert envs.calls == resets + expected


def test_an_episode_is_the_same_alone_and_beside_longer_ones() -> None:
    together = collector(make_envs("CartPole-v1", 24), range(24), 2)
    whole = [by_member(episodes(together, params_of(together))) for _ in range(2)]
    for member in (0, 5, 11):
        alone = collector(make_envs("CartPole-v1", 2), [2 * member, 2 * member + 1], 2, seeds=[member])
        for expected in whole:
            (single,) = by_member(episodes(alone, params_of(alone, [member]))).values()
            check_same(single, expected[member])


def vector_of(mode: AutoresetMode, count: int) -> Environments:
    return wrap_vector_env(SyncVectorEnv([probe_envs.Counting] * count, autoreset_mode=mode))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_vector_environments_give_the_same_transitions_in_every_autoreset_mode(mode: AutoresetMode) -> None:
    acting = collector(vector_of(mode, 4), [10, 31, 52, 74], 2)
    params = params_of(acting)
    rollouts = [rollout_of(acting, params, length).rollout for length in (5, 3, 7)]
    assert (rollouts[0].final_obs is None) == (mode == AutoresetMode.NEXT_STEP)
    for member, bases in enumerate([(0, 1), (2, 4)]):
        for n, base in enumerate(bases):
            steps = real_steps(rollouts, member, n)
            assert steps == steps_of(base)[: len(steps)]
            assert len(steps) == 15 if mode == AutoresetMode.SAME_STEP else 11 <= len(steps) <= 12
    assert counts(acting) == recount(rollouts)


def test_whole_episodes_are_the_same_with_autoreset_at_once() -> None:
    seeds = [10, 31, 52, 74]
    slow, fast = (collector(envs, seeds, 2) for envs in (make_envs(COUNTING, 4), AtOnce(make_envs(COUNTING, 4))))
    for _ in range(3):
        expected = by_member(episodes(slow, params_of(slow)))
        computed = by_member(episodes(fast, params_of(fast)))
        for k in range(4):
            assert real_steps([computed[k // 2]], 0, k % 2) == real_steps([expected[k // 2]], 0, k % 2)
    assert counts(slow) == counts(fast)


def test_whole_episodes_need_environments_that_step_one_by_one() -> None:
    """Those that step all at once would run on into the next episode while others finish."""
    acting = collector(vector_of(AutoresetMode.NEXT_STEP, 2), [10, 31], 1)
    with pytest.raises(PgkitError, match=r"SyncVectorEnv.*whole episodes"):
        episodes(acting, params_of(acting))


def test_those_who_left_are_not_stepped_any_more() -> None:
    envs = Recorded(make_envs(COUNTING, 6))
    acting = collector(envs, [10, 31, 52, 73, 94, 5], 2)
    params = params_of(acting)
    rollouts = [rollout_of(acting, params, 5).rollout]
    envs.calls.clear()
    rows = torch.tensor([2, 0])
    staying = acting.take(rows)
    staying_params = {name: leaf[rows] for name, leaf in params.items()}
    rest = rollout_of(staying, staying_params, 6).rollout
    assert envs.calls == [[4, 5, 0, 1]] * 6
    for place, member in enumerate(rows.tolist()):
        for n in range(2):
            before = real_steps(rollouts, member, n)
            after = real_steps([rest], place, n)
            assert before + after == steps_of(2 * member + n)[: len(before + after)]
    assert staying.statistics.env_steps.tolist() != acting.statistics.env_steps[rows].tolist()
    alone = staying.take(torch.tensor([1]))  # rows of rows
    rollout_of(alone, {name: leaf[1:] for name, leaf in staying_params.items()}, 1)
    assert envs.calls[-1] == [0, 1]


def test_taking_members_leaves_the_whole_as_it_was() -> None:
    acting = collector(make_envs(COUNTING, 4), [10, 31, 52, 74], 2, observations=True, returns=True)
    rollout_of(acting, params_of(acting), 5)
    before = [counts(acting), acting.state.obs_stats["mean"].clone(), acting.state.discounted.clone()]
    taken = acting.take(torch.tensor([1]))
    rollout_of(taken, {name: leaf[1:] for name, leaf in params_of(acting).items()}, 4)
    assert counts(acting) == before[0]
    assert torch.equal(acting.state.obs_stats["mean"], before[1])
    assert torch.equal(acting.state.discounted, before[2])


class Moments:
    """Mean and variance of all samples there were, in NumPy."""

    def __init__(self) -> None:
        self.samples: list[np.ndarray] = []

    def normalize(self, x: np.ndarray) -> np.ndarray:
        if not self.samples:
            return np.clip(x, -10, 10)
        seen = np.array(self.samples)
        return np.clip((x - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-8), -10, 10)


def raw_and_seen(size: int, lengths: Sequence[int], **scaling: bool) -> tuple[list[Rollout], list[Rollout], Collector]:
    """Rollouts of the same environments, raw as the environments gave them, and as the learner sees them."""
    acting = collector(make_envs("helpers.probe_envs:ProbeNoise-v0", 2 * size), range(2 * size), 2, **scaling)
    rollouts = [rollout_of(acting, params_of(acting), length) for length in lengths]
    return [rollout.unnormalized for rollout in rollouts], [rollout.rollout for rollout in rollouts], acting


def test_observations_are_normalised_by_what_was_seen_before_the_rollout() -> None:
    """Per member, reset steps not counted twice, in NumPy; the last observation of a rollout counts in the next."""
    raw, seen, acting = raw_and_seen(3, (4, 9, 30), observations=True)
    for member in range(3):
        moments = Moments()
        for before, after in zip(raw, seen, strict=True):
            expected = moments.normalize(before.obs[:, member].double().numpy())
            np.testing.assert_allclose(after.obs[:, member].numpy(), expected, atol=1e-5)
            moments.samples += list(before.obs[:-1, member][before.valid[:, member]].double().numpy())
        np.testing.assert_allclose(acting.state.obs_stats["mean"][member], np.mean(moments.samples, 0), atol=1e-9)
        assert acting.state.obs_stats["count"][member] == acting.statistics.env_steps[member]


def test_the_policy_acts_on_what_the_learner_sees() -> None:
    """Rollouts are scaled by the statistics their actions were chosen with: the actions can be drawn again."""
    acting = collector(make_envs("helpers.probe_envs:ProbeNoise-v0", 6), range(6), 2, observations=True)
    params = params_of(acting)
    for _ in range(3):
        noise = acting.noise(0, 8)
        rollout = rollout_of(acting, params, 8).rollout
        for t in range(8):
            outputs = acting.policy.outputs(params, rollout.obs[t])
            assert torch.equal(acting.policy.head.sample(outputs, noise[t]), rollout.action[t])


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    """Per member, over all steps so far, this rollout's included, in NumPy; a return starts anew at each episode."""
    raw, seen, acting = raw_and_seen(3, (4, 9, 30), returns=True)
    for member in range(3):
        gamma, returns, running = 0.9 - 0.1 * member, [], np.zeros(2)
        for before, after in zip(raw, seen, strict=True):
            for t in range(len(before.valid)):
                running = gamma * running + before.reward[t, member].double().numpy()
                returns += list(running[before.valid[t, member].numpy()])
                running[(before.terminated | before.truncated)[t, member].numpy()] = 0
            scale = np.sqrt(np.var(returns) + 1e-8)
            expected = before.reward[:, member].double().numpy() / scale
            np.testing.assert_allclose(after.reward[:, member].numpy(), expected, rtol=1e-5)
            assert torch.equal(before.obs, after.obs)
        assert acting.statistics.returns[member] == recount(raw)[member][2] != 0


def test_a_reward_scale_is_a_factor_and_statistics_stay_unscaled() -> None:
    plain, scaled = (collector(make_envs(COUNTING, 2), [10, 31], 1, reward=factor) for factor in (1.0, 0.01))
    before, after = (rollout_of(acting, params_of(acting), 9).rollout for acting in (plain, scaled))
    assert torch.equal(before.reward * 0.01, after.reward)
    assert counts(plain) == counts(scaled)


def test_normalisation_of_whole_episodes_is_that_of_the_member_alone() -> None:
    """Pieces end at different times, but a member's statistics hold its own samples only."""
    options = {"observations": True, "returns": True}
    together = collector(make_envs("CartPole-v1", 16), range(16), 2, **options)
    gamma = together.normalization.gamma
    rollouts = [by_member(episodes(together, params_of(together))) for _ in range(3)]
    for member in (0, 7):
        alone = collector(make_envs("CartPole-v1", 2), [2 * member, 2 * member + 1], 2, seeds=[member], **options)
        alone.normalization = alone.normalization._replace(gamma=gamma[member : member + 1])
        for expected in rollouts:
            (single,) = by_member(episodes(alone, params_of(alone, [member]))).values()
            check_same(single, expected[member])
        for name in ("obs_stats", "return_stats"):
            for key, leaf in getattr(alone.state, name).items():
                assert torch.equal(leaf[0], getattr(together.state, name)[key][member])
