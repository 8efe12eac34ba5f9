"""``epochs``, ``minibatches`` and ``target_kl``: what is refused in one line, and what an override drops."""

import warnings
from typing import Any

import pytest

from pgkit.config.load import load_config, parse_config, to_table
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError, PgkitWarning


def config(**changes: Any) -> TrainConfig:
    table = {"name": "x", "steps": 1000, "env": "CartPole-v1", "agent": "ppo", "optimizer": "adam"}
    return parse_config(table | {"rollout_steps": 8, "envs_per_member": 4} | changes)


def test_by_default_a_rollout_is_used_for_one_step() -> None:
    plain = config()
    assert (plain.epochs, plain.minibatches, plain.target_kl) == (1, 1, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minibatches": 5}, r"minibatches must divide rollout_steps \* envs_per_member = 8 \* 4 = 32 samples into"),
        ({"minibatches": 64}, "into equal parts, got 64"),
        ({"epochs": 0}, "epochs must be greater than or equal to 1, got 0"),
        ({"epochs": 2, "target_kl": 0.0}, "target_kl must be greater than 0"),
        ({"agent": "reinforce", "rollout_steps": None, "epochs": 3}, "epochs = 3 has no effect: agent 'reinforce' "),
        ({"agent": {"name": "ppo", "clip_range": 0.0}}, "agent.clip_range must be greater than 0"),
    ],
)
def test_what_cannot_be_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PgkitError, match=message) as error:
        config(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target_kl=0.01", "epochs=1", "minibatches=1"], "target_kl = 0.01 has no effect: with epochs = 1"),
        (
            ["agent.normalize_advantage=false", "agent.normalize_over=batch"],
            "agent.normalize_over = .batch. has no effect",
        ),
        (["batch_size=64"], "unknown key 'batch_size'; use minibatches, the number of parts"),
    ],
)
def test_overrides_without_effect_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(PgkitError, match=message):
        load_config("cartpole-ppo", overrides)


def test_words_of_other_libraries_are_taken() -> None:
    words = ["n_epochs=3", "num_minibatches=2", "clip_range=0.3", "clip_range_vf=0.5", "gae_lambda=0.9"]
    taken = load_config("cartpole-ppo", words)
    assert (taken.epochs, taken.minibatches) == (3, 2)
    assert {"clip_range": 0.3, "clip_range_vf": 0.5, "lam": 0.9}.items() <= taken.agent.items()


def test_an_agent_of_whole_episodes_drops_them() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        other = load_config("cartpole-ppo", ["agent=reinforce"])
    notes = [str(warning.message) for warning in caught if warning.category is PgkitWarning]
    assert "epochs = 4 dropped: agent reinforce collects whole episodes" in notes
    assert (other.epochs, other.minibatches, other.rollout_steps) == (1, 1, None)


def test_no_clipping_of_values_is_none_in_files() -> None:
    assert "clip_range_vf" not in to_table(load_config("cartpole-ppo"))["agent"]
    assert "clip_range_vf" not in to_table(load_config("cartpole-ppo", ["agent.clip_range_vf=none"]))["agent"]
