"""The members of a worker that callbacks have stopped."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pgkit.training.population import Population


class StoppedMembers:
    """Remembers who is to leave training although there are steps left.

    Args:
        reasons: by member, of a resumed run.

    Attributes:
        reasons: by member.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons: dict[int, str] = dict(reasons)

    def add(self, stops: Mapping[int, str], parts: Sequence[Population]) -> Iterable[tuple[int, float]]:
        """Stop members, unless they are done anyway.

        Args:
            stops: reasons by member.
            parts: populations that hold all members.

        Returns:
            Members that are stopped now, and their environment steps.
        """
        added = []
        for part in parts if stops else ():
            rows = zip(part.members.tolist(), part.unfinished.tolist(), part.env_steps.tolist(), strict=True)
            for member, unfinished, steps in rows:
                if unfinished and member in stops and member not in self.reasons:
                    self.reasons[member] = stops[member]
                    added.append((member, steps))
        return added

    def going_on(self, population: Population) -> Tensor:
        """Bool ``(P,)``: the members that have steps left, have not failed, and have not been stopped."""
        going_on = population.unfinished
        if not self.reasons:
            return going_on
        stopped = [member in self.reasons for member in population.members.tolist()]
        return going_on & ~torch.tensor(stopped, dtype=torch.bool, device=going_on.device)
