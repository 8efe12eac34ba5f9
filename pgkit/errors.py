"""User mistakes, reported in one line."""

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


class PgkitError(ValueError):
    """A mistake of the user, told in one line: what, where, and what is allowed."""

    exit_code = 2


_TYPES = {
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "too_short": "a list with at least one entry",
    "dict_type": "a table",
    "model_type": "a table",
}


def one_line(error: Exception) -> str:
    """An error (its type first, if it is none of pgkit's) and its notes, all that no terminal should get escaped."""
    what = str(error) if isinstance(error, PgkitError) else f"{type(error).__name__}: {error}"
    text = " ".join("; ".join([what, *getattr(error, "__notes__", [])]).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def explain(error: "ValidationError", model: "type[BaseModel]", prefix: str = "") -> str:
    """The first mistake (unknown keys come first: they are the cause of others) in one line."""
    details = sorted(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    return _explain_one(details[0], model, prefix)


def _explain_one(detail: "ErrorDetails", model: "type[BaseModel]", prefix: str) -> str:
    reason = detail.get("ctx", {}).get("error")
    if isinstance(reason, PgkitError):
        return str(reason)
    parts = detail["loc"]
    key = prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)[1:]
    if detail["type"] == "extra_forbidden":
        return unknown("key", key, _keys(model, parts[:-1], key.rpartition(".")[0]))
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "string_pattern_mismatch":
        extra = model.model_fields[str(parts[-1])].json_schema_extra
        allowed = str(extra["allowed"]) if isinstance(extra, dict) else "a text of another form"
    else:
        message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        allowed = _TYPES.get(detail["type"], message)
    return f"{key} must be {allowed}, got {show(detail['input'])}"


def _keys(model: "type[BaseModel]", parts: Sequence[int | str], prefix: str) -> list[str]:
    """Full dotted keys of the table at ``parts``."""
    annotation: Any = model
    for part in parts:
        annotation = model.model_fields[str(part)].annotation if annotation is model else get_args(annotation)[-1]
        if get_origin(annotation) is dict:  # tables by names of the user's
            continue
        assert isinstance(annotation, type)
        from pydantic import BaseModel  # whoever asks has loaded it

        assert issubclass(annotation, BaseModel)
        model = annotation
    return [f"{prefix}.{name}" if prefix else name for name in model.model_fields]


def show(value: Any) -> str:
    """A value as a user would write it."""
    return json.dumps(value, default=repr)


def unknown(kind: str, given: str, allowed: Iterable[str], or_else: str = "") -> str:
    """One line that says that ``given`` is no ``kind``, guesses what was meant and lists what is allowed."""
    names = sorted(allowed)
    guess = get_close_matches(given, names, n=1)
    hint = f", did you mean {guess[0]!r}?" if guess else ""
    choices = [", ".join(names), or_else]
    return f"unknown {kind} {given!r}{hint} (allowed: {', or '.join(choice for choice in choices if choice)})"
