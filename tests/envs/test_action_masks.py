"""Masks come with the observations that they belong to; wrong ones are refused in one line."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.masked_envs import LENGTH, MASKED
from torch import Tensor

from pgkit.envs import make_envs
from pgkit.envs.action_masks import MaskSource
from pgkit.envs.errors import EnvError, MalformedData

VECTORIZATIONS = ["sync", pytest.param("async", marks=pytest.mark.process)]


def allowed(obs: Tensor) -> Tensor:
    """The mask that belongs to a sign."""
    mask = torch.ones(len(obs), 4)
    mask[:, 2] = (obs[:, 0] > 0).float()
    mask[:, 3] = 0
    return mask


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
@pytest.mark.parametrize("place", ["info", "obs"])
def test_every_observation_has_its_mask(place: str, vectorization: Any) -> None:
    """Also the first of the next episode; where one is over, the environment allows nothing, and all is allowed."""
    envs = make_envs(MASKED, 5, kwargs={"place": place}, vectorization=vectorization)
    obs = envs.reset(range(5))
    assert envs.info.obs_dim == 1
    assert obs.shape == (5, 1 + 4)
    assert torch.equal(obs[:, 1:], allowed(obs))
    signs = set()
    for step in range(1, 9):
        transition = envs.step(torch.ones(5, dtype=torch.int64))
        over = step % (LENGTH + 1) == LENGTH
        assert bool(transition.terminated.all()) == over
        expected = torch.ones(5, 4) if over else allowed(transition.obs)
        assert torch.equal(transition.obs[:, 1:], expected)
        signs |= set(transition.obs[:, 0].tolist())
    assert signs == {1.0, -1.0}
    subset = envs.step(torch.tensor([1, 0]), torch.tensor([3, 1]))
    assert torch.equal(subset.obs[:, 1:], allowed(subset.obs))
    envs.close()


@pytest.mark.parametrize("place", ["info", "obs"])
def test_without_the_key_a_mask_in_info_is_left_and_one_in_observations_is_a_feature(place: str) -> None:
    envs = make_envs(MASKED, 2, kwargs={"place": place}, action_mask=False)
    assert envs.reset([0, 1]).shape == (2, envs.info.obs_dim) == (2, 1 if place == "info" else 5)


def test_environments_without_masks_have_features_only() -> None:
    assert make_envs(MASKED, 2, kwargs={"place": "none"}).reset([0, 1]).shape == (2, 1)
    assert make_envs("CartPole-v1", 2, backend="gymnasium").reset([0, 1]).shape == (2, 4)


def test_the_choices_of_all_components_stand_one_behind_the_other() -> None:
    obs = make_envs(MASKED, 3, kwargs={"actions": "multi"}).reset([0, 1, 2])
    assert obs.shape == (3, 1 + 4 + 3)
    assert torch.equal(obs[:, 1:5], allowed(obs))
    source = MaskSource((2, 3), False)
    mask = {"action_mask": (np.array([1, 0]), np.array([0, 1, 1]))}  # as Gymnasium's sample(mask=...) takes it
    assert source.read(None, mask).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
@pytest.mark.parametrize("place", ["info", "obs"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("empty", r"allows no action, expected at least one 1: \[0, 0, 0, 0\]"),
        ("shape", r"is \[1, [01], 0\], expected 4 numbers, each 0 or 1"),
        ("numbers", r"is \[2, 2, [02], 0\], expected 4 numbers, each 0 or 1"),
        ("missing", "is missing, expected 4 numbers, each 0 or 1"),
    ],
)
def test_wrong_masks_are_one_line(fault: str, message: str, place: str, vectorization: Any) -> None:
    envs = make_envs(MASKED, 2, kwargs={"place": place, "fault": fault}, vectorization=vectorization)
    envs.reset([7, 8])
    envs.step(torch.zeros(2, dtype=torch.int64))
    start = r"environment '.*Masked-v0': step\(\) of sub-environment 0 \(seed 7\) returned malformed data at step 2: "
    name = {"info": "info", "obs": "the observation"}[place]
    with pytest.raises(EnvError, match=rf"^{start}.*\Z") as error:
        envs.step(torch.zeros(2, dtype=torch.int64))
    assert "\n" not in str(error.value)
    if not (place == "obs" and fault == "missing"):  # a Dict without one of its entries is refused as any other is
        error.match(rf"{name}\['action_mask'\] {message}$")
    envs.close()


def test_a_component_without_a_choice_is_named() -> None:
    with pytest.raises(MalformedData, match="allows no action of component 1, expected at least one 1"):
        MaskSource((2, 3), False).read(None, {"action_mask": [1, 1, 0, 0, 0]})


@pytest.mark.parametrize("place", ["info", "obs"])
@pytest.mark.parametrize("actions", ["binary", "box"])
def test_masks_of_other_actions_are_refused(actions: str, place: str) -> None:
    space = {"binary": "MultiBinary", "box": "Box"}[actions]
    envs = make_envs(MASKED, 1, kwargs={"actions": actions, "place": place})
    expected = f"is for Discrete and MultiDiscrete actions, not {space}: env.action_mask=false ignores it"
    with pytest.raises(EnvError, match=expected) as error:
        envs.reset([0])
    assert "\n" not in str(error.value)
    envs = make_envs(MASKED, 1, kwargs={"actions": actions, "place": place}, action_mask=False)
    assert len(envs.reset([0])) == 1


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
@pytest.mark.parametrize("place", ["info", "obs"])
def test_masks_come_back_with_their_environments(place: str, vectorization: Any) -> None:
    first, second = (make_envs(MASKED, 3, kwargs={"place": place}, vectorization=vectorization) for _ in range(2))
    first.reset([1, 2, 3])
    second.reset([4, 5, 6])
    for _ in range(6):
        first.step(torch.ones(3, dtype=torch.int64))
    state = first.state()
    assert state is not None
    second.restore(state)
    for _ in range(5):
        pair = [envs.step(torch.ones(3, dtype=torch.int64)) for envs in (first, second)]
        assert torch.equal(pair[0].obs, pair[1].obs)
    first.close()
    second.close()
