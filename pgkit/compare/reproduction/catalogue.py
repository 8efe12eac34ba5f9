"""The studies that can be run again, by name."""

from pgkit.compare.reproduction.henderson2018 import HENDERSON2018
from pgkit.compare.reproduction.studies import Study
from pgkit.errors import PgkitError, unknown_name

STUDIES = {study.name: study for study in (HENDERSON2018,)}


def find_study(name: str) -> Study:
    """Return the study of that name.

    Raises:
        PgkitError: there is none.
    """
    if name not in STUDIES:
        raise PgkitError(unknown_name("study", str(name), STUDIES))
    return STUDIES[name]
