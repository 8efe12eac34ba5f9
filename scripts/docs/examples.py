"""An extension of Griffe: examples of docstrings, which begin with ``>>>``, are shown as code."""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\n|$).*)*", re.MULTILINE)
"""Lines from the first ``>>>`` to the next empty line."""


class Examples(Extension):
    """Puts a fence around every example."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every object that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda match: f"```pycon\n{match.group()}\n```", obj.docstring.value)
