"""Short runs in the environments of ``recorded_envs``, whose policies are far from where they began."""

from pathlib import Path

import pgkit
from pgkit.config.load import parse_config


def train_recorded(place: Path, actions: str, observations: str = "vector", normalized: bool = False) -> Path:
    """Train two members for a few large steps, so that their actions differ and reach the bounds; the run directory."""
    config = parse_config(
        {
            "name": "recorded",
            "seeds": 2,
            "steps": 80,
            "envs_per_member": 2,
            "env": {
                "id": "helpers.recorded_envs:Recorded-v0",
                "kwargs": {"actions": actions, "observations": observations},
                "normalize_observations": normalized,
            },
            "agent": "actor-critic",
            "policy": {"hidden": [8, 8]},
            "optimizer": {"name": "adam", "lr": 0.3},
            "evaluation": {"points": 2, "episodes": 1, "final_episodes": 1},
        }
    )
    directory = place / f"{actions}, {observations}, {normalized}"
    pgkit.train(config, directory)
    return directory
