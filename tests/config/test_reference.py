"""The page of every configuration key is made from the models, and current."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_key_reference_is_current_and_describes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import config_reference

    page = config_reference.page()
    assert config_reference.PAGE.read_text(encoding="utf-8") == page, "run python scripts/config_reference.py"
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row[0] for row in rows if len(row) != 4] == []
