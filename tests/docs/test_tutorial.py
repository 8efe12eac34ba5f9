"""The tutorial runs as it stands, is as short as it says, and records what it learnt."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "tutorial.py"


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path) -> None:
    code = [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 30
    done = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "mean return of each seed" in done.stdout
    returns = done.stdout.split("[")[1].split("]")[0].split(", ")
    assert min(float(number) for number in returns) > 60  # a random policy gets about 20
    assert (tmp_path / "long-pole.mp4").stat().st_size > 1000
