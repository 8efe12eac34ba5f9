"""diagnosis.json and the tables beside it: what is written is read back."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.diagnoses import COPIES, SHARES, full, minimal

from pgkit.diagnose.report.json_file import (
    flat,
    nested,
    number_json,
    plain,
    quantity_from_json,
    quantity_json,
    read_diagnosis,
    write_diagnosis,
)
from pgkit.diagnose.report.tables import arrow_table, evidence, member_number, verdict_rows, write_tables
from pgkit.diagnose.results import Diagnosis, PointResult, Quantity
from pgkit.errors import PgkitError


def write(diagnosis: Diagnosis, directory: Path) -> Path:
    """Both files of a diagnosis."""
    write_tables(diagnosis, directory / "tables")
    write_diagnosis(diagnosis, directory / "diagnosis.json")
    return directory


def same(a: Diagnosis, b: Diagnosis) -> bool:
    """Equality under which NaN is NaN."""
    return repr(a) == repr(b)


def test_a_diagnosis_is_read_back_as_it_was(tmp_path: Path) -> None:
    diagnosis = full()
    back = read_diagnosis(write(diagnosis, tmp_path))
    assert back.tables.keys() == diagnosis.tables.keys()
    assert replace(back, tables={}) == replace(diagnosis, tables={})
    for name, rows in diagnosis.tables.items():
        assert repr(back.tables[name]) == repr(rows), name
    assert same(read_diagnosis(tmp_path / "diagnosis.json"), back)


def test_nan_and_infinity_are_strict_json(tmp_path: Path) -> None:
    diagnosis = minimal()
    text = (write(diagnosis, tmp_path) / "diagnosis.json").read_text()

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    content = json.loads(text, parse_constant=refuse)
    (point,) = content["points"]
    assert point["J"] == {"value": 9.4, "low": 9.3, "high": 9.5, "n": 100}
    assert point["return"] == {"mean": point["J"]}
    unresolved = {"value": None, "low": 11.0, "high": "inf", "n": COPIES}
    assert point["noise"]["actor"]["nsr"] == unresolved | {"reason": "the gradient is not resolved (p = 0.4)"}
    assert point["noise"]["actor"]["signal"] == {"value": None, "reason": "the gradient is not resolved"}
    assert point["parts"]["best_multiple"] == {"value": "inf", "low": "-inf", "high": "inf"}
    assert point["critic"]["bias"] == {"value": None, "reason": "not a number"}
    expected = dict(diagnosis.points[0].quantities) | {"critic/bias": Quantity.missing("not a number")}
    assert repr(read_diagnosis(tmp_path).points[0].quantities) == repr(expected)


def test_nothing_at_all_is_read_back(tmp_path: Path) -> None:
    nothing = Diagnosis("runs/none", {}, [])
    assert read_diagnosis(write(nothing, tmp_path)) == replace(nothing, verdicts=[], not_done=[])
    assert pq.read_table(tmp_path / "tables" / "points.parquet").num_rows == 0


def test_estimators_may_be_called_value() -> None:
    quantities = {"estimators/value/variance": Quantity(1.0), "a/value": Quantity(2.0), "b": Quantity(math.inf, n=3)}
    assert dict(flat(nested(quantities))) == quantities
    assert nested(quantities)["estimators"] == {"value": {"variance": {"value": 1.0}}}


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a/b")])
def test_a_quantity_cannot_be_a_section_too(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="begin alike"):
        nested(dict.fromkeys(names, Quantity(1.0)))


@pytest.mark.parametrize(
    ("value", "entry"), [(1.5, 1.5), (3, 3), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, None)]
)
def test_numbers_have_a_form_in_json(value: float, entry: object) -> None:
    assert number_json(value) == entry
    back = quantity_from_json(quantity_json(Quantity(value, value, value, 2, "why")))
    assert repr(back) == repr(Quantity(float(value), float(value), float(value), 2, "why"))


def test_plain_data_has_python_numbers_and_lists() -> None:
    import numpy as np

    data = {"shares": (0.0, np.float64(0.5)), "n": np.int64(3), "none": None, 3: math.inf}
    assert json.dumps(plain(data), allow_nan=False) == '{"shares": [0.0, 0.5], "n": 3, "none": null, "3": "inf"}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged"),
        ('{"format": 2}', "format 2"),
        ("{}", "format None"),
        ('{"format": 1, "run": "x"}', "is damaged: KeyError"),
        (
            '{"format": 1, "run": "x", "settings": {}, "points": [3]}',
            "is damaged: TypeError|is damaged: AttributeError",
        ),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "diagnosis.json").write_text(content)
    with pytest.raises(PgkitError, match=said):
        read_diagnosis(tmp_path)


def test_a_missing_or_damaged_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PgkitError, match="cannot read"):
        read_diagnosis(tmp_path / "diagnosis.json")
    write(full(), tmp_path)
    (tmp_path / "tables" / "updates.parquet").write_bytes(b"PAR1")
    with pytest.raises(PgkitError, match=r"cannot read .*updates"):
        read_diagnosis(tmp_path)


def test_the_table_of_points_has_a_column_for_each_quantity_and_its_ends(tmp_path: Path) -> None:
    diagnosis = full()
    write(diagnosis, tmp_path)
    table = pq.read_table(tmp_path / "tables" / "points.parquet")
    assert table.column_names[:5] == ["member", "label", "env_steps", "share", "critical"]
    assert table.num_rows == 2 * len(SHARES)
    fallen = table.to_pylist()[14]
    assert (fallen["member"], fallen["label"], fallen["env_steps"]) == (301, "seed-301", 49_900.0)
    half_share = diagnosis.points[14].quantities["post_update/K/half_share"]
    columns = [fallen[f"post_update/K/half_share{end}"] for end in ("", "_low", "_high")]
    assert columns == list(half_share[:3])
    assert fallen["interventions/critic_fitted/half_share"] == 0.19
    assert table["interventions/critic_fitted/half_share"].null_count == 2 * len(SHARES) - 2


def test_every_table_begins_with_the_keys(tmp_path: Path) -> None:
    write(full(), tmp_path)
    paths = list((tmp_path / "tables").glob("*.parquet"))
    names = {"points", "verdicts", "updates", "curvature", "estimators", "critic_histogram", "cosines", "same_states"}
    assert {path.stem for path in paths} == names
    for path in paths:
        assert pq.read_schema(path).names[:3] == ["member", "label", "env_steps"]


def test_verdicts_have_a_row_for_each_of_their_points() -> None:
    healthy, fragile, _ = full().verdicts
    rows = verdict_rows(fragile)
    assert [row["env_steps"] for row in rows] == list(fragile.env_steps)
    assert json.loads(rows[0]["numbers"]) == list(fragile.evidence)
    assert len(verdict_rows(replace(healthy, env_steps=()))) == 1


def test_columns_of_mixed_values_become_json() -> None:
    table = arrow_table([{"x": 1}, {"x": "a"}, {"x": None}, {"y": [1, 2.5]}])
    assert table["x"].to_pylist() == ["1", '"a"', None, None]
    assert table["y"].to_pylist() == [None, None, None, [1.0, 2.5]]
    assert table.schema.field("x").type == pa.string()


def test_evidence_is_that_of_the_verdicts_points() -> None:
    diagnosis = full()
    numbers = evidence(diagnosis.verdicts[1], diagnosis.points)
    half_shares = {step: quantity.value for step, quantity in numbers["post_update/K/half_share"].items()}
    assert half_shares == {24_950.0: 0.31, 49_900.0: 0.77}
    assert set(numbers) == {"post_update/K/half_share", "interventions/critic_fitted/improvement"}
    other = PointResult("seed-9", diagnosis.verdicts[1].env_steps[0], 0.1, False, {"parts/odd": Quantity(1.0)})
    assert evidence(diagnosis.verdicts[1], [other]) == {}


@pytest.mark.parametrize(("label", "number"), [("seed-3", 3), ("0004-seed-7", 7), ("best", None), ("", None)])
def test_members_have_the_number_in_their_label(label: str, number: int | None) -> None:
    assert member_number(label) == number
