"""What a landscape holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgkit.diagnose.results import Quantity, Row
from pgkit.plots.page import Drawing

FORMAT = 1


@dataclass(frozen=True)
class Landscape:
    """Lines, a path and a plane around one policy.

    Attributes:
        run: directory of the run.
        member: label of the member.
        env_steps: of the policy.
        share: of the budget, in [0, 1].
        settings: what was asked for.
        words: sentences by what they are about: ``policy``, ``lines``, ``path`` and ``plane``.
        quantities: ``return/mean``, ``return/random``, ``cliff/alpha``, ``cliff/random_share``, ``path/barrier`` and
            ``update/length``, as far as they were measured.
        tables: ``lines``, ``paths``, ``planes`` and ``trajectory``; every row has ``member``, ``label`` and
            ``env_steps``.
        figures: drawn, with captions.
        not_done: what is missing and why, each ``(what, why)``.
        cost: ``env_steps`` and ``seconds``.
        versions: of pgkit, torch, ...
    """

    run: str
    member: str
    env_steps: float
    share: float
    settings: Mapping[str, Any]
    words: Mapping[str, str] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    figures: Sequence[Drawing] = ()
    not_done: Sequence[tuple[str, str]] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
