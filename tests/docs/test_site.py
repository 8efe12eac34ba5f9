"""The documentation site is built without warnings, its links lead somewhere, and its examples run."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from helpers.browsers import launched, needs_browser

pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).parents[2]
PAGES = ROOT / "scripts" / "docs" / "pages"
EXAMPLES = {
    f"{path.relative_to(PAGES)}, {index}": text
    for path in sorted(PAGES.rglob("*.md"))
    for index, text in enumerate(
        re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    )
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, str(ROOT / "scripts" / "docs"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "site"


class Targets(HTMLParser):
    """The links of a page, and the places in it that links may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.places.add(value)
            if value and name in ("href", "src") and not re.match(r"[a-z]+:|#__", value):
                self.links.append(value)


@pytest.mark.process
def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {
        path: Targets(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"
    }
    assert len(pages) > 25
    broken = []
    for path, page in pages.items():
        for link in page.links:
            name, _, place = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (place and target in pages and place not in pages[target].places):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


@pytest.mark.process
def test_the_reference_has_formulas_types_and_examples(site: Path) -> None:
    from pgkit.optim import list_optimizers

    optimizers = (site / "reference" / "optimizers.html").read_text(encoding="utf-8")
    assert [name for name in list_optimizers() if f'id="{name}"' not in optimizers] == []
    reference = (site / "reference" / "pgkit.html").read_text(encoding="utf-8")
    assert 'id="pgkit.training.train.train"' in reference
    assert "TrainResult" in reference
    assert "&gt;&gt;&gt;" in reference


@pytest.mark.process
@needs_browser
def test_pages_open_in_a_browser(site: Path) -> None:
    with launched() as browser:
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name, heading in (
            ("index.html", "pgkit"),
            ("tutorial/first-run.html", "1. First run"),
            ("reference/pgkit.optim.html", "pgkit.optim"),
        ):
            page.goto((site / name).as_uri())
            assert page.locator("h1").first.inner_text().rstrip("¶\n") == heading
        assert problems == []


PRINTED = {
    "coming-from.md, 0": "",
    "tutorial/first-run.md, 0": r"(\d \d+\.\d+\n){3}",
    "tutorial/own-environment.md, 0": "",
    "tutorial/own-environment.md, 1": r"\(4,\) 1\.0 (True|False) False\n",
    "tutorial/own-network.md, 0": "",
    "tutorial/own-optimizer.md, 0": "",
    "tutorial/own-optimizer.md, 1": r"tensor\(\[.*\]\)\n",
}
"""What each example prints; those that print nothing define or register something."""


def test_every_example_is_known() -> None:
    assert list(EXAMPLES) == list(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_should(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name], name, "exec"), {"__name__": "docs"})
    assert re.fullmatch(PRINTED[name], capsys.readouterr().out)
