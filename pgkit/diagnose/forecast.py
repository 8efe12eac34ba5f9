"""How long a diagnosis will take, and what to leave out if that is too long."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pgkit.diagnose.play import open_player
from pgkit.diagnose.points import RunPoints
from pgkit.diagnose.scan import scan
from pgkit.diagnose.settings import Settings

ESTIMATORS, CURVATURE, INTERVENTIONS, DIRECTIONS = 3.0, 4.0, 4.0, 3.0
"""What the parts of a close look cost, in scans of the dearest point; measured on CartPole."""

LOOKED_AT = 3
"""Members that are looked at closely, at most."""


class Forecast(NamedTuple):
    """What a diagnosis costs.

    Attributes:
        points: how many are scanned.
        looks: how many of them are looked at closely.
        env_steps: about how many environment steps.
        seconds: about how long it takes.
    """

    points: int
    looks: int
    env_steps: float
    seconds: float

    def in_words(self) -> str:
        """One line; trials of a few seconds are wrong by a factor of two."""
        low, high = (_duration(self.seconds * factor) for factor in (0.6, 1.7))
        steps = f"about {self.env_steps / 1e6:,.0f} million environment steps"
        return f"{self.points} points, {self.looks} of them closely: {steps}, about {low} to {high}"


class Trial(NamedTuple):
    """Seconds and environment steps of one scan, at the first and at the last point of a member."""

    seconds: tuple[float, float]
    env_steps: tuple[float, float]


def run_trial(run: RunPoints, settings: Settings) -> Trial:
    """Scan one member's first and last point, which takes seconds; nothing is kept."""
    seconds, env_steps = [], []
    for shares in ((settings.shares[0],), (settings.shares[-1],)):
        point = run.at(shares)[0][0]
        started = time.perf_counter()
        with open_player(point.config, settings.seed) as player:
            env_steps.append(scan(point, player, settings).env_steps)
        seconds.append(time.perf_counter() - started)
    return Trial((seconds[0], seconds[1]), (env_steps[0], env_steps[1]))


def forecast(trial: Trial, members: Sequence[int], settings: Settings, workers: int) -> Forecast:
    """What the whole diagnosis costs, from a trial."""
    points = len(settings.shares) * len(members)
    looks = min(settings.critical, len(settings.shares)) * min(LOOKED_AT, len(members))
    per_look = ESTIMATORS + CURVATURE * settings.curvature
    per_look += INTERVENTIONS * settings.interventions + DIRECTIONS * settings.directions
    totals = [points * sum(pair) / 2 + looks * per_look * max(pair) for pair in (trial.seconds, trial.env_steps)]
    return Forecast(points, looks, totals[1], totals[0] / min(workers, points))


def fit_budget(
    trial: Trial, members: Sequence[int], settings: Settings, workers: int, budget: float
) -> tuple[Settings, list[tuple[str, str]]]:
    """Leave out what costs most until the forecast is within a number of seconds.

    Returns:
        The settings, and what they leave out, and why.
    """
    left_out = []
    for what, change in (
        ("curvature", {"curvature": False}),
        ("other optimizers' directions", {"directions": False}),
        ("interventions", {"interventions": False}),
        ("half of the copies", {"copies": 32}),
    ):
        if forecast(trial, members, settings, workers).seconds <= budget:
            break
        settings = replace(settings, **change)
        left_out.append((what, f"it would have taken longer than the {budget:g} seconds that --budget allows"))
    return settings, left_out


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
