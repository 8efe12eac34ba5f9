"""What the README of callbacks says runs, and is complete."""

import re
from pathlib import Path

import pytest

from pgkit.callbacks.protocol import MOMENTS
from pgkit.config.registry import CALLBACKS, callback_class

README = (Path(__file__).parents[2] / "pgkit" / "callbacks" / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    exec(compile(example, "README of callbacks", "exec"), {"__name__": "readme"})
    assert "has reached 400" in capsys.readouterr().out


def test_every_moment_and_every_shipped_callback_is_listed() -> None:
    assert re.findall(r"^\| `(on_\w+)` \| ", README, re.MULTILINE)[:6] == list(MOMENTS)
    shipped = re.findall(r"^\| `(Stop\w+)` \| `([\w-]+)` \|", README, re.MULTILINE)
    assert {name: callback_class(name).__name__ for name in CALLBACKS} == {name: word for word, name in shipped}
