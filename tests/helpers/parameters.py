"""Parameters of tests that show one thing for many: a few of them by default, all of them in continuous integration."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def few_by_default(values: Iterable[Any], *by_default: Any) -> list[Any]:
    """Return the values, of which those that are not in ``by_default`` are marked slow.

    >>> [len(each.marks) for each in few_by_default(["sgd", "adam", "lion"], "adam")]
    [1, 0, 1]
    """
    values = list(values)
    missing = [value for value in by_default if value not in values]
    assert not missing, f"no such parameter: {missing}"
    return [
        pytest.param(*_as_tuple(value), marks=() if value in by_default else pytest.mark.slow, id=_id(value))
        for value in values
    ]


def _as_tuple(value: Any) -> Collection[Any]:
    return value if isinstance(value, tuple) else (value,)


def _id(value: Any) -> str | None:
    return "-".join(map(str, value)) if isinstance(value, tuple) else value if isinstance(value, str) else None
