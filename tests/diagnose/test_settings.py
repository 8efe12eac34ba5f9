"""The usual sizes of a diagnosis."""

import pytest

import pgkit
from pgkit.diagnose.settings import Settings, usual_settings


@pytest.mark.parametrize(
    ("config", "overrides", "copies"),
    [
        ("cartpole-actor-critic", [], 64),
        ("pendulum-ppo", [], 64),
        ("cartpole-actor-critic", ["env.backend=gymnasium"], 32),
        ("lunarlander-actor-critic", [], 32),
    ],
)
def test_where_steps_are_not_cheap_less_is_measured(config: str, overrides: list[str], copies: int) -> None:
    settings = usual_settings(pgkit.load_config(config, overrides).env)
    assert settings.copies == copies
    assert (settings == Settings()) == (copies == 64)
    assert len(settings.shares) >= 7
