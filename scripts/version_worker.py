"""Train with one version of pgkit: what same_bits.py and bench_versions.py run with the Python of each version.

    python version_worker.py train DIRECTORY "CONFIG [KEY=VALUE ...]" ...   # one population, one configuration for each
    python version_worker.py bench CONFIG [KEY=VALUE ...]                   # the same training in every turn

Only the public API of pgkit is used, and both the old and the new name where it was renamed. Importing this module
registers environments with action spaces that no environment of Gymnasium has: ``version_worker:ProbeMultiBinary-v0``.
"""

import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from bench_turns import serve
from gymnasium import spaces

ACTION_SPACES: dict[str, "spaces.Space[Any]"] = {
    "MultiDiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "MultiBinary": spaces.MultiBinary(3),
}


class Probe(gymnasium.Env[Any, Any]):
    """Three random signs are observed; each component of the action earns its sign times its value.

    An episode ends with probability 0.1 after each step, and is truncated after 20.
    """

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, actions: str) -> None:
        self.action_space = ACTION_SPACES[actions]
        self._signs = np.ones(3, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw new signs."""
        super().reset(seed=seed)
        self._draw()
        return self._signs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pay for the action, then draw new signs."""
        reward = float(self._signs @ np.asarray(action))
        self._draw()
        return self._signs, reward, bool(self.np_random.uniform() < 0.1), False, {}

    def _draw(self) -> None:
        self._signs = self.np_random.choice([-1.0, 1.0], size=3).astype(np.float32)


for _name in ACTION_SPACES:
    gymnasium.register(f"Probe{_name}-v0", Probe, max_episode_steps=20, kwargs={"actions": _name})


def expand(config: str, *overrides: str) -> list[Any]:
    """One configuration for each seed; the function that does this has two names."""
    import pgkit

    expand_seeds = getattr(pgkit, "expand_seeds", None) or pgkit.members
    return list(expand_seeds(pgkit.load_config(config, list(overrides))))


def train(directory: str, *members: str) -> None:
    """Train members of different configurations as one population, and record the run."""
    import pgkit

    configs = [config for words in members for config in expand(*words.split())]
    pgkit.train(configs, Path(directory))


def bench(config: str, *overrides: str) -> None:
    """Train anew in each turn: the same numbers every time, so that turns and versions do the same work.

    The clock runs from the first to the last report of steps: building the population, the first updates (which
    are captured) and the final evaluation are not measured. The first training, before any turn, warms up.
    """
    import pgkit

    configs = expand(config, *overrides)
    reports: list[tuple[float, float]] = []

    def advance() -> int:
        reports.clear()
        pgkit.train(configs, on_steps=lambda steps: reports.append((time.perf_counter(), steps)))
        return int(reports[-1][1])

    def measured() -> dict[str, float]:
        (start, first), (end, last) = reports[0], reports[-1]
        return {"steps": last - first, "seconds": end - start}

    serve(advance, measured)


if __name__ == "__main__":
    kinds = {"train": train, "bench": bench}
    if len(sys.argv) < 2 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    kinds[sys.argv[1]](*sys.argv[2:])
