"""``pgkit doctor``: what is there, what is missing, and the command that installs it."""

import json
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from helpers.command_line import pgkit

from pgkit.cli import installation
from pgkit.system.cpu import compile_mode

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_every_extra_and_what_decides_about_results_is_shown() -> None:
    shown = pgkit("doctor")
    assert (shown.exit_code, shown.stderr) == (0, "")
    findings = json.loads(pgkit("doctor --json").stdout)
    assert {f"extra {name}" for name in EXTRAS} <= set(findings)
    assert {"Python", "cores", "CUDA", "compiler", "MuJoCo", "ffmpeg"} <= set(findings)
    assert [name for name in findings if name not in shown.stdout] == []
    assert f"torch {version('torch')}" in findings["packages"]["text"]


def test_what_is_missing_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_core(package: str) -> str:
        if package in ("onnx", "mujoco", "ray"):
            raise PackageNotFoundError
        return version(package)

    monkeypatch.setattr(installation, "version", only_core)
    findings = {each.what: each for each in installation.examine()}
    assert findings["extra ray"] == ("extra ray", False, "not installed: ray", "pip install 'pgkit-rl[ray]'")
    assert findings["extra export"].remedy == "pip install 'pgkit-rl[export]'"
    assert "not installed: onnx" in findings["extra export"].text
    assert findings["MuJoCo"].remedy == "pip install 'gymnasium[mujoco]'"


@pytest.fixture
def _compile_mode_is_read_anew() -> Iterator[None]:
    """It is read from the environment once; also after the test."""
    compile_mode.cache_clear()
    yield
    compile_mode.cache_clear()


@pytest.mark.usefixtures("_compile_mode_is_read_anew")
@pytest.mark.parametrize(
    ("mode", "text"),
    [("kernels", "PGKIT_COMPILE=kernels; "), ("fast", "PGKIT_COMPILE must be off, kernels or graphs")],
)
def test_an_unusual_compile_mode_is_named(mode: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGKIT_COMPILE", mode)
    finding = {each.what: each for each in installation.examine()}["compiler"]
    assert not finding.ok
    assert finding.text.startswith(text)
    assert "unset PGKIT_COMPILE" in finding.remedy
