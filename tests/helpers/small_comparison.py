"""A comparison that takes seconds: two optimizers, two agents, three learning rates, hundreds of environment steps."""

import subprocess
import sys
from pathlib import Path

TOML = """
question = "Which optimizer learns something in 600 steps?"
tier = "standard"
agents = ["actor-critic", "reinforce"]
optimizers = ["sgd", { name = "adam", beta2 = 0.9, label = "fast adam" }]
learning_rates = [1e-3, 1e-2, 1e-1]
tuning_seeds = 2
evaluation_seeds = [70, 71, 72]
steps = 600
envs_per_member = 2
policy = { hidden = [8] }
evaluation = { points = 4, episodes = 2, final_episodes = 3 }

[optimizer]
critic = { name = "adam", lr = 1e-2 }

[environments.CartPole-v1]
random_return = 22.2
reference_return = 500
threshold = 475

[environments.CartPole-v1.agents.actor-critic]
rollout_steps = 8
"""


def write_toml(directory: Path, text: str = TOML) -> Path:
    """The comparison's file in a directory."""
    path = directory / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def command(*words: str) -> list[str]:
    """``pgkit compare small.toml --no-figures ...`` in a process of its own; drawing takes longer than all else."""
    options = ["--workers", "2", "--quiet", "--no-figures"]
    return [sys.executable, "-m", "pgkit", "compare", "small.toml", *options, *words]


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in that directory."""
    return subprocess.run(command(*words), cwd=place, capture_output=True, text=True, check=False, timeout=300)


def tables(directory: Path) -> dict[str, bytes]:
    """All tables of a comparison, as they are on disk."""
    return {path.name: path.read_bytes() for path in sorted((directory / "tables").iterdir())}
