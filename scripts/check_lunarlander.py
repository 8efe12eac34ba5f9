"""Play LunarLander in pgkit's own code and in Gymnasium side by side, and count steps that differ in any bit.

python scripts/check_lunarlander.py --episodes 5000            # all policies and settings, about two minutes
python scripts/check_lunarlander.py --episodes 200 --lanes 8   # with another vector width

Each environment gets the same seed and the same actions in both, for several episodes in one random stream, so that
resets are compared, too. Compared are observations and rewards as float32, and both flags. The script exits with 1 if
anything differs. It needs ``gymnasium[box2d]``.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.envs.box2d.lunar_lander import heuristic
from rich.progress import Progress

from pgkit.envs.lunarlander import LunarLander, step

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "continuous": {"continuous": True},
    "wind": {"enable_wind": True},
    "continuous, strong wind": {
        "continuous": True,
        "enable_wind": True,
        "wind_power": 20.0,
        "turbulence_power": 2.0,
    },
    "gravity -3": {"gravity": -3.0},
    "gravity -11.9": {"gravity": -11.9},
    "250 steps": {"max_episode_steps": 250},
}
ENVS = 32
CHUNK = 10
"""Steps for which a persistent policy repeats an action."""


class Player(NamedTuple):
    """One environment of Gymnasium, and what its policy knows."""

    env: Any
    number: int
    rng: np.random.Generator
    continuous: bool

    def random(self) -> Any:
        """A random action; continuous ones also beyond their bounds."""
        if self.continuous:
            return self.rng.uniform(-1.5, 1.5, 2).astype(np.float32)
        return int(self.rng.integers(4))

    def constant(self, number: int) -> Any:
        """One of four actions; continuous ones fire the same engines."""
        if self.continuous:
            return np.array([(-1, 0), (-1, -0.8), (0.3, 0), (-1, 0.8)][number], np.float32)
        return number

    def heuristic(self, obs: np.ndarray) -> Any:
        """Gymnasium's own policy, which usually lands."""
        action = heuristic(self.env.unwrapped, obs)
        return np.asarray(action, np.float32) if self.continuous else int(action)


def _persistent(player: Player, obs: np.ndarray, step: int) -> Any:
    return player.constant((player.number * 7 + step // CHUNK * (player.number + 3)) % 4)


def _hopping(player: Player, obs: np.ndarray, step: int) -> Any:
    """Land, and fire the main engine for a moment whenever both legs stand on the ground."""
    return player.constant(2) if obs[6] and obs[7] and step % 40 < 6 else player.heuristic(obs)


POLICIES: dict[str, Callable[[Player, np.ndarray, int], Any]] = {
    "random": lambda player, obs, step: player.random(),
    "heuristic": lambda player, obs, step: player.heuristic(obs),
    "constant": lambda player, obs, step: player.constant(player.number % 4),
    "30% random": lambda player, obs, step: player.random() if player.rng.random() < 0.3 else player.heuristic(obs),
    "persistent": _persistent,
    "hopping": _hopping,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first environment (default: %(default)s)")
    parser.add_argument("--lanes", type=int, help="environments in one vector (default: pgkit's)")
    arguments = parser.parse_args()
    if arguments.lanes:
        step.LANES = arguments.lanes
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    cases = [(setting, policy) for setting in SETTINGS for policy in POLICIES]
    each = -(-arguments.episodes // len(cases))
    totals: Counter[str] = Counter()
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("episodes", total=each * len(cases))
        for number, (setting, policy) in enumerate(cases):
            seed = arguments.seed + 1000 * number
            counts = compare(SETTINGS[setting], POLICIES[policy], each, seed, lambda: progress.advance(task))
            print(f"{setting:24}{policy:12}{describe(counts)}", flush=True)
            totals += counts
    print(f"{'all':36}{describe(totals)}")
    return 1 if totals["different"] else 0


def describe(counts: Counter[str]) -> str:
    """One line: what was played, how episodes ended, what differs."""
    outcomes = ", ".join(f"{name} {counts[name]}" for name in ("landed", "crashed", "outside", "truncated"))
    return f"{counts['episodes']:6,} episodes {counts['steps']:9,} steps  {outcomes}  different: {counts['different']}"


def compare(
    settings: dict[str, Any],
    policy: Callable[[Player, np.ndarray, int], Any],
    episodes: int,
    seed: int,
    on_episode: Callable[[], None],
) -> Counter[str]:
    """Play until enough episodes have ended."""
    counts: Counter[str] = Counter()
    continuous = settings.get("continuous", False)
    envs = [gymnasium.make("LunarLander-v3", disable_env_checker=True, **settings) for _ in range(ENVS)]
    players = [Player(env, k, np.random.default_rng([seed, k]), continuous) for k, env in enumerate(envs)]
    observations = [env.reset(seed=seed + k)[0] for k, env in enumerate(envs)]
    lander = LunarLander(ENVS, **settings)
    counts["different"] += _different(lander.reset(range(seed, seed + ENVS)), observations)
    over = [False] * ENVS
    steps = [0] * ENVS
    while counts["episodes"] < episodes:
        actions = [policy(player, obs, step) for player, obs, step in zip(players, observations, steps, strict=True)]
        transition = lander.step(torch.from_numpy(np.array(actions)))
        flags = torch.stack(transition[2:4]).T.tolist()
        for k, env in enumerate(envs):
            if over[k]:
                observations[k], reward, terminated, truncated = env.reset()[0], 0.0, False, False
                steps[k] = 0
            else:
                observations[k], reward, terminated, truncated, _ = env.step(actions[k])
                steps[k] += 1
                counts["steps"] += 1
            is_same = np.float32(reward) == transition.reward[k].item() and flags[k] == [terminated, truncated]
            counts["different"] += not (is_same and bool(transition.valid[k]) != over[k])
            over[k] = terminated or truncated
            if over[k]:
                counts["episodes"] += 1
                counts[_outcome(observations[k], reward, terminated)] += 1
                on_episode()
        counts["different"] += _different(transition.obs, observations)
    for env in envs:
        env.close()
    return counts


def _different(obs: torch.Tensor, observations: list[np.ndarray]) -> int:
    """Observations that differ in any bit."""
    return int((obs.numpy().view(np.uint32) != np.stack(observations).view(np.uint32)).any(axis=1).sum())


def _outcome(obs: np.ndarray, reward: float, terminated: bool) -> str:
    if not terminated:
        return "truncated"
    if reward == 100:
        return "landed"
    return "outside" if abs(obs[0]) >= 1 else "crashed"


if __name__ == "__main__":
    sys.exit(main())
