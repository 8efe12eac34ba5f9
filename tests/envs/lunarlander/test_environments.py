"""pgkit's LunarLander as environments of pgkit: subsets, states, masks, arguments."""

import pytest
import torch
from llvmlite import ir

from pgkit.compiler.jit import compile_function
from pgkit.compiler.signature import flatten
from pgkit.envs.lunarlander import LunarLander
from pgkit.envs.lunarlander.settings import Settings
from pgkit.envs.lunarlander.step import step_definition
from pgkit.envs.signature import EnvStepArguments
from pgkit.errors import PgkitError


def play(envs, actions, index=None):
    """Observations and rewards of all steps, ``(T, k, 9)``."""
    results = [envs.step(action, index) for action in actions]
    assert any((~result.valid).any() for result in results)
    return torch.stack([torch.cat([result.obs, result.reward[:, None]], 1) for result in results])


def random_actions(steps, count, seed=0):
    return torch.randint(0, 4, (steps, count), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [3, 8, 21])
def test_an_environment_is_the_same_alone_and_among_others(count):
    actions = random_actions(250, count)
    envs = LunarLander(count)
    envs.reset(range(count))
    together = play(envs, actions)
    for k in (0, count - 1):
        alone = LunarLander(1)
        alone.reset([k])
        assert torch.equal(play(alone, actions[:, k : k + 1])[:, 0], together[:, k])


def test_a_subset_steps_and_the_others_stay():
    envs = LunarLander(5)
    envs.reset(range(5))
    before = envs.state()["records"]
    index = torch.tensor([3, 0])
    actions = random_actions(200, 2)
    subset = play(envs, actions, index)
    after = envs.state()["records"]
    assert torch.equal(after[[1, 2, 4]], before[[1, 2, 4]])
    assert not torch.equal(after[index], before[index])
    other = LunarLander(2)
    other.reset([3, 0])
    assert torch.equal(play(other, actions), subset)


def test_a_restored_state_goes_on_to_the_bit():
    settings = {"enable_wind": True, "max_episode_steps": 70}
    envs = LunarLander(3, **settings)
    envs.reset([5, 6, 7])
    play(envs, random_actions(100, 3))
    state = {name: tensor.clone() for name, tensor in envs.state().items()}
    expected = play(envs, random_actions(200, 3, seed=1))
    other = LunarLander(3, **settings)
    other.restore(state)
    assert torch.equal(play(other, random_actions(200, 3, seed=1)), expected)
    part = LunarLander(3, **settings)
    part.reset([0, 1, 2])
    part.restore({"records": state["records"][2:]}, torch.tensor([1]))
    assert torch.equal(play(part, random_actions(200, 3, seed=1)[:, 2:], torch.tensor([1])), expected[:, 2:])


def test_environments_that_do_not_run_are_left_alone():
    """The compiled step with a mask: nothing is written for the others, and those that run do not notice."""
    count = 37
    kernel = compile_function(step_definition(Settings())(ir.Module()))
    envs = LunarLander(count)
    envs.reset(range(count))
    before = envs.state()["records"]
    running = torch.arange(count) % 3 != 1
    action = random_actions(1, count)[0]
    obs = torch.full((count, 8), 7.0)
    reward = torch.full((count,), 7.0)
    flags = torch.ones(3, count, dtype=torch.bool)
    (records,) = envs.kernel.state
    addresses = [tensor.data_ptr() for tensor in (running, action, obs, reward, *flags, records)]
    kernel(*flatten(EnvStepArguments(count, *addresses[:-1], state=(addresses[-1],))))
    after = envs.state()["records"]
    assert torch.equal(after[~running], before[~running])
    assert (obs[~running] == 7.0).all()
    assert (reward[~running] == 7.0).all()
    assert flags[:, ~running].all()
    envs.restore({"records": before})
    expected = envs.step(action)
    assert torch.equal(obs[running], expected.obs[running])
    assert torch.equal(reward[running], expected.reward[running])
    assert torch.equal(after[running], envs.state()["records"][running])


def test_actions_that_are_no_numbers_fire_nothing():
    results = []
    for action in ([[float("nan"), float("nan")]], [[0.0, 0.0]]):
        envs = LunarLander(1, continuous=True)
        envs.reset([1])
        results.append(envs.step(torch.tensor(action)).obs)
    assert torch.equal(*results)
    assert results[0].isfinite().all()


def test_arguments_are_checked():
    with pytest.raises(PgkitError, match=r"gravity has to be between -12 and 0, not 1\.0"):
        LunarLander(1, gravity=1.0)
    with pytest.warns(UserWarning, match="wind_power value is recommended"):
        LunarLander(1, wind_power=25.0)
    with pytest.warns(UserWarning, match="turbulence_power value is recommended"):
        LunarLander(1, turbulence_power=-1.0)
    envs = LunarLander(2)
    with pytest.raises(PgkitError, match="call reset"):
        envs.step(torch.tensor([0, 0]))
    envs.reset([0, 1])
    with pytest.raises(PgkitError, match=r"expected integers from 0 to 3, got \[4\]"):
        envs.step(torch.tensor([0, 4]))
    with pytest.raises(PgkitError, match="expected shape"):
        envs.step(torch.zeros(2, 2))
