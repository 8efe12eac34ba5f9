"""The measurements of a diagnosis, one by one, so that processes share them; each imports what is imported here."""

import time
from dataclasses import dataclass

from pgkit.diagnose.directions import compare_directions
from pgkit.diagnose.experiments import intervene
from pgkit.diagnose.look import look
from pgkit.diagnose.play import Player, open_player
from pgkit.diagnose.points import Point
from pgkit.diagnose.results import Measured
from pgkit.diagnose.scan import scan
from pgkit.diagnose.settings import Settings

PARTS = ("look", "interventions", "directions", "scan")
"""What is measured, the longest first."""


@dataclass(frozen=True)
class Task:
    """One measurement: the scan of a point or, after it, a close look.

    Attributes:
        point: the point.
        settings: sizes.
        part: what is measured: "scan", "look", "interventions" or "directions".
        scanned: what the scan has measured; None to scan.
    """

    point: Point
    settings: Settings
    part: str = "scan"
    scanned: Measured | None = None

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.point.label}-{self.point.env_steps:.0f}-{self.part}"

    @property
    def rank(self) -> tuple[int, float]:
        """Smaller for what takes longer, so that no process has a long measurement left when others have none."""
        length = 0.0 if self.scanned is None else self.scanned.value("return/mean")
        return PARTS.index(self.part), -length


def measure(task: Task) -> Measured:
    """Make one measurement."""
    started = time.perf_counter()
    with open_player(task.point.config, task.settings.seed) as player:
        measured = _measure_part(task, player)
    measured.seconds = time.perf_counter() - started
    return measured


def _measure_part(task: Task, player: Player) -> Measured:
    point, settings = task.point, task.settings
    if task.scanned is None:
        return scan(point, player, settings)
    if task.part == "look":
        return look(point, player, settings)
    if task.part == "interventions":
        return intervene(point, player, settings, task.scanned)
    return compare_directions(point, player, settings, task.scanned)


def close_looks(point: Point, scanned: Measured, settings: Settings) -> list[Task]:
    """What is measured at a critical point; where no update could be made, nothing is changed or compared."""
    parts = ["look"]
    if "post_update/K/half_share" in scanned.quantities:
        parts += ["interventions"] * settings.interventions + ["directions"] * settings.directions
    return [Task(point, settings, part, scanned) for part in parts]
