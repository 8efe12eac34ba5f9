"""Environment k of a population is the same environment alone: bit for bit, in every backend."""

import multiprocessing

import gymnasium
import pytest
import torch
from helpers.env_streams import CASES, NOISE, SEEDS, actions_for, make, numbers

from pgkit.envs import make_envs
from pgkit.envs.errors import EnvError
from pgkit.errors import PgkitError


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.process) if name.endswith("async") else name for name in CASES]
)
def case(request):
    if "envpool" in request.param:
        pytest.importorskip("envpool")
    return CASES[request.param]


def run(case, seeds, length=150):
    """``(steps, K, D + 4)``: all that the environments report."""
    envs = make(case, len(seeds))
    first = envs.reset(seeds)
    rows = [numbers(envs.step(action)) for action in actions_for(seeds, length)]
    envs.close()
    assert torch.equal(rows[0][:, :0], first[:, :0])
    return torch.stack(rows)


def test_alone_is_together(case):
    together = run(case, SEEDS)
    assert (together[..., -1] == 0).sum() > 0  # there were resets
    for members in ([0], [3, 1], [4, 2, 0]):
        assert torch.equal(run(case, [SEEDS[k] for k in members]), together[:, members])
    assert torch.equal(run(case, SEEDS), together)


def test_subsets(case):
    """Environments step in groups that change, at different speeds, and see what they see when all step."""
    together = run(case, SEEDS, 100)
    envs = make(case, 5)
    envs.reset(SEEDS)
    actions = actions_for(SEEDS, 100)
    steps = torch.zeros(5, dtype=torch.int64)
    generator = torch.Generator().manual_seed(8)
    while steps.min() < 60:
        index = torch.randperm(5, generator=generator)[: torch.randint(1, 6, (1,), generator=generator)]
        index = index[steps[index] < 100]
        result = envs.step(actions[steps[index], index], index)
        assert torch.equal(numbers(result), together[steps[index], index])
        steps[index] += 1
    envs.close()


def test_seeding_some_of_them(case):
    """Environments seeded in the middle of the run start like fresh ones; the others go on."""
    together, fresh = run(case, SEEDS, 60), run(case, [77, 99], 30)
    envs = make(case, 5)
    envs.reset(SEEDS)
    actions, others = actions_for(SEEDS, 60), actions_for([77, 99], 30)
    for t in range(30):
        envs.step(actions[t])
    index, rest = torch.tensor([3, 0]), torch.tensor([1, 2, 4])
    first = envs.reset([77, 99], index)
    single = make(case, 2)
    assert torch.equal(first, single.reset([77, 99]))
    single.close()
    for t in range(30):
        action = actions[30 + t].clone()
        action[index] = others[t]
        rows = numbers(envs.step(action))
        assert torch.equal(rows[index], fresh[t])
        assert torch.equal(rows[rest], together[30 + t, rest])
    envs.close()


def test_seeding_right_after_the_end(case):
    """No reset step is due any more, and the new episode is that of the seed."""
    envs = make(case, 3)
    envs.reset([1, 2, 3])
    for action in actions_for([1, 2, 3], 200):
        result = envs.step(action)
        over = torch.nonzero(result.terminated | result.truncated).flatten()
        if len(over):
            break
    assert len(over)
    envs.reset([77] * len(over), over)
    fresh = run(case, [77], 1)
    result = envs.step(actions_for([77], 1)[0].expand(len(over)).contiguous(), over)
    envs.close()
    assert result.valid.all()
    assert torch.equal(numbers(result), fresh[0].expand(len(over), -1))


def test_seeds_matter(case):
    envs = make(case, 3)
    obs = envs.reset([1, 2, 2**62 + 1])
    envs.close()
    assert len(obs.unique(dim=0)) == 3


def test_stepping_before_seeding_is_an_error(case):
    envs = make(case, 2)
    with pytest.raises((PgkitError, RuntimeError, gymnasium.error.ResetNeeded), match=r"reset"):
        envs.step(torch.tensor([0, 1]))
    envs.close()


def test_results_belong_to_the_caller(case):
    envs = make(case, 2)
    kept = [envs.reset([1, 2]), *envs.step(torch.tensor([0, 1]))[:5]]
    copies = [tensor.clone() for tensor in kept]
    for _ in range(5):
        envs.step(torch.tensor([1, 0]))
    envs.close()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.process
def test_async_equals_sync():
    for env_id in (NOISE, "helpers.probe_envs:ProbeLimited-v0"):
        assert torch.equal(run({"env_id": env_id}, SEEDS), run({"env_id": env_id, "vectorization": "async"}, SEEDS))


@pytest.mark.process
def test_errors_in_workers_reach_the_parent():
    arguments = {"kwargs": {"crash_at": 2}, "vectorization": "async"}
    envs = make_envs("helpers.probe_envs:ProbeCounting-v0", 3, **arguments)
    envs.reset([1, 2, 3])
    envs.step(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(EnvError, match="ArithmeticError: crashed on purpose"):
        envs.step(torch.zeros(3, dtype=torch.int64))
    envs.close()


@pytest.mark.process
def test_closing_ends_the_workers():
    before = set(multiprocessing.active_children())
    envs = make_envs(NOISE, 4, vectorization="async")
    workers = set(multiprocessing.active_children()) - before
    assert workers
    envs.close()
    envs.close()
    assert not workers & set(multiprocessing.active_children())


@pytest.mark.process
def test_a_killed_worker_is_reported():
    before = set(multiprocessing.active_children())
    envs = make_envs(NOISE, 2, vectorization="async")
    envs.reset([1, 2])
    for worker in set(multiprocessing.active_children()) - before:
        worker.kill()
        worker.join()
    with pytest.raises(
        EnvError, match=r"ProbeNoise-v0': the worker process of sub-environments? 0 .*died \(signal 9\)"
    ):
        envs.step(torch.zeros(2, dtype=torch.int64))
    envs.close()
