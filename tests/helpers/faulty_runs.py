"""Runs whose environments fail."""

from pathlib import Path
from typing import Any

from pgkit.config.load import parse_config
from pgkit.config.schema import TrainConfig
from pgkit.seeding import stream_seed

SEED = stream_seed(1, "env", 2)


CHOSEN = {"remainder": SEED % 10007}
"""Of ``Faulty-v0``: environment 2 of seed 1, the seventh of all, breaks."""


def config(fault: str, vectorization: str = "sync", **changes: Any) -> TrainConfig:
    """Three seeds; an environment of the second fails at its step 40 of 150."""
    env = {"id": "helpers.faulty_envs:Faulty-v0", "kwargs": CHOSEN | {"fault": fault}, "vectorization": vectorization}
    table: dict[str, Any] = {
        "name": "faulty",
        "seeds": 3,
        "steps": 600,
        "envs_per_member": 4,
        "rollout_steps": 8,
        "env": env | ({"timeout": 1.5} if vectorization == "async" else {}),
        "agent": {"name": "actor-critic"},
        "policy": {"hidden": [8]},
        "optimizer": {"name": "adam", "lr": 0.01},
        "evaluation": {"points": 0, "final_episodes": 3},
        "checkpoint_points": 10,
    }
    return parse_config(table | changes)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
