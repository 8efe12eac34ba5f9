"""The report as people open it: in a browser, offline, on a wide screen, on a phone and on paper."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from helpers.browsers import NEEDS_BROWSER, launched
from helpers.comparisons import synthetic
from playwright.sync_api import Browser, Page

from pgkit.compare.report.html import write_report
from pgkit.compare.tables import Analysis
from pgkit.plots.page import slug

pytestmark = list(NEEDS_BROWSER)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return synthetic()


@pytest.fixture(scope="module")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that was written."""
    return write_report(analysis, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as opened:
        yield opened


@pytest.fixture(params=[1200, 400])
def page(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, at two widths; whatever it asks for beside itself, and what it complains about, fails the test."""
    opened = browser.new_page(viewport={"width": request.param, "height": 800})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    opened.on("request", lambda sent: complaints.append(f"request: {sent.url}"))
    opened.route(lambda url: url != report.as_uri(), lambda route: route.abort())
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert complaints == [f"request: {report.as_uri()}"]


def test_all_figures_are_visible(page: Page) -> None:
    boxes = [drawing.bounding_box() for drawing in page.query_selector_all("figure svg")]
    assert len(boxes) == 16
    width = page.viewport_size["width"]
    for box in boxes:
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 150
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    shapes = "figures => figures.map(figure => figure.querySelectorAll('path').length)"
    assert min(page.eval_on_selector_all("figure svg", shapes)) > 15


def test_nothing_is_wider_than_the_screen(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    seen, content = page.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
    assert content == seen == page.viewport_size["width"]
    boxes = "boxes => boxes.map(box => [box.scrollWidth, box.clientWidth])"
    widths = page.eval_on_selector_all(".scroll", boxes)
    assert len(widths) > 20
    if seen == 400:
        assert any(inner > outer for inner, outer in widths), "wide tables scroll inside their boxes"


def test_tables_sort_on_a_click(page: Page) -> None:
    table = page.locator("table[data-table=arms]").first
    header = table.locator("th[data-columns^='mean ']")
    read = "cells => cells.map(cell => JSON.parse(cell.dataset.exact)[0])"
    column = table.locator("tbody td:nth-child(4)")
    before = column.evaluate_all(read)
    header.get_by_role("button").click()
    assert column.evaluate_all(read) == sorted(before)
    assert header.get_attribute("aria-sort") == "ascending"
    header.get_by_role("button").press("Enter")
    assert column.evaluate_all(read) == sorted(before, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    table.locator("th").first.get_by_role("button").click()
    names = table.locator("tbody td:first-child").all_inner_texts()
    assert names == sorted(names)
    assert page.locator("table[data-table=arms]").first.locator("[aria-sort]").count() == 1


def test_missing_numbers_sort_last(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    table = page.locator("table[data-table=runs]").first
    table.locator("th[data-columns=steps_to_threshold] button").click()
    shown = table.locator("tbody td:nth-child(12)").all_inner_texts()
    number = shown.index("\u2013")
    assert number > 0
    assert set(shown[number:]) == {"\u2013"}


def test_it_prints(page: Page) -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("nav").is_visible()
    boxes = [drawing.bounding_box() for drawing in page.query_selector_all("figure svg")]
    assert all(box is not None and box["width"] > 50 for box in boxes)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_numbers_are_those_of_the_parquet_files(browser: Browser, report: Path, analysis: Analysis) -> None:
    opened = browser.new_page()
    opened.goto(report.as_uri())
    read = """tables => tables.map(table => ({
        name: table.dataset.table, place: table.dataset.case,
        columns: [...table.tHead.rows[0].cells].map(cell => cell.dataset.columns.split(" ")),
        rows: [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.dataset.exact)),
        text: [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))}))"""
    tables = opened.eval_on_selector_all("table", read)
    opened.close()
    seen = {table["name"] for table in tables}
    assert seen == set(analysis.tables) - {"curves", "across", "profiles"}
    for table in tables:
        stored = pd.read_parquet(report.parent / "tables" / f"{table['name']}.parquet")
        if "agent" in stored:
            stored = stored[(stored["environment"] + "-" + stored["agent"]).map(slug) == table["place"]]
        if table["name"] == "runs":
            stored = stored[stored["stage"] == "evaluation"]
        assert len(table["rows"]) == len(stored) > 0
        for place, columns in enumerate(table["columns"]):
            shown = pd.DataFrame([json.loads(row[place]) for row in table["rows"]], columns=columns)
            expected = stored[columns].reset_index(drop=True)
            pd.testing.assert_frame_equal(shown, expected, check_dtype=False, check_exact=True)


def test_shown_numbers_are_the_exact_ones_rounded(browser: Browser, report: Path) -> None:
    opened = browser.new_page()
    opened.goto(report.as_uri())
    cells = opened.locator("table[data-table=arms]").first.locator("tbody td:nth-child(4)")
    for shown, values in zip(
        cells.all_inner_texts(), cells.evaluate_all("c => c.map(x => x.dataset.exact)"), strict=True
    ):
        mean, low, high = json.loads(values)
        assert shown == f"{mean:.3f} [{low:.3f}, {high:.3f}]"
    opened.close()
