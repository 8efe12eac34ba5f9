"""The examples of the compiler's README run."""

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "pgkit" / "compiler" / "README.md"


def test_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["status"].updates.tolist() == [5, 5, 5]
