"""A search that takes seconds: tiny networks, hundreds of environment steps."""

from pathlib import Path

TOML = """
steps = 600
envs_per_member = 2
rollout_steps = 8

[env]
id = "CartPole-v1"

[agent]
name = "actor-critic"

[policy]
hidden = [8]

[optimizer]
name = "adam"
lr = 3e-3

[evaluation]
points = 4
episodes = 2
final_episodes = 3
"""

SPACE = ("optimizer.lr=1e-4:1e-1:log", "optimizer.name=adam,rmsprop")
"""All trials of it can share a population."""


def write_toml(directory: Path, text: str = TOML) -> Path:
    """The configuration's file in a directory."""
    path = directory / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


SETTINGS = {"workers": 1, "population": 4, "tuning_seeds": 2, "report_seeds": 3}
"""Of :func:`pgkit.tune.search`, and with two workers these words of ``pgkit tune``."""

WORDS = f"tune small.toml --space {SPACE[0]} --space {SPACE[1]} --quiet " + " ".join(
    f"--{name.replace('_', '-')} {number}" for name, number in {**SETTINGS, "workers": 2}.items()
)
