"""Evenly spaced points of training at which something is due."""

from collections.abc import Sequence


class StepSchedule:
    """Evenly spaced points on every member's way, at multiples of ``spacing`` environment steps from ``first`` on.

    There are ``most`` of them, so that a last rollout longer than the spacing passes none beyond the budget.
    """

    def __init__(self, members: int, spacing: float, first: float, most: float = float("inf")) -> None:
        self.spacing, self.first, self.most = spacing, first, most
        self.passed = [0] * members

    def at(self, passed: int) -> float:
        """Where the next is, when so many have been passed."""
        return self.first + passed * self.spacing if passed < self.most else float("inf")

    def due(self, members: Sequence[int], env_steps: Sequence[float]) -> list[int]:
        """Rows of the members that have passed a mark since they were asked last."""
        rows: list[int] = []
        lowest = min(map(self.passed.__getitem__, members), default=0)
        if max(env_steps, default=0.0) < self.first + lowest * self.spacing:
            return rows  # as nearly always: nobody can have passed one
        for row, (member, steps) in enumerate(zip(members, env_steps, strict=True)):
            count = int(min((steps - self.first) // self.spacing + 1, self.most))
            if count > self.passed[member]:
                self.passed[member] = count
                rows.append(row)
        return rows
