"""The report of a diagnosis: one page with everything that is said, TensorBoard runs, files that are replaced whole."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.browsers import NEEDS_BROWSER, launched
from helpers.diagnoses import SHARES, STEPS, full, minimal
from helpers.hparams import hparams_tab, scalars
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgkit.diagnose.report import write as write_module
from pgkit.diagnose.report.figures import CAPTIONS
from pgkit.diagnose.report.figures_return import draw_timeline
from pgkit.diagnose.report.glossary import GLOSSARY, TOPICS
from pgkit.diagnose.report.html import Section, compact, diagnosis_page, quantity_cell, quantity_text, render_page
from pgkit.diagnose.report.json_file import read_diagnosis
from pgkit.diagnose.report.write import write_report
from pgkit.diagnose.results import QUANTITIES, Diagnosis, PointResult, Quantity
from pgkit.logging.tensorboard import TensorBoardWriter
from pgkit.plots.page import drawing
from pgkit.system.files import replace_entries

pytestmark = pytest.mark.slow

TOGETHER = {"side-by-side", "same-states"}
"""Figures of several members."""


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return full()


@pytest.fixture(scope="module")
def report(diagnosis: Diagnosis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a report that was written in a run, which has its own HParams."""
    run = tmp_path_factory.mktemp("run")
    writer = TensorBoardWriter(run)
    writer.hyperparameters({"lr": 0.003})
    writer.scalars(0, {"eval/return_mean": 23.0}, 0.0)
    writer.close()
    return write_report(diagnosis, run / "diagnosis").parent


class Page(HTMLParser):
    """Ids, links and tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        attributes: Mapping[str, Any] = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[key] for key in ("href", "src", "xlink:href") if key in attributes]


def text_of(html: str) -> str:
    """What is read, without tags and line breaks."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


# --- the page ---


def test_every_sentence_is_on_the_page_with_its_numbers(report: Path, diagnosis: Diagnosis) -> None:
    text = text_of((report / "report.html").read_text(encoding="utf-8"))
    for verdict in diagnosis.verdicts:
        assert verdict.words in text
        assert f"refuted by {verdict.refuted_by}" in text
    assert all(said in text for said in diagnosis.summary.values())
    assert text.index(diagnosis.summary["seed-301"]) < text.index("A. Noise of the gradient")
    assert "post_update/K/half_share 0.31 [0.21, 0.37] at 24.9k, 0.77 [0.67, 0.83] at 49.9k" in text
    assert "updates at the end: the learning rate's schedule has ended" in text
    assert "1 min 51 s" in text
    assert "versions.torch 2.13.0" in text


def test_sections_have_figures_tables_and_words(report: Path) -> None:
    html = (report / "report.html").read_text(encoding="utf-8")
    places = [html.index(f">{topic.title}</h2>") for topic in TOPICS]
    assert places == sorted(places)
    page = Page(html)
    shown = {f"seed-301-{name}" for topic in TOPICS for name in (*topic.figures, "timeline")}
    assert shown <= set(page.ids)
    assert {name for topic in TOPICS for name in topic.figures} | {"timeline", *TOGETHER} == set(CAPTIONS)
    assert page.tags.count("figure") == len(CAPTIONS)
    assert {f"all-members-{name}" for name in TOGETHER} <= set(page.ids)
    assert all(word in text_of(html) for word in (*GLOSSARY.values(), *QUANTITIES))


def test_the_page_needs_nothing_else(report: Path) -> None:
    html = (report / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.links
    assert all(link.startswith(("#", "tables/", "figures/", "data:", "diagnosis.json")) for link in page.links)
    for link in page.links:
        if not link.startswith(("#", "data:")):
            assert (report / link).is_file(), link
    assert not re.search(r"@import|url\((?![#\"]*#)|@font-face", html)
    assert re.findall(r"https?://[^\"'\s<]*", re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)) == []
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_reasons_are_given_where_numbers_are_missing(tmp_path: Path) -> None:
    html = diagnosis_page(minimal(), ())
    text = text_of(html)
    assert "seed-0 at 0: the gradient is not resolved (p = 0.4) (noise/actor/nsr)" in text
    assert "seed-0 at 0: the return is not above that of random actions (post_update/1/half_share)" in text
    assert "Nothing is said of it." in text
    assert "\u2013 [11, \u221e]" in text
    assert "1.5e-23" in text
    assert f"{TOPICS[3].text} It was not measured." in text


def test_nothing_at_all_has_a_page() -> None:
    text = text_of(diagnosis_page(Diagnosis("runs/none", {}, []), ()))
    assert "No point was measured, so there is no answer." in text
    assert "0, 0 of them looked at closely" in text
    assert "Nothing was left out." in text


def test_texts_are_no_markup() -> None:
    verdict = replace(full().verdicts[0], words="a < b & <script>alert(1)</script>", member="<i>")
    point = PointResult("<i>", float(STEPS), 1.0, False, {"return/mean": Quantity(1.0)})
    html = diagnosis_page(Diagnosis("runs/<b>", {"x": "<u>"}, [point], [verdict], {"<i>": "<p>"}), ())
    assert "a &lt; b &amp; &lt;script&gt;" in html
    assert not re.search(r"<(i|b|u)>|<script>alert", html)


def test_equal_results_give_equal_pages(diagnosis: Diagnosis) -> None:
    assert diagnosis_page(diagnosis, ()) == diagnosis_page(full(), ())
    other = replace(diagnosis, summary={"seed-301": "Another."})
    assert diagnosis_page(other, ()) != diagnosis_page(diagnosis, ())


def test_pages_of_sections_have_figures_and_tables() -> None:
    figure = drawing(Figure(), "plane", "seed-3", "A plane.")
    rows = [{"x": -1.5, "J": 23.0, "name": "a", "n": 3}, {"x": math.inf, "J": math.nan, "name": None, "ok": True}]
    html = render_page(
        "Landscape", "It is flat.", [Section("The plane", "Read it so.", [figure], rows), Section("B", "")]
    )
    page, text = Page(html), text_of(html)
    assert "Landscape It is flat." in text
    assert "The plane Read it so." in text
    assert {"seed-3-plane", "the-plane", "b"} <= set(page.ids)
    assert page.tags.count("table") == 1
    for shown in ("\u22121.5", "\u221e", "yes", ">23<", ">\u2013<"):
        assert shown in html
    assert "figures/seed-3-plane.png" in page.links


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.3149, "1.31"),
        (-0.5, "\u22120.5"),
        (49_900, "49.9k"),
        (-9_500.0, "\u22129.5k"),
        (61e6, "61M"),
        (1.5e-23, "1.5e-23"),
        (-1e-5, "\u22121e-05"),
        (0, "0"),
        (math.nan, "\u2013"),
        (-math.inf, "\u2212\u221e"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert compact(value) == text


def test_quantities_show_their_intervals() -> None:
    assert quantity_text(Quantity(1.31, 1.04, 1.71)) == "1.31 [1.04, 1.71]"
    assert quantity_text(Quantity(1.31)) == "1.31"
    assert quantity_text(Quantity(math.nan, 11.0, math.inf)) == "\u2013 [11, \u221e]"
    assert quantity_cell(Quantity(1.0, -math.inf, math.inf)).values == (1.0, "-inf", "inf")
    assert quantity_cell(None) == ("\u2013", (None,))


# --- files ---


def test_the_report_is_complete(report: Path, diagnosis: Diagnosis) -> None:
    assert {path.name for path in report.iterdir()} == {
        *("diagnosis.json", "figures", "report.html", "tables", "tensorboard"),
    }
    names = {f"{'all-members' if name in TOGETHER else 'seed-301'}-{name}" for name in CAPTIONS}
    assert {path.name for path in (report / "figures").iterdir()} == {f"{n}.{e}" for n in names for e in ("png", "svg")}
    for path in (report / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.with_suffix(".svg").read_text(encoding="utf-8").startswith("<svg")
    assert read_diagnosis(report).points == diagnosis.points


def test_a_killed_writer_leaves_the_report_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawing(Figure(), "timeline", "seed-0", "")
    monkeypatch.setattr(write_module, "draw_all", lambda *_: [figure])
    write_report(minimal(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".abc.tmp").mkdir()
    before = contents(tmp_path)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(write_module, "diagnosis_page", killed)
        with pytest.raises(KeyboardInterrupt):
            write_report(replace(minimal(), run="runs/other"), tmp_path)
    assert contents(tmp_path) == before
    write_report(replace(minimal(), run="runs/other"), tmp_path)
    after = contents(tmp_path)
    assert json.loads(after["diagnosis.json"])["run"] == "runs/other"
    assert after["notes.txt"] == b"mine"
    assert len(list((tmp_path / "tensorboard" / "seed-0").iterdir())) == 1, "event files of an earlier report are gone"
    assert not list(tmp_path.glob(".*.tmp"))


def contents(directory: Path) -> dict[str, bytes]:
    """All files by their relative path."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_entries_are_replaced_whole_and_others_stay(tmp_path: Path) -> None:
    for name in ("a/old", "keep/x"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("old")
    (tmp_path / "f").write_text("old")
    with replace_entries(tmp_path) as new:
        (new / "a").mkdir()
        (new / "a" / "new").write_text("new")
        (new / "f").write_text("new")
        assert (tmp_path / "f").read_text() == "old"
    assert contents(tmp_path) == {"a/new": b"new", "f": b"new", "keep/x": b"old"}


def test_nothing_at_all_is_written(tmp_path: Path) -> None:
    nothing = Diagnosis("runs/none", {}, [])
    assert write_report(nothing, tmp_path / "d").is_file()
    assert read_diagnosis(tmp_path / "d").points == []


# --- TensorBoard ---


def test_quantities_are_at_the_points_steps(report: Path, diagnosis: Diagnosis) -> None:
    curves = scalars(report / "tensorboard" / "seed-301")
    returns = [value for _, value in curves["diagnosis/return/mean"]]
    points = [point for point in diagnosis.points if point.member == "seed-301"]
    assert returns == pytest.approx([point.quantities["return/mean"].value for point in points])
    assert [step for step, _ in curves["diagnosis/return/mean"]] == [round(share * STEPS) for share in SHARES]
    assert [step for step, _ in curves["diagnosis/estimators/gae-0.95/bias2"]] == [24_950, 49_900]
    ratios = [point.quantities["noise/actor/nsr"].value for point in points]
    assert len(curves["diagnosis/noise/actor/nsr"]) == sum(map(math.isfinite, ratios)) < len(points)
    assert {tag.removeprefix("diagnosis/") for tag in curves} <= {name for point in points for name in point.quantities}


def test_figures_are_images_of_their_member(report: Path) -> None:
    for label, names in (("seed-301", set(CAPTIONS) - TOGETHER), ("seed-300", set())):
        events = EventAccumulator(str(report / "tensorboard" / label))
        events.Reload()
        assert set(events.Tags()["images"]) == {f"diagnosis/{name}" for name in names}
    image = EventAccumulator(str(report / "tensorboard" / "seed-301"), size_guidance={"images": 0})
    image.Reload()
    png = (report / "figures" / "seed-301-timeline.png").read_bytes()
    assert image.Images("diagnosis/timeline")[0].encoded_image_string == png


def test_hyperparameters_of_the_run_stay(report: Path) -> None:
    experiment, sessions = hparams_tab(report.parent)
    assert {info.name for info in experiment.hparam_infos} == {"lr"}
    assert len(sessions) == 1
    assert scalars(report.parent) == {"eval/return_mean": [(0, 23.0)]}


def test_logs_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "draw_all", lambda *_: [])
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events.out.tfevents.1").write_bytes(b"of the run")
    write_report(minimal(), tmp_path / "d", tmp_path / "logs")
    assert not (tmp_path / "d" / "tensorboard").exists()
    curves = scalars(tmp_path / "logs" / "seed-0")
    assert curves["diagnosis/noise/actor/grad_norm"] == [(0, pytest.approx(1.5e-23))]
    assert set(curves) == {"diagnosis/return/mean", "diagnosis/noise/actor/grad_norm"}, "no NaN, nothing infinite"
    assert (tmp_path / "logs" / "events.out.tfevents.1").read_bytes() == b"of the run"


def test_a_figure_is_named_by_its_member_and_what_it_shows(diagnosis: Diagnosis) -> None:
    figure = draw_timeline(diagnosis.points[:10])
    assert figure is not None
    assert drawing(figure, "timeline", "seed-300", "").name == "seed-300-timeline"


# --- in a browser ---


@pytest.mark.parametrize("width", [pytest.param(pixels, marks=NEEDS_BROWSER) for pixels in (1200, 400)])
def test_all_is_visible_and_nothing_is_wider_than_the_screen(report: Path, width: int) -> None:
    asked: list[str] = []
    with launched() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: asked.append(message.text))
        page.goto((report / "report.html").as_uri())
        boxes = [figure.bounding_box() for figure in page.query_selector_all("figure svg")]
        page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        content = page.evaluate("document.documentElement.scrollWidth")
    assert content == width
    assert asked == [(report / "report.html").as_uri()], "nothing is asked for, nothing is complained about"
    assert len(boxes) == len(CAPTIONS)
    for box in boxes:
        assert box is not None
        assert 300 < box["width"] < 760
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
