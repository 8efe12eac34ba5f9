"""What a reproduced study is: its plans, its claims, what was read of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgkit.compare.reproduction.rules import Rule


@dataclass(frozen=True)
class Claim:
    """A claim of a study, and the rule that judges it.

    Attributes:
        name: of its rows in tables.
        text: what the study says.
        source: where it says so.
        rule: the rule in words, with its thresholds.
        judge: the rule.
    """

    name: str
    text: str
    source: str
    rule: str
    judge: Rule


@dataclass(frozen=True)
class Study:
    """A published study that pgkit can run again.

    Attributes:
        name: on the command line.
        title: with authors, year and number.
        linear: its plan: name of a shipped comparison, or a path.
        log: the same question asked our way, likewise.
        span: the lowest and the highest learning rate of the study.
        claims: in the order of the page.
        groups: what the arms are: {group: arms}.
        momentum: the arm with momentum, and the one without.
        sources: what was read: (where, what it says).
        differences: in what the plan differs from the study's.
        suites: {name: environments} that may replace those of the plans, with their scales and training settings.
    """

    name: str
    title: str
    linear: str | Path
    log: str | Path
    span: tuple[float, float]
    claims: Sequence[Claim]
    groups: Mapping[str, Sequence[str]]
    momentum: tuple[str, str]
    sources: Sequence[tuple[str, str]]
    differences: Sequence[str]
    suites: Mapping[str, Callable[[], Mapping[str, Any]]]
