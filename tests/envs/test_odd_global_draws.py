"""An environment that draws from the generators of the process draws numbers of its own, which its seed decides."""

import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from helpers.env_streams import numbers
from helpers.odd_envs import GLOBAL_DRAWS, odd_id

from pgkit.envs import make_envs
from pgkit.envs.generators import GlobalState

# ruff: noqa: NPY002 -- NumPy's old generator is what this is about

VECTORIZATIONS: list[Any] = ["sync", pytest.param("async", marks=pytest.mark.process)]
SEEDS = [2**63 + 11, 5, 2**40, 7]


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def run(
    kwargs: dict[str, str], vectorization: Any = "sync", seeds: list[int] = SEEDS, steps: int = 130
) -> torch.Tensor:
    """All that the environments report, ``(steps + 1, K, 2)``, of more steps than are checked."""
    envs = make_envs(odd_id("DrawsGlobally"), len(seeds), kwargs=kwargs, vectorization=vectorization)
    rows = [envs.reset(seeds)]
    rows += [numbers(envs.step(torch.zeros(len(seeds), dtype=torch.int64)))[:, :2] for _ in range(130)]
    envs.close()
    return torch.stack(rows)


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
@pytest.mark.parametrize("source", GLOBAL_DRAWS)
def test_no_two_environments_draw_the_same(source: str, vectorization: str) -> None:
    """Though two workers have the same generators after they were forked."""
    drawn = run({"source": source}, vectorization)[:, :, 0]
    for k in range(4):
        assert not torch.isin(drawn[:, k], drawn[:, :k]).any()
    assert len(drawn.unique()) > 0.99 * drawn.numel()


@pytest.mark.parametrize("where", ["everywhere", "reset", "step"])
@pytest.mark.parametrize("source", GLOBAL_DRAWS)
def test_the_seed_decides(source: str, where: str) -> None:
    """Whatever was drawn before in this process, and whichever environments step beside it."""
    kwargs = {"source": source, "where": where}
    together = run(kwargs)
    random.random(), np.random.standard_normal(), torch.rand(3)
    assert torch.equal(run(kwargs), together)
    assert torch.equal(run(kwargs, seeds=[SEEDS[2], SEEDS[1]]), together[:, [2, 1]])
    assert not torch.equal(together[:, 0], together[:, 1])


@pytest.mark.process
@pytest.mark.parametrize("source", ["numpy", "random"])
def test_workers_draw_what_one_process_draws(source: str) -> None:
    assert torch.equal(run({"source": source}, "async"), run({"source": source}))


@pytest.mark.parametrize("where", ["everywhere", "constructor"])
def test_constructors_draw_by_the_number_of_the_environment(where: str) -> None:
    kwargs = {"source": "numpy", "where": where}
    first = run(kwargs)
    np.random.standard_normal()
    assert torch.equal(run(kwargs), first)
    assert len(first[0, :, 0].unique()) == 4


@pytest.mark.parametrize("source", GLOBAL_DRAWS)
def test_generators_of_the_process_are_left_as_they_were(source: str) -> None:
    np.random.standard_normal()  # of which NumPy draws two, and keeps one
    before = GlobalState.current()
    run({"source": source})
    assert GlobalState.current().equals(before)
