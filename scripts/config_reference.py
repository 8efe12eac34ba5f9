"""The table of every configuration key, made from the models.

python scripts/config_reference.py            # write pgkit/config/README.md
python scripts/config_reference.py --check    # exit with 1 if it is not current
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pgkit.compare.plan.schema import ComparisonConfig, EnvironmentScore
from pgkit.config.listing import field_type, inner_model
from pgkit.config.names import AGENTS
from pgkit.config.registry import agent
from pgkit.config.schema import TrainConfig
from pgkit.errors import format_value
from pgkit.optim.around import AROUND, describe_around

PAGE = Path(__file__).resolve().parents[1] / "pgkit" / "config" / "README.md"

Row = tuple[str, str, str, str]
"""Key, type, default, description."""

INTRODUCTION = """# Configuration keys

Made by `python scripts/config_reference.py` from the models in `pgkit/config/`, `agents/` and
`pgkit/compare/plan/schema.py`; a test checks that this page is current.

A configuration is a TOML file: keys with a dot are keys of a table, `env.id` is `id` below `[env]`. On the command
line, `pgkit train NAME optimizer.lr=3e-3` overrides single keys; from Python,
`pgkit.load_config(NAME, {"optimizer.lr": 3e-3})` does.

A key that is unknown, of the wrong type or out of range is an error of one line, exit code 2, and nothing is written.
"""

OPTIMIZER = """
`optimizer.name` is one of `pgkit list optimizers`, or a class such as `torch.optim:Adam`; all other keys are its
hyperparameters, see `pgkit list optimizers NAME` and `pgkit/optim/README.md`. Around every optimizer there may be:
"""


def main(arguments: list[str]) -> int:
    """Write the page, or check it."""
    if "--check" not in arguments:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
    print("current" if current else f"{PAGE.name} is not current: run python scripts/config_reference.py")
    return int(not current)


def page() -> str:
    """Return the whole page as Markdown."""
    sections = [INTRODUCTION, "## `pgkit train`\n", table(rows(TrainConfig))]
    for name in AGENTS:
        sections += [f"\n## Agent `{name}`\n", table(rows(agent(name).Config, "agent."))]
    sections += ["\n## Optimizers", OPTIMIZER, table(optimizer_rows())]
    sections += [
        "\n## `pgkit compare`\n",
        "All keys of `pgkit train` but `name`, `seed`, `seeds`, `env`, `init`, and:\n",
    ]
    sections += [table([*rows(ComparisonConfig), *rows(EnvironmentScore, "environments.<id>.")])]
    return "\n".join(sections)


OPTIMIZER_TABLES: tuple[Row, ...] = (
    ("optimizer.schedule.<hyperparameter>", "text or table", "-", "Schedule of any hyperparameter, such as `linear`."),
    ("optimizer.critic.*", "table", "-", "Optimizer of the critic, if it is another than the actor's."),
    ("optimizer.groups.<pattern>.*", "table", "-", "Settings of the parameters whose names match, such as `*.bias`."),
)


def optimizer_rows() -> Iterator[Row]:
    """Yield the rows of what may be around every optimizer, described by :func:`describe_around`."""
    texts = describe_around()
    for key, value in AROUND.items():
        yield f"optimizer.{key}", TYPES[type(value)], "-" if value is None else format_value(value), texts[key]
    yield from OPTIMIZER_TABLES


TYPES = {bool: "true or false", float: "number", type(None): "number"}


def rows(model: type[BaseModel], prefix: str = "", optional: bool = False) -> Iterator[Row]:
    """Yield (key, type, default, description) of every field, those of inner tables in place of the table itself.

    Args:
        model: of the table.
        prefix: of its keys.
        optional: whether the table may be missing.
    """
    for name, field in model.model_fields.items():
        if (inner := inner_model(field)) is not None:
            yield from rows(inner, f"{prefix}{name}.", optional=field.default is None)
        else:
            shown = "required for the others" if optional and field.is_required() else default(field)
            yield f"{prefix}{name}", field_type(field), shown, (field.description or "").replace("``", "`")


def default(field: FieldInfo) -> str:
    """Return the default as TOML would have it; a dash for None, "required" if there is none."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "-" if value is None else format_value(value)


def table(lines: Any) -> str:
    """Return rows as a Markdown table."""
    cells = [("key", "type", "default", "description"), ("---",) * 4, *((f"`{key}`", *rest) for key, *rest in lines)]
    return "".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |\n" for line in cells)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
