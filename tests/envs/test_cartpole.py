"""pgkit's CartPole is Gymnasium's, and its environments are strangers to each other."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from helpers.compile_mode import set_compile_mode

from pgkit.envs import cartpole, make_envs
from pgkit.errors import PgkitError

ULPS = 4  # of the velocities, or of their changes: now and then sines or cosines differ from NumPy's in the last bit


def make_cartpole(num_envs, max_episode_steps=None, device="cpu"):
    return make_envs("CartPole-v1", num_envs, max_episode_steps=max_episode_steps, backend="pgkit", device=device)


def states_of(envs):
    """``(K, 4)`` float64, in Gymnasium's order."""
    return envs.state()["float64"].numpy().copy()


def put_states(envs, states):
    envs.restore(envs.state() | {"float64": torch.from_numpy(states)})


def all_numbers(envs):
    """``(K, ...)`` float64: all that the environments consist of."""
    return torch.cat([table.double() for table in envs.state().values()], 1)


def balancing(obs):
    """A controller that balances the pole for hundreds of steps."""
    return (3 * obs[:, 2] + obs[:, 3] + 0.1 * obs[:, 0] + 0.2 * obs[:, 1] > 0).long()


def test_one_step_from_the_same_state():
    """6,000 states inside and outside the limits: positions, flags and rewards exactly, velocities to rounding."""
    random = np.random.default_rng(1)
    states = random.uniform(-1, 1, (6000, 4)) * [2.6, 3, 0.24, 3]
    actions = random.integers(2, size=6000)
    ours = make_cartpole(6000)
    ours.reset(range(6000))
    put_states(ours, states)
    result = ours.step(torch.from_numpy(actions))
    env = CartPoleEnv()
    env.reset(seed=0)
    theirs, true_obs = np.empty((6000, 4)), np.empty((6000, 4))
    flags, rewards = np.empty(6000, dtype=bool), np.empty(6000)
    for k in range(6000):
        env.state, env.steps_beyond_terminated = states[k], None
        obs, reward, flags[k], _, _ = env.step(int(actions[k]))
        theirs[k] = env.state
        true_obs[k], rewards[k] = obs, reward
    assert np.array_equal(result.reward.numpy(), rewards)
    np.testing.assert_allclose(result.obs.numpy(), true_obs, rtol=2e-7)
    mine = states_of(ours)
    assert np.array_equal(mine[:, [0, 2]], theirs[:, [0, 2]])
    scale = np.spacing(np.maximum.reduce([np.abs(theirs), np.abs(states), np.abs(theirs - states)]))
    assert (np.abs(mine - theirs) <= ULPS * scale).all()
    assert (mine == theirs).mean() > 0.99
    assert np.array_equal(result.terminated.numpy(), flags)
    assert 1000 < flags.sum() < 5000  # some of both
    assert not result.truncated.any()


@pytest.mark.parametrize(("limit", "steps"), [(None, 1100), (7, 100)])
def test_whole_episodes_with_the_time_limit(limit, steps):
    """Side by side with ``gymnasium.make``, put to the same state before every step.

    Left alone, an unstable pole multiplies differences in the last bit of a sine, which vary with the processor.
    """
    count = 12
    ours = make_cartpole(count, limit)
    theirs = [gymnasium.make("CartPole-v1", max_episode_steps=limit) for _ in range(count)]
    for env in theirs:
        env.reset(seed=0)
    obs = ours.reset(range(count))
    random = torch.Generator().manual_seed(0)
    over = np.zeros(count, dtype=bool)
    ends = np.zeros(2, dtype=int)  # terminated, truncated
    for _ in range(steps):
        before = states_of(ours)
        action = torch.randint(2, (count,), generator=random)
        action[:6] = balancing(obs)[:6]
        result = ours.step(action)
        assert np.array_equal(result.valid.numpy(), ~over)
        rows = []
        for k, env in enumerate(theirs):
            if over[k]:
                env.reset()
                continue
            env.unwrapped.state = before[k]
            rows.append((*env.step(int(action[k]))[:4], env.unwrapped.state))
        if rows:
            true_obs, *reported, true_state = (np.array(column) for column in zip(*rows, strict=True))
            fields = np.stack([field.numpy()[~over] for field in result[1:4]])
            assert np.array_equal(fields, np.stack(reported))
            np.testing.assert_allclose(states_of(ours)[~over], true_state, rtol=1e-13, atol=1e-14)
            np.testing.assert_allclose(result.obs.numpy()[~over], true_obs, rtol=1e-6, atol=1e-7)
            ends += fields[1:].astype(int).sum(1)
        over = (result.terminated | result.truncated).numpy()
        obs = result.obs
    assert ends[1] >= (6 if limit is None else 100)
    assert limit is not None or ends[0] >= 100


def test_reset_steps():
    envs = make_cartpole(3, max_episode_steps=2)
    envs.reset([1, 2, 3])
    action = torch.zeros(3, dtype=torch.int64)
    first, second, third, fourth = (envs.step(action) for _ in range(4))
    assert first.valid.all()
    assert not first.truncated.any()
    assert second.truncated.all()
    assert not second.terminated.any()
    assert not third.valid.any()
    assert third.reward.tolist() == [0, 0, 0]
    assert not (third.truncated | third.terminated).any()
    assert (third.obs.abs() < cartpole.START_LIMIT).all()
    assert fourth.valid.all()
    assert fourth.reward.tolist() == [1, 1, 1]
    assert not fourth.truncated.any()


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_starts_are_all_different_and_uniform(limit):
    """Also where episodes follow each other as fast as they can."""
    envs = make_cartpole(40, limit)
    starts = [envs.reset(range(40))]
    for t in range(600):
        result = envs.step(torch.full((40,), t // 50 % 2))
        starts.append(result.obs[~result.valid])
    numbers = torch.cat(starts).flatten().double()
    assert len(numbers) > 4 * 1000
    assert len(numbers.unique()) > 0.99 * len(numbers)
    assert numbers.abs().max() < cartpole.START_LIMIT
    assert abs(numbers.mean()) < 4 * cartpole.START_LIMIT / (3 * len(numbers)) ** 0.5
    assert numbers.var().sqrt().item() == pytest.approx(cartpole.START_LIMIT / 3**0.5, rel=0.05)
    assert len(torch.cat(starts).unique(dim=0)) == len(torch.cat(starts))


def run(seeds, actions):
    """Observations ``(T + 1, K, 4)``; rewards and flags ``(T, K)``, for ``actions (T, K)``."""
    envs = make_cartpole(len(seeds), 30)
    seen = [envs.reset(seeds)]
    results = [envs.step(action) for action in actions]
    fields = [torch.stack([getattr(r, name).float() for r in results]) for name in ("reward", "terminated", "valid")]
    obs = torch.stack([*seen, *[r.obs for r in results]])
    return obs, fields


def test_alone_is_together():
    """Environment k of a population = the same environment alone, bit for bit, at any size and position."""
    seeds = [2**64 - 1 - 12345678901 * k for k in range(37)]
    actions = torch.randint(2, (300, 37), generator=torch.Generator().manual_seed(3))
    together, _ = run(seeds, actions)
    for members in ([0], [36], [5, 4], [7, 20, 30], list(range(11, 28))):
        part, _ = run([seeds[k] for k in members], actions[:, members])
        assert torch.equal(part, together[:, members])


def test_subset_steps_leave_the_others_alone():
    seeds = list(range(9))
    actions = torch.randint(2, (200, 9), generator=torch.Generator().manual_seed(4))
    together, _ = run(seeds, actions)
    envs = make_cartpole(9, 30)
    envs.reset(seeds)
    steps = [0] * 9
    random = np.random.default_rng(5)
    for _ in range(400):
        index = random.permutation(9)[: random.integers(1, 10)]
        index = torch.tensor([k for k in index if steps[k] < 200], dtype=torch.int64)
        before = all_numbers(envs)
        result = envs.step(actions[[steps[k] for k in index], index], index)
        rest = [k for k in range(9) if k not in index]
        assert torch.equal(all_numbers(envs)[rest], before[rest])
        for row, k in enumerate(index.tolist()):
            steps[k] += 1
            assert torch.equal(result.obs[row], together[steps[k], k])
    assert min(steps) > 100


def test_reset_of_some():
    envs = make_cartpole(4)
    envs.reset([1, 2, 3, 4])
    action = torch.ones(4, dtype=torch.int64)
    for _ in range(5):
        envs.step(action)
    fresh, before = make_cartpole(1).reset([7]), all_numbers(envs)
    assert torch.equal(envs.reset([7], torch.tensor([2])), fresh)
    assert torch.equal(all_numbers(envs)[[0, 1, 3]], before[[0, 1, 3]])
    assert envs.step(action).valid.all()


def test_a_step_waits_for_nothing(monkeypatch):
    """No value goes back to Python, nothing has a data-dependent size, and the number of operations stays small.

    As on GPUs, where a step is made of tensor operations.
    """
    set_compile_mode(monkeypatch, "off")

    envs = make_cartpole(8)
    envs.reset(range(8))
    for index in (None, torch.arange(3)):
        action = torch.zeros(8 if index is None else 3, dtype=torch.int64)
        with torch.autograd.profiler.profile() as profile:
            for _ in range(16):
                envs.step(action, index)
        names = {event.name.removeprefix("aten::") for event in profile.function_events}
        operations = [event for event in profile.function_events if event.cpu_parent is None]
        assert not {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select", "equal"} & names
        assert 16 * 20 < len(operations) < 16 * (300 if index is None else 320)


def test_all_tensors_are_on_the_device():
    """Meta tensors hold no data: a value that Python reads, or a tensor left on the CPU, would raise."""
    envs = make_cartpole(8, device="meta")
    for index in (None, torch.arange(3, device="meta")):
        count = 8 if index is None else 3
        assert envs.reset(range(count), index).device.type == "meta"
        for _ in range(10):
            result = envs.step(torch.zeros(count, dtype=torch.int64, device="meta"), index)
        assert all(field.device.type == "meta" and len(field) == count for field in result[:5])


def test_tensor_operations_give_the_same_numbers(monkeypatch):
    """Those that run on GPUs; velocities to rounding of sines and cosines, all else exactly."""
    actions = torch.randint(2, (60, 21), generator=torch.Generator().manual_seed(6))
    compiled, fields = run(list(range(21)), actions)
    set_compile_mode(monkeypatch, "off")
    on_tensors, other_fields = run(list(range(21)), actions)
    torch.testing.assert_close(compiled, on_tensors, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(a, b) for a, b in zip(fields, other_fields, strict=True))


def test_float64_inside():
    envs = make_envs("CartPole-v1", 2)
    assert envs.info.backend == "pgkit"
    assert envs.reset([0, 1]).dtype == torch.float32
    assert envs.state()["float64"].shape == (2, 4)


def test_wrong_shapes():
    envs = make_cartpole(3)
    envs.reset([1, 2, 3])
    with pytest.raises(PgkitError, match=r"action: expected shape \(3,\), got \(2,\)"):
        envs.step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(PgkitError, match=r"expected shape \(1,\), got \(1, 1\)"):
        envs.step(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0]))
    with pytest.raises(PgkitError, match=r"expected integers from 0 to 1, got \[-1, 7\]"):
        envs.step(torch.tensor([1, 7, -1]))
    with pytest.raises(PgkitError, match="expected 3 seeds, got 2"):
        envs.reset([1, 2])
    with pytest.raises(PgkitError, match=r"expected seeds from 0 to 2\*\*64 - 1, got \[-1\]"):
        envs.reset([-1], torch.tensor([1]))
