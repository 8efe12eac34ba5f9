"""Search spaces: which keys of a configuration vary, and between which values."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from math import exp, isfinite, log
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from pgkit.config.aliases import KeyPath
from pgkit.config.overrides import parse_overrides, parse_value
from pgkit.errors import PgkitError, format_value

FORM = "KEY=low:high[:log][:int] or KEY=a,b,c, such as optimizer.lr=1e-4:1e-1:log"

_BUDGET = "all trials have the same budget"
_TASK = "it is part of the task, so scores could not be compared"
_SEEDS = "every trial trains on the same seeds (--tuning-seeds)"
_NO_SCORE = "it changes no score"

CANNOT_VARY: Mapping[KeyPath, str] = {
    ("name",): "it names the search",
    ("seed",): _SEEDS,
    ("seeds",): _SEEDS,
    ("steps",): _BUDGET,
    ("env", "id"): _TASK,
    ("env", "kwargs"): _TASK,
    ("env", "max_episode_steps"): _TASK,
    ("env", "wrappers"): _TASK,
    ("env", "action_mask"): _TASK,
    ("env", "backend"): _NO_SCORE,
    ("env", "vectorization"): _NO_SCORE,
    ("env", "timeout"): _NO_SCORE,
    ("evaluation",): "it is what trials are measured with",
    ("device",): _NO_SCORE,
    ("logger",): _NO_SCORE,
    ("log_interval",): _NO_SCORE,
    ("checkpoint_points",): _NO_SCORE,
    ("keep_checkpoints",): _NO_SCORE,
    ("diagnose",): _NO_SCORE,
    ("callbacks",): "trials pause, so no callbacks can watch them",
}
"""Keys, and tables of keys, that must be the same in all trials, and why."""


class Range(NamedTuple):
    """Numbers between two ends, both included; ``log``: uniform in their logarithm; ``whole``: whole numbers only."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, rng: Random) -> float:
        """Return a value of this range."""
        if self.whole:
            return rng.randint(int(self.low), int(self.high))
        if self.log:
            return exp(rng.uniform(log(self.low), log(self.high)))
        return rng.uniform(self.low, self.high)

    def examples(self) -> list[float]:
        """Return the ends and, of real numbers, one inside that is not whole."""
        inside = [] if self.whole else [self.low + 0.381966 * (self.high - self.low)]
        return [self.low, self.high, *inside]

    def __str__(self) -> str:
        flags = (["log-uniform"] if self.log else []) + (["whole numbers"] if self.whole else [])
        return f"{self.low:g} to {self.high:g}" + (f" ({', '.join(flags)})" if flags else "")


class Choice(NamedTuple):
    """Values to choose from."""

    values: tuple[Any, ...]

    def draw(self, rng: Random) -> Any:
        """Return one of the values."""
        return rng.choice(self.values)

    def examples(self) -> list[Any]:
        """Return all values."""
        return list(self.values)

    def label(self, value: Any) -> str | int | float | bool:
        """Return what the study calls a value: itself, or its text if it is a list or a table."""
        return value if isinstance(value, str | int | float | bool) else format_value(value)

    def __str__(self) -> str:
        return ", ".join(str(self.label(value)) for value in self.values)


Space = Mapping[str, Range | Choice]
"""What varies, by dotted key."""


def parse_space(entries: Sequence[str]) -> dict[str, Range | Choice]:
    """Return the search space that words and TOML files declare.

    >>> from pgkit.tune.space import parse_space
    >>> space = parse_space(["optimizer.lr=1e-4:1e-1:log", "optimizer.name=adam,rmsprop"])
    >>> {key: str(values) for key, values in space.items()}
    {'optimizer.lr': '0.0001 to 0.1 (log-uniform)', 'optimizer.name': 'adam, rmsprop'}

    Args:
        entries: ``"KEY=low:high:log"``, ``"KEY=a,b,c"``, or paths of TOML files with such lines as texts
            (``"optimizer.lr" = "1e-4:1e-1:log"``), or with lists (``"policy.hidden" = [[32], [64, 64]]``).

    Raises:
        PgkitError: an entry of another form, an empty range, a single value, or a key that cannot vary.
    """
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise PgkitError(f'a space is a list such as ["optimizer.lr=1e-4:1e-1:log"], got {format_value(entries)}')
    space: dict[str, Range | Choice] = {}
    for source, key, declared in [pair for entry in entries for pair in _pairs(entry)]:
        try:
            name, dimension = _canonical(key, _dimension(declared))
        except PgkitError as error:
            raise PgkitError(f"--space {source}: {error}") from None
        if name in space:
            raise PgkitError(f"--space {source}: {name} is stated more than once")
        space[name] = dimension
    if not space:
        raise PgkitError(f"nothing varies: --space {FORM}, or a TOML file")
    return space


def key_path(key: str) -> KeyPath:
    """Return the parts of a key of a space."""
    return parse_overrides({key: 0})[0][0]


def as_data(space: Space) -> dict[str, Any]:
    """Return a space as plain data, as it is stored."""
    return {key: json.loads(json.dumps(dimension._asdict())) for key, dimension in space.items()}


def _pairs(entry: Any) -> list[tuple[str, str, Any]]:
    """Return (what messages call it, key, what is declared) of a word or of each line of a file."""
    if not isinstance(entry, str):
        raise PgkitError(f"--space {format_value(entry)} is not of the form {FORM}")
    key, separator, text = entry.partition("=")
    if separator and not entry.endswith(".toml"):
        return [(entry, key.strip(), text.strip())]
    if not entry.endswith(".toml"):
        raise PgkitError(f"--space {entry} is not of the form {FORM}, nor a TOML file")
    try:
        table = tomllib.loads(Path(entry).read_text(encoding="utf-8"))
    except OSError as error:
        raise PgkitError(f"--space {entry} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PgkitError(f"--space {entry} is not valid TOML: {error}") from None
    return [(f"{entry}, {key}", key, declared) for key, declared in _leaves(table).items()]


def _leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten tables, quoting parts that hold dots: ``[optimizer] lr`` and ``"optimizer.lr"`` are the same."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{_quoted(key)}.")
        else:
            leaves[prefix + (_quoted(key) if prefix else key)] = value
    return leaves


def _quoted(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part)


def _canonical(key: str, dimension: Range | Choice) -> tuple[str, Range | Choice]:
    """Return the full key and the values that pgkit has for other words: ``optimizer.lr`` for ``lr``.

    Raises:
        PgkitError: it is no key, or one that cannot vary.
    """
    path = parse_overrides({key: dimension.examples()[0]})[0][0]
    name = ".".join(map(_quoted, path))
    for length in range(1, len(path) + 1):
        if reason := CANNOT_VARY.get(path[:length]):
            raise PgkitError(f"{name} cannot vary: {reason}")
    if path[0] == "init":
        raise PgkitError(f"{name} cannot vary: all trials begin from the same run")
    if isinstance(dimension, Choice):
        return name, Choice(tuple(parse_overrides({key: value})[0][1] for value in dimension.values))
    return name, dimension


def _dimension(declared: Any) -> Range | Choice:
    if isinstance(declared, list):
        return _choice(declared)
    if not isinstance(declared, str):
        raise PgkitError(f"one value cannot vary: write low:high or a, b (got {format_value(declared)})")
    words = _split(declared, ":")
    if 2 <= len(words) <= 4 and all(_is_number(word) for word in words[:2]):
        return _range(*words)
    return _choice([parse_value(word) for word in _split(declared, ",")])


def _range(low: str, high: str, *flags: str) -> Range:
    for flag in flags:
        if flag not in ("log", "int"):
            raise PgkitError(f"unknown word {flag!r} after a range (allowed: log, int)")
    dimension = Range(float(parse_value(low)), float(parse_value(high)), "log" in flags, "int" in flags)
    if not dimension.low < dimension.high:
        raise PgkitError(f"the range is empty: low must be below high, got {low} and {high}")
    if dimension.log and dimension.low <= 0:
        raise PgkitError(f"a log range must begin above 0, got {low}")
    if dimension.whole and not (dimension.low.is_integer() and dimension.high.is_integer()):
        raise PgkitError(f"the ends of an int range must be whole numbers, got {low} and {high}")
    return dimension._replace(low=int(dimension.low), high=int(dimension.high)) if dimension.whole else dimension


def _choice(values: Sequence[Any]) -> Choice:
    distinct = [value for index, value in enumerate(values) if value not in values[:index]]
    if len(distinct) < 2 or "" in distinct:
        raise PgkitError(f"one value cannot vary: write low:high or a,b (got {format_value(list(values))})")
    return Choice(tuple(distinct))


def _is_number(word: str) -> bool:
    value = parse_value(word)
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that stand in no brackets and no quotes."""
    parts = re.findall(
        rf"(?:\[[^\]]*\]|\{{[^}}]*\}}|\"[^\"]*\"|[^{separator}])+|(?<={separator})(?={separator}|$)", text
    )
    return [part.strip() for part in parts] or [""]
