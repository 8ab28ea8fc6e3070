from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hangtag import BadRow, Product, ScoredTag, Tagging, TagVocabulary
from hangtag.catalogue.files import catalogue_file
from hangtag.catalogue.labelled import dataset_vocabulary, load_dataset, read_split
from hangtag.catalogue.products import parse_columns, read_catalogue
from hangtag.catalogue.rows import count_rows
from hangtag.catalogue.tagging_writer import TaggingWriter, tag_rows
from hangtag.errors import DataError
from hangtag.formats.rows import Reading


def test_jsonl_every_line_becomes_a_row(tmp_path: Path) -> None:
    lines = [
        b'{"id": "a", "title": "Cup"}',
        b"not json",
        b"",
        b'{"id": "b", "title": ""}',
        b'{"id": "c", "title": "caf\xe9"}',
        b"[1]",
        b'{"id": "d", "description": "only this"}',
        b"",
    ]
    path = tmp_path / "c.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    rows = list(read_catalogue(path))
    assert [(row.id, type(row).__name__) for row in rows] == [
        ("a", "Product"),
        ("line-2", "BadRow"),
        ("line-3", "BadRow"),
        ("b", "BadRow"),
        ("line-5", "BadRow"),
        ("line-6", "BadRow"),
        ("d", "Product"),
    ]
    reasons = [row.reason for row in rows if isinstance(row, BadRow)]
    assert [reason.split(" ")[0] for reason in reasons] == ["not", "an", "title", "not", "got"]


def test_csv_gz_parquet_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "title": "Cup, red", "attributes": {"size": "L"}, "tags": ["red"]},
        {"id": "2", "title": "杯子", "attributes": {}, "tags": []},
    ]
    (tmp_path / "c.csv").write_text(
        'id,title,attributes,tags\n1,"Cup, red","{""size"": ""L""}","[""red""]"\n2,杯子,,[]\n'
    )
    with gzip.open(tmp_path / "c.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("title", pa.string()),
            ("attributes", pa.map_(pa.string(), pa.string())),
            ("tags", pa.list_(pa.string())),
        ]
    )
    parquet = [row | {"attributes": list(row["attributes"].items())} for row in rows]  # type: ignore[attr-defined]
    pq.write_table(pa.Table.from_pylist(parquet, schema=schema), tmp_path / "c.parquet")
    expected = [
        Product(id="1", title="Cup, red", attributes={"size": "L"}, tags=("red",)),
        Product(id="2", title="杯子", tags=()),
    ]
    for name in ("c.csv", "c.jsonl.gz", "c.parquet"):
        assert list(read_catalogue(tmp_path / name)) == expected, name
    csv, parquet_file, packed = (catalogue_file(tmp_path / f"c.{end}") for end in ("csv", "parquet", "jsonl.gz"))
    assert count_rows(csv) == count_rows(parquet_file) == 2
    assert count_rows(packed) is None


def test_csv_bad_rows_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"id,title\n1,Gl\xc3\xa4ser\n2,Cup,extra\n3,caf\xe9\n4," + b"x" * 200_000 + b"\n")
    rows = list(read_catalogue(path))
    assert [type(row).__name__ for row in rows] == ["Product", "BadRow", "BadRow", "Product"]


def test_column_mapping(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("sku,name,Farbe\n7,Cup,rot\n")
    columns = parse_columns(["id=sku", "title=name", "attributes.colour=Farbe"])
    assert list(read_catalogue(path, columns)) == [Product(id="7", title="Cup", attributes={"colour": "rot"})]


def test_damaged_gzip_is_a_bad_row_at_the_end(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(b'{"title": "%d"}\n' % os.getrandom(8)[0] for _ in range(5000)))
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    rows = list(read_catalogue(path))
    assert isinstance(rows[-1], BadRow)
    assert "damaged" in rows[-1].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no such file"),
        ("c.doc", b"x", "got .doc, expected .jsonl"),
        ("c.jsonl", b"\n\n", "no rows"),
        ("c.csv", b"id,title\n", "no rows"),
        ("c.csv", b"id,name\n1,Cup\n", "name them with --map title=COLUMN"),
        ("c.csv", b"id,title,title\n1,a,b\n", "stands twice"),
        ("c.parquet", b"PAR1", "not readable as Parquet"),
        ("c.jsonl.gz", b"plain", "damaged"),
    ],
)
def test_refuses_a_file(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    try:
        rows = list(read_catalogue(path))
    except DataError as error:
        assert message in str(error)
    else:
        assert message in " ".join(row.reason for row in rows if isinstance(row, BadRow))


def test_refuses_a_mapped_column_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"name": "Cup"}\n')
    with pytest.raises(DataError, match="no column 'label'.*the first row has: name"):
        list(read_catalogue(path, {"title": "label"}))
    with pytest.raises(DataError, match="expected FIELD=COLUMN"):
        parse_columns(["titel=name"])


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5))
def test_tag_rows_keeps_every_row_in_its_place(is_good: list[bool], ahead: int) -> None:
    vocabulary = TagVocabulary.from_json(["red"])
    rows: list[Product | BadRow] = [
        Product(id=str(n), title="x") if good else BadRow(str(n), n, "broken") for n, good in enumerate(is_good)
    ]

    def stream(products: Iterable[Product]) -> Iterator[Tagging]:
        waiting: list[Product] = []
        for product in products:
            waiting.append(product)
            if len(waiting) >= ahead:
                first = waiting.pop(0)
                yield Tagging(id=first.id, model="m", vocabulary="v")
        for product in waiting:
            yield Tagging(id=product.id, model="m", vocabulary="v")

    taggings = list(tag_rows(stream, rows, model="m", vocabulary=vocabulary))
    assert [tagging.id for tagging in taggings] == [row.id for row in rows]
    assert [tagging.status == "ok" for tagging in taggings] == is_good


TAGGINGS = [
    Tagging(id="1", tags=(ScoredTag(tag="红", facet="colour", confidence=0.5),), model="m", vocabulary="v"),
    Tagging(id="2", status="error", reason="broken", model="m", vocabulary="v"),
    Tagging(id="3", reason="repaired", violations={"unknown": 2}, model="m", vocabulary="v"),
]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.csv", "t.parquet"])
def test_writer_appears_only_when_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / name
    with TaggingWriter(path) as writer:
        writer.write(TAGGINGS[:2])
        assert not path.exists()
        writer.write(TAGGINGS[2:])
    assert writer.num_written == 3
    if name == "t.parquet":
        rows = pq.read_table(path).to_pylist()
        assert [row["id"] for row in rows] == ["1", "2", "3"]
        assert rows[2]["violations"] == [("unknown", 2)]
    elif name == "t.csv":
        assert path.read_text(encoding="utf-8").count("\n") == 4
    else:
        data = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
        assert [Tagging.model_validate_json(line) for line in data.splitlines()] == TAGGINGS
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_writer_leaves_no_file_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(RuntimeError), TaggingWriter(path) as writer:
        writer.write(TAGGINGS)
        raise RuntimeError
    assert not path.exists()
    with pytest.raises(DataError, match="expected a name that ends in"):
        TaggingWriter(tmp_path / "t.txt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_writer_says_when_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / ".t.jsonl.partial").symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left on device"), TaggingWriter(tmp_path / "t.jsonl") as writer:
        for _ in range(200):
            writer.write(TAGGINGS)
    assert not (tmp_path / "t.jsonl").exists()


def test_load_dataset_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_dataset(tmp_path / "none")
    (tmp_path / "vocabulary.json").write_text('["red"]')
    (tmp_path / "train.jsonl").write_text('{"id": "1", "title": "x", "tags": ["red"]}\n')
    with pytest.raises(DataError, match="no validation.jsonl"):
        load_dataset(tmp_path)
    data = load_dataset(tmp_path, splits=("train",))
    assert len(data.train) == 1
    assert data.test == ()
    (tmp_path / "train.jsonl").write_text('{"id": "1", "title": "x"}\n')
    with pytest.raises(DataError, match="product '1' has no `tags`"):
        load_dataset(tmp_path, splits=("train",))


def test_one_labelled_file_is_drawn_into_splits(tmp_path: Path) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text("Name;Kind\n" + "".join(f"Cup {n};{'red' if n % 2 else 'blue'}\n" for n in range(200)))
    reading = Reading(columns={"title": "name"}, label_column="Kind")
    data = load_dataset(path, reading=reading)
    sizes = [len(data.train), len(data.validation), len(data.test)]
    assert sum(sizes) == 200
    assert min(sizes) > 5
    assert data.vocabulary.names == ("blue", "red")
    assert data.train[0].tags in (("red",), ("blue",))
    again = load_dataset(path, splits=("test",), reading=reading)
    assert (again.test, again.train) == (data.test, ())
    assert tuple(read_split(path, "test", reading=reading)) == data.test
    assert dataset_vocabulary(path, reading=reading).names == data.vocabulary.names


def test_splits_may_be_files_of_any_format(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text('["red"]')
    (tmp_path / "test.tsv").write_text("title\ttags\nCup\tred\n")
    assert load_dataset(tmp_path, splits=("test",)).test[0].tags == ("red",)
