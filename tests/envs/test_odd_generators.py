"""Whatever an environment has for a random generator, and whatever seeds that takes: it trains."""

from pathlib import Path

import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from helpers.env_streams import numbers
from helpers.odd_envs import GENERATORS, OLD_GENERATORS, OldSeed, odd_config, odd_id

from pgkit.envs import make_envs, wrap_vector_env
from pgkit.envs.make import resume_problem
from pgkit.envs.seeding import fold_seed
from pgkit.runs.checkpoint import load_latest
from pgkit.training.train import train

SEEDS = [2**63 + 11, 5, 2**40]


@pytest.mark.parametrize("kind", [*GENERATORS, None])
def test_any_object_may_stand_for_the_generator(kind: str | None, tmp_path: Path) -> None:
    """The run is inexact to resume, no more."""
    config = odd_config("OtherGenerator", kwargs={"kind": kind}) if kind else odd_config("NoGenerator")
    result = train(config, tmp_path / "run")
    assert not result.table[0]["failed"]
    assert load_latest(tmp_path / "run" / "checkpoints")["workers"][0]["parts"][0]["envs"] is None


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("OtherGenerator", {"kind": "RandomState"}, "has no numpy.random.Generator as np_random"),
        ("OtherGenerator", {"kind": "module"}, "has no numpy.random.Generator as np_random"),
        ("OtherGenerator", {"kind": "not JSON"}, "failed in a trial: "),
        ("NoGenerator", {}, "has no numpy.random.Generator as np_random"),
    ],
)
def test_why_it_is_inexact(name: str, kwargs: dict[str, str], expected: str) -> None:
    problem = resume_problem(odd_id(name), kwargs=kwargs)
    assert problem is not None
    assert expected in problem


@pytest.mark.parametrize("generator", OLD_GENERATORS)
def test_old_generators_get_seeds_that_they_take(generator: str) -> None:
    envs = make_envs(odd_id("OldSeed"), 3, kwargs={"generator": generator})
    obs = envs.reset(SEEDS)
    expected = [OLD_GENERATORS[generator](fold_seed(seed)).uniform() for seed in SEEDS]
    assert obs[:, 0].tolist() == torch.tensor(expected).tolist()
    assert fold_seed(5) == 5


def test_environments_that_take_64_bits_get_them() -> None:
    obs = make_envs(odd_id("Plain"), 1).reset([2**63 + 11])
    assert obs[0, 0] != make_envs(odd_id("Plain"), 1).reset([fold_seed(2**63 + 11)])[0, 0]


def test_old_generators_train(tmp_path: Path) -> None:
    assert not train(odd_config("OldSeed"), tmp_path / "run").table[0]["failed"]


def test_vector_environments_of_old_generators_are_functions_of_their_seeds() -> None:
    """As the same environments in pgkit's own loop."""
    vector = wrap_vector_env(SyncVectorEnv([OldSeed] * 3))
    envs = make_envs(odd_id("OldSeed"), 3)
    assert torch.equal(vector.reset(SEEDS), envs.reset(SEEDS))
    action = torch.zeros(3, dtype=torch.int64)
    steps = [(vector.step(action), envs.step(action)) for _ in range(8)]
    assert all(torch.equal(numbers(one), numbers(other)) for one, other in steps)


def test_an_error_of_a_reset_that_is_not_the_seeds_is_shown() -> None:
    envs = make_envs(odd_id("OldSeed"), 1, kwargs={"generator": "no such"})
    with pytest.raises(Exception, match="raised KeyError: 'no such'"):
        envs.reset([2**63])
