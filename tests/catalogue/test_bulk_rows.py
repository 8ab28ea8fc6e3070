"""Reading catalogues row by row, from any row on."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hangtag.catalogue.files import catalogue_file, changed_file, list_files
from hangtag.catalogue.rows import CatalogueRows
from hangtag.errors import DataError
from hangtag.formats.rows import Position, Row

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROWS = st.lists(st.fixed_dictionaries({"id": TEXT, "title": TEXT}), min_size=1, max_size=30)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    if path.suffix == ".parquet":
        schema = pa.schema([("id", pa.string()), ("title", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=7)
        return
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as stream:
        if ".jsonl" in path.name:
            stream.writelines(json.dumps(row).encode() + b"\n" for row in rows)
        else:
            import io

            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, ["id", "title"])
            writer.writeheader()
            writer.writerows(rows)
            stream.write(b"\xef\xbb\xbf" + text.getvalue().encode())


def read_all(rows: CatalogueRows, count: int) -> list[Row]:
    found: list[Row] = []
    while batch := rows.read(count):
        assert len(batch) <= count
        found += batch
    return found


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(rows=ROWS, count=st.integers(1, 9), stop=st.integers(0, 30))
def test_reading_goes_on_at_every_position(
    tmp_path: Path, name: str, rows: list[dict[str, str]], count: int, stop: int
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder / name, rows)
    files = list_files([tmp_path / "one" / name, tmp_path / "two" / name])
    whole = CatalogueRows(files)
    expected = read_all(whole, 1000)
    assert [row for _, row in expected] == rows + rows
    assert [line for line, _ in expected] == [*range(1, len(rows) + 1)] * 2
    first = CatalogueRows(files)
    head: list[Row] = []
    while len(head) < min(stop, 2 * len(rows)):
        head += first.read(min(count, stop - len(head)))
    position = Position(*json.loads(json.dumps(first.position)))
    first.close()
    second = CatalogueRows(files, start=position)
    assert head + read_all(second, count) == expected


def test_blank_and_broken_lines_keep_their_numbers_after_going_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":1}\n\n\nbroken\n\n{"id":2}\n\n\n')
    files = [catalogue_file(path)]
    expected = read_all(CatalogueRows(files), 100)
    assert [line for line, _ in expected] == [1, 2, 3, 4, 5, 6]
    for stop in range(1, 7):
        first = CatalogueRows(files)
        head: list[Row] = []
        while len(head) < stop:
            head += first.read(stop - len(head))
        first.close()
        assert head + read_all(CatalogueRows(files, start=first.position), 2) == expected


def test_folders_patterns_and_uris_name_the_same_files(tmp_path: Path) -> None:
    for name in ("b.csv", "a.jsonl", "deep/c.parquet", "notes.txt", ".hidden.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, [{"id": "1", "title": name}])
    by_folder = [file.path for file in list_files([tmp_path])]
    assert [Path(path).name for path in by_folder] == ["a.jsonl", "b.csv", "c.parquet"]
    assert [file.path for file in list_files([f"{tmp_path}/**/*.[cjp]*"])] == by_folder
    uris = list_files([f"file://{tmp_path}"])
    assert [file.path for file in uris] == [f"file://{path}" for path in by_folder]
    titles = [row["title"] for _, row in read_all(CatalogueRows(uris), 10) if isinstance(row, dict)]
    assert titles == ["a.jsonl", "b.csv", "deep/c.parquet"]


@pytest.mark.parametrize(
    ("given_path", "message"),
    [
        ("none/*.csv", "no file matches"),
        ("empty", "a folder without"),
        ("none.csv", "no such file"),
        ("file:///none/at/all.csv", "no such file"),
        ("what://ever/a.csv", "not reachable"),
    ],
)
def test_inputs_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_path: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(DataError, match=message):
        list_files([given_path])


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n')
    files = list_files([path])
    assert changed_file(files) is None
    path.write_text('{"id": 1}\n{"id": 2}\n')
    assert "10 bytes then, 20 now" in (changed_file(files) or "")
    path.unlink()
    assert "no such file" in (changed_file(files) or "")


def test_parquet_types_come_as_python_values(tmp_path: Path) -> None:
    table: Any = pa.table(
        {
            "title": pa.array(["cup", None]),
            "attributes": pa.array([[("size", "L")], None], pa.map_(pa.string(), pa.string())),
            "price": pa.array([1.5, None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = CatalogueRows([catalogue_file(tmp_path / "a.parquet")])
    assert rows.read(5) == [
        (1, {"title": "cup", "attributes": {"size": "L"}, "price": 1.5}),
        (2, {"title": None, "attributes": {}, "price": None}),
    ]


def test_short_floats_keep_their_own_digits(tmp_path: Path) -> None:
    table: Any = pa.table(
        {
            "price": pa.array([0.3, None], pa.float32()),
            "sizes": pa.array([[0.1, 2.0], None], pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = CatalogueRows([catalogue_file(tmp_path / "a.parquet")])
    assert rows.read(5) == [
        (1, {"price": 0.3, "sizes": [0.1, 2.0]}),
        (2, {"price": None, "sizes": None}),
    ]
