"""``python -m pgkit.logging``: the table of metrics as Markdown, for the README."""

from pgkit.logging.metrics import markdown

print(markdown(), end="")
