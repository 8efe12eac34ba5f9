"""Hand-made episodes in all three autoreset modes, compared with arrays written down by hand."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers import probe_envs

from pgkit.envs import make_envs, wrap_vector_env
from pgkit.errors import PgkitError

ID = "helpers.probe_envs:ProbeCounting-v0"

# Two environments, seeds 10 and 31 (so s = 0 and 1), seven steps. See probe_envs.Counting for the rule.
NEXT_STEP = {
    "obs": [
        [[0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2], [0, 1, 3], [0, 2, 0]],
        [[1, 0, 1], [1, 0, 2], [1, 0, 3], [1, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 3]],
    ],
    "reward": [[1, 2, 0, 11, 12, 13, 0], [101, 102, 103, 0, 111, 112, 113]],
    "terminated": [[0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0]],
    "truncated": [[0, 0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0, 0]],
    "valid": [[1, 1, 0, 1, 1, 1, 0], [1, 1, 1, 0, 1, 1, 1]],
}
AT_ONCE = {
    "obs": [
        [[0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2], [0, 2, 0], [0, 2, 1], [0, 2, 2]],
        [[1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 0]],
    ],
    "reward": [[1, 2, 11, 12, 13, 21, 22], [101, 102, 103, 111, 112, 113, 114]],
    "terminated": [[0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]],
    "truncated": [[0, 0, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0, 0]],
    "valid": [[1] * 7, [1] * 7],
    "final_obs": [
        [[0, 0, 1], [0, 0, 2], [0, 1, 1], [0, 1, 2], [0, 1, 3], [0, 2, 1], [0, 2, 2]],
        [[1, 0, 1], [1, 0, 2], [1, 0, 3], [1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 1, 4]],
    ],
}


def run(envs):
    """Seven steps of both environments, each field ``(K, T, ...)``."""
    first = envs.reset([10, 31])
    assert first.dtype == torch.float32
    assert first.tolist() == [[0, 0, 0], [1, 0, 0]]
    results = [envs.step(torch.tensor([0, 1])) for _ in range(7)]
    envs.close()
    assert results[0].reward.dtype == torch.float32
    assert all(flag.dtype == torch.bool for flag in results[0][2:5])
    fields = {}
    for name in results[0]._fields:
        columns = [getattr(result, name) for result in results]
        fields[name] = None if columns[0] is None else torch.stack(columns, 1).int().tolist()
    return fields


def check(fields, expected):
    assert fields == {"final_obs": None, **expected}


@pytest.mark.parametrize("vectorization", ["sync", pytest.param("async", marks=pytest.mark.process)])
@pytest.mark.parametrize("form", ["array", "dict", "tuple"])
def test_pgkit_resets_at_the_next_step(vectorization, form):
    envs = make_envs(ID, 2, kwargs={"form": form}, vectorization=vectorization)
    assert (envs.info.autoreset, envs.info.vectorization) == ("next_step", vectorization)
    check(run(envs), NEXT_STEP)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("form", ["array", "dict", "tuple"])
def test_sync_vector_env(mode, form):
    envs = wrap_vector_env(SyncVectorEnv([lambda: probe_envs.Counting(form)] * 2, autoreset_mode=mode))
    assert envs.info.autoreset == mode.name.lower()
    assert envs.info.vectorization == "sync"
    check(run(envs), NEXT_STEP if mode is AutoresetMode.NEXT_STEP else AT_ONCE)


@pytest.mark.process
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_async_vector_env(mode):
    envs = wrap_vector_env(AsyncVectorEnv([probe_envs.Counting] * 2, autoreset_mode=mode))
    assert envs.info.vectorization == "async"
    check(run(envs), NEXT_STEP if mode is AutoresetMode.NEXT_STEP else AT_ONCE)


def test_wrapped_without_copies():
    """Vector environments may return the same buffer again and again."""
    for mode in AutoresetMode:
        envs = wrap_vector_env(SyncVectorEnv([probe_envs.Counting] * 2, copy=False, autoreset_mode=mode))
        check(run(envs), NEXT_STEP if mode is AutoresetMode.NEXT_STEP else AT_ONCE)


def test_final_obs_as_one_array():
    """Not every vector environment puts the final observations into an array of objects."""

    class Batched(gymnasium.vector.VectorWrapper):
        def step(self, actions):
            obs, reward, terminated, truncated, info = super().step(actions)
            if "final_obs" in info:
                zero = np.zeros(3, dtype=np.float32)
                info["final_obs"] = np.stack([zero if x is None else x for x in info["final_obs"]])
            return obs, reward, terminated, truncated, info

    vector = SyncVectorEnv([probe_envs.Counting] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    check(run(wrap_vector_env(Batched(vector))), AT_ONCE)


def test_missing_final_obs_is_an_error():
    class Forgetful(gymnasium.vector.VectorWrapper):
        def step(self, actions):
            return (*super().step(actions)[:4], {})

    vector = SyncVectorEnv([probe_envs.Counting] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(PgkitError, match="no 'final_obs'"):
        run(wrap_vector_env(Forgetful(vector)))


def test_reward_and_flags_of_a_reset_step_are_cleared():
    """Whatever a vector environment reports for its reset steps, they are no steps."""

    class Loud(gymnasium.vector.VectorWrapper):
        def step(self, actions):
            obs, _, _, _, info = super().step(actions)
            return obs, np.ones(2), np.ones(2, dtype=bool), np.ones(2, dtype=bool), info

    envs = wrap_vector_env(Loud(SyncVectorEnv([probe_envs.Counting] * 2)))
    envs.reset([10, 31])
    results = [envs.step(torch.tensor([0, 0])) for _ in range(4)]
    assert [r.valid.tolist() for r in results] == [[True] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert [r.reward.tolist() for r in results] == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert not results[1].terminated.any()
    assert not results[1].truncated.any()


@pytest.mark.parametrize("declared", [None, "sometimes"])
def test_undeclared_autoreset_mode(declared):
    vector = SyncVectorEnv([probe_envs.Counting])
    vector.metadata["autoreset_mode"] = declared
    with pytest.raises(
        PgkitError, match=r"metadata\['autoreset_mode'\] is .* expected one of AutoresetMode\.NEXT_STEP"
    ):
        wrap_vector_env(vector)


@pytest.mark.process
def test_seeding_again_starts_again():
    for vectorization in ("sync", "async"):
        envs = make_envs(ID, 2, vectorization=vectorization)
        envs.reset([10, 31])
        envs.step(torch.tensor([0, 0]))
        assert envs.step(torch.tensor([0, 0])).terminated.tolist() == [True, False]
        assert envs.reset([31], torch.tensor([0])).tolist() == [[1, 0, 0]]  # no reset step is due any more
        result = envs.step(torch.tensor([0, 0]))
        envs.close()
        assert result.obs.tolist() == [[1, 0, 1], [1, 0, 3]]
        assert result.valid.all()
