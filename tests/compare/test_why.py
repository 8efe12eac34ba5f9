"""The section "why" of a comparison's report: a line for each arm, from the diagnosis beside it."""

import re
from pathlib import Path

import pytest
from helpers.comparisons import synthetic

from pgkit.compare.report.html import page as page_of
from pgkit.compare.report.why import explain
from pgkit.compare.tables import Analysis
from pgkit.diagnose.report.html import diagnosis_page
from pgkit.diagnose.report.json_file import NAME, write_diagnosis
from pgkit.diagnose.results import Diagnosis, PointResult, Quantity, Verdict

REST = "With ten times the episodes it might not."


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return synthetic()


def diagnosis(*arms: str) -> Diagnosis:
    """Of arms that are all fragile, and have stale momentum besides."""
    points = [PointResult(arm, 100.0, 1.0, True, {"return/mean": Quantity(9.5)}) for arm in arms]
    said = [("not measured", "Nobody looked."), ("fragile", f"Half of the copies of {arms[-1]} fall. {REST}")]
    verdicts = [Verdict(arm, rule, words, (100.0,), (), "other copies") for arm in arms for rule, words in said]
    return Diagnosis("case", {}, points, verdicts, dict.fromkeys(arms, "It fell."))


def write(directory: Path, agent: str, *arms: str) -> Path:
    """Write a diagnosis where ``pgkit diagnose`` does, and return its folder."""
    place = directory / "diagnosis" / f"CartPole-v1-{agent}" / "diagnosis"
    place.mkdir(parents=True)
    write_diagnosis(diagnosis(*arms), place / NAME)
    (place / "report.html").write_text(diagnosis_page(diagnosis(*arms), []), encoding="utf-8")
    return place


def section(analysis: Analysis, page: Path, *directories: Path) -> str:
    """The section as it stands in the page."""
    html = page_of(analysis, [], explain(analysis, directories, page))
    (found,) = re.findall(r'<section aria-labelledby="why">.*?</section>', html, re.DOTALL)
    assert '<a href="#why">' in html
    return found


def test_without_a_diagnosis_one_line_says_how_to_get_one(analysis: Analysis, tmp_path: Path) -> None:
    shown = section(analysis, tmp_path, tmp_path)
    assert "Not diagnosed yet. <code>pgkit diagnose DIR</code>" in shown
    assert shown.count("<p>") == 1
    assert "<li>" not in shown


def test_each_arm_has_a_line_with_its_first_verdict_and_a_link(analysis: Analysis, tmp_path: Path) -> None:
    place = write(tmp_path, "reinforce", *analysis.labels)
    shown = section(analysis, tmp_path, tmp_path)
    lines = re.findall(r"<li>(.*?)</li>", shown)
    assert len(lines) == len(analysis.labels) == 4
    for arm, line in zip(analysis.labels, lines, strict=True):
        (link,) = re.findall(f'<a href="([^"]*)">{arm}</a>', line)
        path, _, anchor = link.partition("#")
        assert (tmp_path / path).resolve() == (place / "report.html").resolve()
        assert f'id="{anchor}"' in (place / "report.html").read_text()
        assert '<strong class="rule fragile">fragile</strong> Half of the copies of adam fall.' in line
        assert REST not in line
    assert "<h3>CartPole-v1, reinforce</h3>" in shown
    assert "CartPole-v1, actor-critic: not diagnosed yet." in shown


def test_arms_of_pooled_comparisons_are_linked_from_elsewhere(analysis: Analysis, tmp_path: Path) -> None:
    for name, arms in (("one", analysis.labels[:2]), ("other", analysis.labels[2:3])):
        write(tmp_path / name, "reinforce", *arms)
    shown = section(analysis, tmp_path / "pooled" / "page", tmp_path / "one", tmp_path / "other")
    links = re.findall(r'href="([^"]*)report.html', shown)
    folder = "diagnosis/CartPole-v1-reinforce/diagnosis/"
    assert links == [f"../../one/{folder}"] * 2 + [f"../../other/{folder}"]
    assert f"{analysis.labels[3]} It was not diagnosed." in " ".join(shown.split())


def test_a_damaged_diagnosis_does_not_stop_the_report(analysis: Analysis, tmp_path: Path) -> None:
    place = write(tmp_path, "reinforce", *analysis.labels)
    (place / NAME).write_text('{"format": 1}')
    shown = section(analysis, tmp_path, tmp_path)
    assert shown.count("is damaged") == len(analysis.labels)
    assert "fragile" not in shown
