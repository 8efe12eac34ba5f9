"""Callbacks that note what they see, disturb what they can, stop, or fail."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pgkit.callbacks import EvaluationView, Stop


class Notes:
    """Notes every call."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.calls: list[tuple[str, Any]] = []

    def on_start(self, view: Any) -> None:
        self.calls.append(("on_start", view))

    def on_rollout(self, view: Any) -> None:
        self.calls.append(("on_rollout", view))

    def on_update(self, view: Any) -> None:
        self.calls.append(("on_update", view))

    def on_log(self, view: Any) -> None:
        self.calls.append(("on_log", view))

    def on_evaluation(self, view: Any) -> None:
        self.calls.append(("on_evaluation", view))

    def on_end(self, view: Any) -> None:
        self.calls.append(("on_end", view))

    def of(self, moment: str) -> list[Any]:
        """What was seen at one moment."""
        return [view for name, view in self.calls if name == moment]


class Vandal(Notes):
    """Writes into everything that it gets, and into what the process computes with."""

    def _spoil(self, view: Any) -> None:
        for value in vars(view).values():
            for leaf in (
                value.values() if isinstance(value, dict) else [value, *getattr(value, "__dict__", {}).values()]
            ):
                if isinstance(leaf, torch.Tensor):
                    leaf.zero_()
            if isinstance(value, dict):
                value.clear()
        torch.manual_seed(0)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 -- the generator that everybody shares

    on_start = on_rollout = on_update = on_log = on_evaluation = on_end = _spoil


class StopsAt:
    """Stops one member, or all, once an update of any member is so late."""

    def __init__(self, env_steps: float, member: int | None = None) -> None:
        self.env_steps = env_steps
        self.member = member

    def on_evaluation(self, view: EvaluationView) -> Stop | None:
        return Stop("late enough", self.member) if view.env_steps >= self.env_steps else None


class Raises:
    """Raises at one moment, in one of its forms."""

    def __init__(self, moment: str, error: BaseException) -> None:
        self.error = error
        setattr(self, moment, self._raise)

    def _raise(self, view: Any) -> None:
        raise self.error


class WritesFile:
    """Leaves a file with the status of the run's end."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_end(self, view: Any) -> None:
        Path(self.path).write_text(view.status, encoding="utf-8")
