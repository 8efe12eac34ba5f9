"""What the README says runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_there_is_a_short_example() -> None:
    assert EXAMPLES
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_example_runs(
    index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[index], f"README example {index}", "exec"), {"__name__": "readme"})
    assert index > 0 or capsys.readouterr().out.count("\n") == 4  # a line for each of the four seeds


def test_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    assert [name for name in pictures if not (ROOT / name).is_file()] == []


def test_commands_name_shipped_configs() -> None:
    from pgkit.config.names import shipped_configs

    names = re.findall(r"pgkit (?:train|compare) ([a-z][\w-]*)(?=[\s`)])", README)
    assert set(names) >= {"cartpole-reinforce", "cartpole-actor-critic", "lunarlander-actor-critic"}
    assert set(names) <= set(shipped_configs())


def test_reading_path_is_that_of_the_structure_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import structure

    path = re.search(r"from TOML to log, read .*?\n\n(.*?)\n\n", README, re.DOTALL)
    assert path is not None
    assert tuple(re.findall(r"`([^`]+)`", path[1])) == structure.READING_PATH
    lines = sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in structure.READING_PATH)
    assert len(structure.READING_PATH) <= 8
    assert lines <= 1200
