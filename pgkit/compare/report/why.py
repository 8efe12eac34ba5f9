"""Why the arms did what they did: one line for each, from what ``pgkit diagnose`` has left beside a comparison.

Diagnoses lie in ``diagnosis/<case>/diagnosis/`` of the comparison; their members are its arms.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pgkit.compare.report.prose import case_name
from pgkit.compare.tables import Analysis
from pgkit.diagnose.report.json_file import NAME, read_diagnosis
from pgkit.diagnose.results import Diagnosis
from pgkit.diagnose.verdicts import headlines
from pgkit.diagnose.words import first_sentence
from pgkit.errors import PgkitError
from pgkit.plots.page import slug

FOLDER = "diagnosis"


class ArmLine(NamedTuple):
    """What the diagnosis says of one arm.

    Attributes:
        arm: its label.
        rule: name of the verdict that matters most; empty where there is no diagnosis.
        text: its first sentence, or why there is none.
        link: of the arm in the page of the diagnosis, relative to the report; empty where there is none.
    """

    arm: str
    rule: str
    text: str
    link: str


class Why(NamedTuple):
    """The lines of one case.

    Attributes:
        case: its name for readers.
        lines: one for each arm; none where there is no diagnosis of the case.
    """

    case: str
    lines: list[ArmLine]


def case_folder(case: tuple[str, str]) -> str:
    """Return the name of the folder in which the diagnosed runs of a case lie.

    >>> case_folder(("ALE/Pong-v5", "ppo"))
    'ALE-Pong-v5-ppo'
    """
    return "-".join(case).replace("/", "-")


def explain(analysis: Analysis, directories: Sequence[Path], page: Path) -> list[Why]:
    """Return the lines of every case.

    Args:
        analysis: the analysed comparison.
        directories: of the comparison, or of all that are pooled.
        page: directory of the report.
    """
    return [
        Why(
            case_name(case),
            _lines(analysis, [each / FOLDER / case_folder(case) / FOLDER for each in directories], page),
        )
        for case in analysis.cases
    ]


def _lines(analysis: Analysis, places: Sequence[Path], page: Path) -> list[ArmLine]:
    """One line for each arm of a case, if any of these places holds a diagnosis."""
    by_arm: dict[str, ArmLine] = {}
    for place in places:
        if (place / NAME).is_file():
            by_arm |= _of_place(place, analysis.labels, page)
    return [by_arm.get(arm, ArmLine(arm, "", "It was not diagnosed.", "")) for arm in analysis.labels if by_arm]


def _of_place(place: Path, arms: Sequence[str], page: Path) -> dict[str, ArmLine]:
    """The lines of the arms that a diagnosis knows; where it cannot be read, all arms say why."""
    try:
        diagnosis = read_diagnosis(place)
    except PgkitError as error:
        return {arm: ArmLine(arm, "", str(error), "") for arm in arms}
    link = Path(os.path.relpath(place, page)).as_posix() + "/report.html"
    return {arm: _line(diagnosis, arm, f"{link}#member-{slug(arm)}") for arm in arms if arm in diagnosis.summary}


def _line(diagnosis: Diagnosis, arm: str, link: str) -> ArmLine:
    spoken = headlines([verdict for verdict in diagnosis.verdicts if verdict.member == arm])
    if not spoken:
        return ArmLine(arm, "", "Nothing is said of it.", link)
    return ArmLine(arm, spoken[0].rule, first_sentence(spoken[0].words), link)
