"""The group of all commands: its usage errors are one line, too."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, cast

import typer
from typer.core import TyperGroup

MEANT = {
    "benchmark": "compare",
    "continue": "resume",
    "enjoy": "play",
    "eval": "evaluate",
    "fit": "train",
    "info": "doctor",
    "learn": "train",
    "optimize": "tune",
    "render": "play",
    "run": "train",
    "search": "tune",
    "share": "export",
    "show": "list",
    "sweep": "tune",
    "test": "evaluate",
    "watch": "play",
}
"""Commands of other programs, and those of pgkit that do the same."""

USAGE_ERROR = cast(type[Exception], typer.BadParameter.__mro__[1])
"""Click's ``UsageError``, which newer versions of typer have in a private module."""


class Commands(TyperGroup):
    """Commands whose usage errors are one line, as all other errors are.

    Typer prints three lines and a box for them, and its groups are the only place where that can be changed.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse what comes before the command; without any word, help is printed."""
        if not args:
            return super().make_context(info_name, args, parent, **extra)
        with _one_line_usage_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Parse the words of the command, and run it."""
        with _one_line_usage_errors():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or say which one is meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(_unknown_command(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


def _unknown_command(word: str, commands: list[str]) -> str:
    from pgkit.config.names import shipped_configs

    if word in shipped_configs():
        return f"unknown command {word!r}; did you mean pgkit train {word}?"
    meant = [MEANT[word]] if word in MEANT else get_close_matches(word, commands, n=1)
    hint = f", did you mean {meant[0]!r}?" if meant else ""
    return f"unknown command {word!r}{hint} (allowed: {', '.join(commands)})"


@contextmanager
def _one_line_usage_errors() -> Iterator[None]:
    """Turn an error of usage into one line and exit code 2."""
    try:
        yield
    except USAGE_ERROR as error:
        message = " ".join(error.format_message().split()).removesuffix(".")  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        where = f" ({context.command_path} --help)" if context is not None else ""
        typer.echo(f"error: {message[:1].lower()}{message[1:]}{where}", err=True)
        raise typer.Exit(2) from None
