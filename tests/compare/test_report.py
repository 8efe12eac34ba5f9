"""The report of a comparison: its words, its files, and that equal tables give equal bytes."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.comparisons import PEAKS, synthetic

from pgkit.compare.report import prose
from pgkit.compare.report.figures import draw_all
from pgkit.compare.report.html import page as page_of
from pgkit.compare.report.html import write_report
from pgkit.compare.tables import SCHEMAS, Analysis, check_tables, make_table, schemas
from pgkit.config.load import flatten
from pgkit.errors import PgkitError
from pgkit.plots.columns import p_value
from pgkit.plots.page import duration, exact, slug

CASE = ("CartPole-v1", "reinforce")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return synthetic()


@pytest.fixture(scope="module")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a report."""
    return write_report(analysis, tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a report that may make no claims."""
    return write_report(exploratory(), tmp_path_factory.mktemp("quick")).parent


def exploratory() -> Analysis:
    """Of the quick tier, and of one agent."""
    return synthetic("quick", agents=("reinforce",), evaluation=10)


def changed(analysis: Analysis, **tables: pd.DataFrame) -> Analysis:
    """With other tables."""
    return replace(analysis, tables=dict(analysis.tables) | tables)


def with_verdicts(analysis: Analysis, verdicts: Mapping[tuple[str, str], str]) -> Analysis:
    """With these verdicts, all others unresolved, and no flips."""
    pairs = analysis.tables["pairs"].copy()
    pairs["verdict"] = [verdicts.get(pair, "unresolved") for pair in zip(pairs["first"], pairs["second"], strict=True)]
    pairs["flips"] = False
    return changed(analysis, pairs=pairs)


def text(page: Path) -> str:
    """What a reader of the page sees, figures left out."""
    html = re.sub(r"<(style|script|svg).*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


# --- words ---


def test_a_winner_is_named_with_its_margin(analysis: Analysis) -> None:
    better = {(arm, "adam"): "worse" for arm in ("sgd", "momentum", "rmsprop")}
    answer = prose.answers(with_verdicts(analysis, better))[0]
    mean = analysis.of("arms", CASE).set_index("optimizer").loc["adam"]
    assert answer.case == "CartPole-v1, reinforce"
    assert answer.text.startswith("adam is better than sgd, momentum and rmsprop: mean score ")
    assert f"{mean['mean']:.2f} [{mean['t_low']:.2f}, {mean['t_high']:.2f}]" in answer.text
    assert "3 of 6 pairs are resolved (0 as equivalent within 0.05, 3 unresolved), with 20 runs" in answer.sure
    assert "adam has the highest mean in 95 % of bootstrap resamples" in answer.sure
    assert answer.sure.endswith("With second-best learning rates none of 6 verdicts changes.")


def test_no_winner_is_named_where_there_is_none(analysis: Analysis) -> None:
    nobody = prose.answers(with_verdicts(analysis, {}))[0]
    assert nobody.text.startswith("No optimizer was shown to be better than another. Mean scores: sgd ")
    some = prose.answers(with_verdicts(analysis, {("sgd", "adam"): "worse", ("momentum", "adam"): "equivalent"}))[0]
    assert some.text.startswith("No optimizer was shown to be better than all others.")
    assert "None was shown to be better than momentum, rmsprop or adam; sgd is worse than adam." in some.text
    assert "(1 as equivalent within 0.05, 4 unresolved)" in some.sure


def test_what_was_not_tested_is_not_called_stable(analysis: Analysis) -> None:
    pairs = analysis.tables["pairs"].assign(second_best_verdict="", flips=False)
    assert prose.answers(changed(analysis, pairs=pairs))[0].sure.endswith("learning rates were not evaluated.")


def test_verdicts_come_from_pairs_and_not_from_means(analysis: Analysis) -> None:
    answer = prose.answers(
        with_verdicts(analysis, {("sgd", arm): "better" for arm in ("momentum", "rmsprop", "adam")})
    )[0]
    assert answer.text.startswith("sgd is better than momentum, rmsprop and adam")


def test_remarks_say_what_a_quoted_number_needs(analysis: Analysis) -> None:
    remarks = "\n".join(prose.remarks(analysis, CASE))
    arms = analysis.of("arms", CASE).set_index("optimizer")
    assert "Edge optimum: the best rate of sgd, 1, is at the upper end of the grid" in remarks
    assert (
        "The selection for rmsprop is uncertain: resampled tuning seeds choose 3.16e-3 in 80 % and 1e-3 in 20 %"
        in remarks
    )
    assert "momentum against rmsprop is" in remarks
    assert "but worse with the second-best settings" in remarks
    assert f"Did not learn: {20 - arms.loc['sgd', 'learnt']} of 20 runs of sgd (95 %: " in remarks
    assert "Collapsed: " in remarks
    skewed = (
        f"The scores of rmsprop are skewed (-1.4), so few runs move their mean, {arms.loc['rmsprop', 'mean']:.2f}: "
    )
    assert f"{skewed}the median is {arms.loc['rmsprop', 'median']:.2f}" in remarks
    assert "have a confidence of 60.8 % with 20 runs, not 95 %" in remarks


def test_few_seeds_allow_neither_intervals_nor_verdicts() -> None:
    analysis = synthetic(evaluation=5, agents=("reinforce",))
    assert not analysis.claims
    remarks = "\n".join(prose.remarks(analysis, CASE))
    assert "no intervals" in remarks
    assert "BCa interval" not in remarks
    assert "Tolerance" not in remarks
    answer = prose.answers(analysis)[0]
    assert answer.sure.startswith(
        "With 5 runs per optimizer there are too few for intervals. Mean scores, in the order "
    )
    assert "[" not in answer.text + answer.sure
    html = page_of(analysis, [])
    assert "no ranking claims" in html
    shown = " ".join(re.findall(r'data-columns="([^"]*)"', html)).split()
    assert {"t_low", "bca_low", "improvement", "verdict"}.isdisjoint(shown)
    assert {"pairs", "improvement"}.isdisjoint(draw_all(analysis, CASE))


def test_introduction_says_what_was_not_varied(analysis: Analysis) -> None:
    said = prose.introduction(analysis)
    assert "7 learning rates from 1e-3 to 1, each with 3 tuning seeds" in said
    assert said.endswith("network, batch size, discount, clipping and the critic's optimizer.")
    assert "exploratory" not in said


def test_words_are_joined_as_people_do() -> None:
    assert [prose.joined(list("abc"[:k])) for k in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert [prose.seeds(s) for s in ([], [4], [0, 1, 2], [3, 5, 6])] == ["none", "4", "0 to 2 (3)", "3, 5, 6"]
    assert [duration(s) for s in (5, 65, 3725)] == ["5 s", "1 min 5 s", "1 h 2 min"]
    assert slug("CartPole-v1, actor-critic") == "cartpole-v1-actor-critic"
    assert flatten({"a": {"b": 1, "c": "x"}, "d": [1, None]}) == {"a.b": 1, "a.c": "x", "d": [1, None]}
    assert exact((0.1, math.nan, True, "x")) == '[0.1, NaN, true, "x"]'


def test_small_p_values_are_never_shown_as_zero() -> None:
    assert [p_value(p) for p in (0.0004, 0.001, 0.04, 1.0)] == ["< 0.001", "0.001", "0.040", "1.000"]


# --- the quick tier ---


def test_quick_tier_makes_no_ranking_claims(quick: Path) -> None:
    for said in (text(quick / "report.html"), (quick / "summary.md").read_text(encoding="utf-8")):
        assert "exploratory: no ranking claims" in said
        assert "P(best)" not in said
        assert "mean rank" not in said
        assert not re.search(r"(is|are) (better|worse|equivalent|unresolved)\b", said)
        assert "with second-best rates" not in said


# --- files ---


def test_everything_is_written(report: Path, analysis: Analysis) -> None:
    tables = {f"{name}.{end}" for name in SCHEMAS for end in ("csv", "parquet")}
    assert {path.name for path in (report / "tables").iterdir()} == tables
    assert {path.suffix for path in (report / "figures").iterdir()} == {".png", ".svg"}
    assert len(list((report / "figures").glob("*.png"))) == 16
    assert {path.name for path in report.iterdir()} == {"figures", "report.html", "summary.md", "tables"}
    for name, table in analysis.tables.items():
        pd.testing.assert_frame_equal(pd.read_parquet(report / "tables" / f"{name}.parquet"), table, check_dtype=False)
        assert list(pd.read_csv(report / "tables" / f"{name}.csv").columns) == list(SCHEMAS[name].all)


def test_equal_tables_give_equal_bytes(quick: Path, tmp_path: Path) -> None:
    write_report(exploratory(), tmp_path)
    files = [path.relative_to(quick) for path in sorted(quick.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert [name for name in files if (quick / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_a_table_that_breaks_its_schema_is_refused_before_anything_is_written(
    analysis: Analysis, tmp_path: Path
) -> None:
    broken = changed(analysis, pairs=analysis.tables["pairs"].drop(columns="p"))
    with pytest.raises(PgkitError, match="table 'pairs' lacks the columns p"):
        write_report(broken, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_has_just_begun_can_be_reported(analysis: Analysis, tmp_path: Path) -> None:
    empty = {name: table.iloc[:0] for name, table in analysis.tables.items()}
    page = write_report(replace(analysis, tables=empty), tmp_path)
    assert "there is no answer yet" in text(page)


def test_summary_has_the_answer_and_the_tables(report: Path, analysis: Analysis) -> None:
    summary = (report / "summary.md").read_text(encoding="utf-8")
    for answer in prose.answers(analysis):
        assert f"**{answer.case}.** {answer.text}" in summary
    rows = [line for line in summary.splitlines() if line.startswith("| adam |")]
    assert len(rows) == 2
    assert len({line.count("|") for line in rows}) == 1
    assert analysis.plan["hash"] in summary


# --- the page ---


class Page(HTMLParser):
    """What a page refers to, its ids, and which tags are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given[key]) for key in ("href", "src", "xlink:href") if key in given]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    parser = Page()
    parser.feed((report / "report.html").read_text(encoding="utf-8"))
    return parser


def test_page_needs_nothing_else(report: Path, page: Page) -> None:
    html = (report / "report.html").read_text(encoding="utf-8")
    own = ("#", "tables/", "figures/", "data:,")
    assert page.links
    assert all(link.startswith(own) for link in page.links), "no request leaves the page"
    assert not re.search(r"@import|url\((?!#)|@font-face", html)
    for link in page.links:
        if link.startswith(("tables/", "figures/")):
            assert (report / link).exists()
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "img", "object", "embed"})


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_page_is_readable_without_eyes(page: Page) -> None:
    drawings = [given for tag, given in page.tags if given.get("role") == "img"]
    assert len(drawings) == 16
    assert all(len(given["aria-label"]) > 40 for given in drawings)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("figure") == tags.count("figcaption") == 16
    assert tags.count("table") == tags.count("caption") > 10
    assert tags.count("h1") == tags.count("main") == tags.count("nav") == 1
    assert all(given.get("scope") == "col" for tag, given in page.tags if tag == "th")


@pytest.mark.parametrize(
    "said",
    [
        "0123456789abcdef" * 4,
        "one chunk was run again after its worker ended unexpectedly",
        "1000 to 1019 (20)",
        "0 to 2 (3)",
        "329 planned, 328 finished: ",
        "1 missing",
        "Tuning cost: sgd 21 runs, 4.2M steps",
        "p &lt;- p - lr g / (sqrt(v) + eps);",
        "versions.torch",
        "a processor",
        "hardware.cores",
        "threads.OMP_NUM_THREADS",
        "git.commit",
        "the critic&#39;s optimizer",
        "constant 1",
        "1 h 12 min",
        "differences within &plusmn;0.05",
        "network.hidden",
    ],
)
def test_page_states(report: Path, said: str) -> None:
    assert said in text(report / "report.html")


def test_texts_of_users_are_no_markup(analysis: Analysis) -> None:
    plan = dict(analysis.plan) | {"question": "<script>alert(1)</script> & more"}
    html = page_of(replace(analysis, plan=plan), [])
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert html.count("<script>") == 1


# --- tables ---


def test_tables_are_checked(analysis: Analysis) -> None:
    check_tables(analysis.tables)
    assert list(make_table("pairs", []).columns) == list(SCHEMAS["pairs"].all)
    row = dict.fromkeys(SCHEMAS["baselines"].all, 1)
    assert len(make_table("baselines", [row, row | {"policy": 2}])) == 2
    for rows, message in (
        ([row, row], 'has this row twice: {"environment": 1, "policy": 1}'),
        ([row | {"extra": 1}], "has unknown columns extra"),
        ([{"policy": 1}], "lacks the columns environment, episodes"),
    ):
        with pytest.raises(PgkitError, match=re.escape(message)):
            make_table("baselines", rows)
    with pytest.raises(PgkitError, match="table 'runs' is missing"):
        check_tables({})


def test_readme_describes_every_table() -> None:
    readme = (Path(prose.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))
    assert described == set(SCHEMAS) | set(schemas(all_tuned=True)) | set(schemas(screened=True))


def test_scale_is_measured_where_it_is_not_declared(analysis: Analysis) -> None:
    declared = dict(analysis.plan["environments"]["CartPole-v1"])
    measured = {"environments": {"CartPole-v1": declared | {"random_return": None}}}
    assert replace(analysis, plan=dict(analysis.plan) | measured).scale("CartPole-v1") == declared
    assert analysis.labels == list(PEAKS)
