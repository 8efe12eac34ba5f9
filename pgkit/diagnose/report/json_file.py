"""``diagnosis.json``: the points with all quantities, nested by section, and what is said of them; strict JSON.

A quantity is ``{"value", "low", "high", "n"}``, without the ends where there is no interval; a missing one is
``{"value": null, "reason"}``. Infinite numbers are the strings ``"inf"`` and ``"-inf"``. Tables are beside the file, in
``tables/``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pgkit.diagnose.report.tables import read_tables
from pgkit.diagnose.results import FORMAT, Diagnosis, PointResult, Quantities, Quantity, Row, Verdict
from pgkit.errors import PgkitError
from pgkit.system.files import read_json, write_text

NAME = "diagnosis.json"

NO_REASON = "not a number"
"""The reason of a value that is NaN without one."""


def write_diagnosis(diagnosis: Diagnosis, path: Path) -> None:
    """Write ``diagnosis.json``; its tables are written by :func:`pgkit.diagnose.report.tables.write_tables`.

    Raises:
        ValueError: a quantity's name begins with that of another one.
        WriteError: the system refuses to write.
    """
    write_text(path, json.dumps(as_json(diagnosis), indent=1, allow_nan=False) + "\n")


def read_diagnosis(path: str | Path) -> Diagnosis:
    """Read a diagnosis from its directory, or from the ``diagnosis.json`` in it, with the tables beside that.

    Raises:
        PgkitError: it is missing, damaged, or of another format.
    """
    path = Path(path) / NAME if Path(path).is_dir() else Path(path)
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise PgkitError(f"{path}: format {content.get('format')!r}, this version of pgkit reads format {FORMAT}")
    try:
        return from_json(content, read_tables(path.parent / "tables"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PgkitError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis without its tables as plain data that strict JSON can hold."""
    return {
        "format": FORMAT,
        "run": diagnosis.run,
        "settings": plain(diagnosis.settings),
        "versions": dict(diagnosis.versions),
        "summary": dict(diagnosis.summary),
        "points": [_point_json(point) for point in diagnosis.points],
        "verdicts": [plain(asdict(verdict)) for verdict in diagnosis.verdicts],
        "not_done": [{"what": what, "why": why} for what, why in diagnosis.not_done],
        "cost": plain(diagnosis.cost),
    }


def from_json(content: Mapping[str, Any], tables: Mapping[str, Sequence[Row]]) -> Diagnosis:
    """Return the diagnosis whose :func:`as_json` is ``content``, with these tables.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: something is missing or of another form.
    """
    return Diagnosis(
        run=content["run"],
        settings=_numbers(content["settings"]),
        points=[_point(entry) for entry in content["points"]],
        verdicts=[_verdict(entry) for entry in content["verdicts"]],
        summary=content["summary"],
        tables=tables,
        not_done=[(entry["what"], entry["why"]) for entry in content["not_done"]],
        cost=_numbers(content["cost"]),
        versions=content["versions"],
    )


def quantity_json(quantity: Quantity) -> dict[str, Any]:
    """Return a quantity as strict JSON.

    >>> quantity_json(Quantity(1.5, 1.2, math.inf, 64))
    {'value': 1.5, 'low': 1.2, 'high': 'inf', 'n': 64}
    >>> quantity_json(Quantity.missing("the gradient is not resolved"))
    {'value': None, 'reason': 'the gradient is not resolved'}
    """
    entry: dict[str, Any] = {"value": number_json(quantity.value)}
    entry |= {
        name: number_json(end) for name, end in (("low", quantity.low), ("high", quantity.high)) if not math.isnan(end)
    }
    entry |= {"n": int(quantity.n)} if quantity.n else {}
    reason = quantity.reason or (NO_REASON if math.isnan(quantity.value) else None)
    return entry | ({} if reason is None else {"reason": reason})


def quantity_from_json(entry: Mapping[str, Any]) -> Quantity:
    """Return the quantity whose :func:`quantity_json` is ``entry``."""
    value, low, high = (_number(entry.get(name)) for name in ("value", "low", "high"))
    return Quantity(value, low, high, entry.get("n", 0), entry.get("reason"))


def number_json(value: float) -> float | int | str | None:
    """Return a number as strict JSON: infinities as strings, NaN as null."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value if isinstance(value, int) else float(value)


def plain(data: Any) -> Any:
    """Return data with lists for sequences, Python numbers for NumPy's, and :func:`number_json` for floats."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    data = data.item() if hasattr(data, "item") else data
    return number_json(data) if isinstance(data, float) else data


def nested(quantities: Quantities) -> dict[str, Any]:
    """Nest quantities by the parts of their names.

    >>> nested({"return/mean": Quantity(9.5)})
    {'return': {'mean': {'value': 9.5}}}

    Raises:
        ValueError: a name begins with another one.
    """
    tree: dict[str, Any] = {}
    for name, quantity in quantities.items():
        *parts, last = name.split("/")
        places = [tree]
        for part in parts:
            places.append(places[-1].setdefault(part, {}))
        if last in places[-1] or any(map(_is_quantity, places)):
            raise ValueError(f"quantity {name!r}: its name and that of another one begin alike")
        places[-1][last] = quantity_json(quantity)
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Quantity]]:
    """Yield (name, quantity) of nested ones, see :func:`nested`."""
    for part, entry in tree.items():
        if _is_quantity(entry):
            yield prefix + part, quantity_from_json(entry)
        else:
            yield from flat(entry, f"{prefix}{part}/")


def _is_quantity(entry: Mapping[str, Any]) -> bool:
    """An estimator is called "value", so the key alone decides nothing."""
    return "value" in entry and not isinstance(entry["value"], Mapping)


_PLACE = ("member", "env_steps", "share", "critical")


def _point_json(point: PointResult) -> dict[str, Any]:
    place = {name: plain(getattr(point, name)) for name in _PLACE}
    at_a_glance = {"J": quantity_json(point.quantities["return/mean"])} if "return/mean" in point.quantities else {}
    return place | at_a_glance | nested(point.quantities)


def _point(entry: Mapping[str, Any]) -> PointResult:
    quantities = {part: tree for part, tree in entry.items() if part not in (*_PLACE, "J")}
    return PointResult(**{name: entry[name] for name in _PLACE}, quantities=dict(flat(quantities)))


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    return Verdict(**{**entry, "env_steps": tuple(entry["env_steps"]), "evidence": tuple(entry["evidence"])})


def _number(entry: float | str | None) -> float:
    return math.nan if entry is None else float(entry)


def _numbers(data: Any) -> Any:
    """Undo :func:`plain`, but for lists."""
    if isinstance(data, Mapping):
        return {key: _numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_numbers(value) for value in data]
    return float(data) if data in ("inf", "-inf") else data
