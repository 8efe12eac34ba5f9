"""``python -m pgkit.logging`` prints the table of metrics as Markdown, for this package's README."""

from pgkit.logging.metrics import markdown

print(markdown(), end="")
