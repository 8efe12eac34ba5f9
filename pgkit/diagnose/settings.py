"""How much is measured, and where."""

import inspect
from dataclasses import dataclass, replace

from pgkit.config.tables import EnvConfig
from pgkit.diagnose.points import SHARES, Point
from pgkit.envs.make import resolve_backend
from pgkit.envs.registry import find_pgkit_env
from pgkit.errors import PgkitError

FEWER_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the budget, where environments are not cheap."""

MIN_UPDATES = 8
MAX_UPDATES = 64


@dataclass(frozen=True)
class Settings:
    """Sizes of the measurements.

    Attributes:
        shares: of the budget, where points are looked at.
        critical: how many points of a member get the expensive measurements.
        copies: M, copies of a point.
        budget_share: K updates are as many as use this share of the budget, between 8 and 64; with 0 they are left out.
        episodes: E of each comparison of returns, half of them in block A, half in block B.
        return_episodes: of the return J of a point.
        seed: of all random numbers.
        curvature: measure curvature at critical points.
        interventions: make the interventions there.
        directions: try other optimizers' directions there.
        from_saved: copies begin in the checkpoints' environments instead of burning in: what is measured is the run's
            actual next update, given the states of its N environments.
        networks: look at units and weights at every point; what the policy has left to choose is looked at anyway.
    """

    shares: tuple[float, ...] = SHARES
    critical: int = 3
    copies: int = 64
    budget_share: float = 0.02
    episodes: int = 20
    return_episodes: int = 100
    seed: int = 0
    curvature: bool = True
    interventions: bool = True
    directions: bool = True
    from_saved: bool = False
    networks: bool = True

    def with_half_of_the_copies(self) -> "Settings":
        """For what is tried in many ways, one after the other."""
        return replace(self, copies=(self.copies + 1) // 2)

    def updates(self, point: Point, steps_per_update: float) -> int:
        """K: updates that use the share of the budget; 0 if only single updates are wanted."""
        if self.budget_share == 0:
            return 0
        wanted = self.budget_share * point.config.steps / max(1.0, steps_per_update)
        return round(min(max(wanted, MIN_UPDATES), MAX_UPDATES))


def usual_settings(env: EnvConfig) -> Settings:
    """The usual sizes; smaller ones where a step of the environment costs more than one of the policy.

    Cheap are pgkit's environments whose step is written for one element, such as CartPole's; not LunarLander or those
    of other packages.
    """
    compiled = find_pgkit_env(env.id)
    backend = resolve_backend(env.id, env.kwargs, env.backend, env.vectorization, env.wrappers)
    if backend == "pgkit" and compiled is not None and not inspect.isclass(compiled.build):
        return Settings()
    return Settings(shares=FEWER_SHARES, critical=2, copies=32)


def parse_shares(text: str) -> tuple[float, ...]:
    """Shares of the budget from a list of percentages such as ``"0,5,50,100"``.

    Raises:
        PgkitError: it is something else.
    """
    try:
        shares = tuple(float(number) / 100 for number in text.split(","))
    except ValueError:
        shares = (-1.0,)
    if not all(0 <= share <= 1 for share in shares):
        raise PgkitError(f"--at takes percentages between 0 and 100, such as 0,5,50,100, got {text!r}")
    return shares
