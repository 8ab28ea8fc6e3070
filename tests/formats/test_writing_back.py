"""Tags written back: read, tag with the lexical baseline, write, read again; every other cell as it was."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hangtag.catalogue.products import read_catalogue
from hangtag.cli import main
from hangtag.formats.delimited_writer import _spans, _with_cell
from hangtag.formats.dialect import Dialect
from hangtag.formats.json_writer import with_value
from hangtag.formats.rows import Reading
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

FILES = Path(__file__).resolve().parents[1] / "data" / "formats"
TAGS = ["shoes", "waterproof", "mug", "lantern", "hoodie", "cotton", "knitted hat", "red", "butter", "plums"]


class Shop:
    """A vocabulary and the command over a file."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.error = self.out = ""
        self.tags(TAGS)

    def tags(self, tags: list[str]) -> None:
        (self.folder / "tags.txt").write_text("\n".join(tags), encoding="utf-8")

    def run(self, file: Path, *options: str) -> int:
        code = main(
            [
                "tag",
                "--file",
                str(file),
                "--vocabulary",
                str(self.folder / "tags.txt"),
                "--baseline",
                "lexical",
                *options,
            ]
        )
        shown = self._capsys.readouterr()
        self.out, self.error = shown.out, shown.err
        return code


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, capsys)


def tags_of(path: Path, **reading: Any) -> dict[str, tuple[str, ...] | None]:
    rows = read_catalogue(path, reading=Reading(**reading))
    return {row.id: row.tags for row in rows if isinstance(row, Product)}


def without(path: Path, column: str, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream, delimiter=delimiter))
    place = rows[0].index(column)
    return [[cell for n, cell in enumerate(row) if n != place] for row in rows]


def test_shopify_there_and_back(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert shop.run(FILES / "shopify.csv", "--to", "shopify", "--out", str(out), "--merge", "replace") == 0
    assert tags_of(out) == {
        "lumo-trail-runner": ("shoes", "waterproof", "red"),
        "hearth-mug": ("mug",),
        "tin-lantern": ("lantern", "red"),
    }
    assert without(out, "Tags") == without(FILES / "shopify.csv", "Tags")
    before, after = ((path.read_text(encoding="utf-8")) for path in (FILES / "shopify.csv", out))
    assert after == before.replace('"men, Running"', '"shoes, waterproof, red"').replace(
        "Mugs,Mugs,,", "Mugs,Mugs,mug,"
    ).replace("Lighting,old,", 'Lighting,"lantern, red",')
    assert "3 products, 3 with other tags than before, 0 without a tagging" in shop.error


def test_tags_of_a_shop_stay_by_default(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert shop.run(FILES / "shopify.csv", "--to", "shopify", "--out", str(out)) == 0
    assert tags_of(out)["lumo-trail-runner"] == ("men", "Running", "shoes", "waterproof", "red")
    again = tmp_path / "again.csv"
    assert shop.run(out, "--to", "shopify", "--out", str(again)) == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_diff_lists_changes_and_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    assert shop.run(FILES / "shopify.csv", "--to", "shopify", "--diff", "--merge", "replace") == 0
    assert shop.out.splitlines()[2] == "tin-lantern: + lantern, + red, - old"
    assert [path.name for path in tmp_path.iterdir()] == ["tags.txt"]


def test_woocommerce_there_and_back(shop: Shop, tmp_path: Path) -> None:
    shop.tags([*TAGS, "warm, soft"])
    out = tmp_path / "out.csv"
    assert shop.run(FILES / "woocommerce.csv", "--to", "woocommerce", "--out", str(out)) == 0
    assert tags_of(out) == {
        "HOOD": ("soft, warm", "cotton", "hoodie", "warm, soft", "red"),
        "11": ("knitted hat",),
        "=A1": ("lantern", "red"),
    }
    assert without(out, "Tags") == without(FILES / "woocommerce.csv", "Tags")
    assert out.read_bytes().startswith(b"\xef\xbb\xbfID,")
    variations = [line for line in out.read_text(encoding="utf-8").splitlines() if ",variation," in line]
    assert all(line in (FILES / "woocommerce.csv").read_text(encoding="utf-8") for line in variations)
    assert "1 without a tagging" in shop.error
    assert "whose Parent 'GONE' is no product" in shop.error


@pytest.mark.parametrize("name", ["google.tsv", "google_rss.xml", "google_atom.xml"])
def test_google_there_and_back(shop: Shop, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    assert shop.run(FILES / name, "--to", "google", "--out", str(out)) == 0
    found = tags_of(out, label_column="custom_label_0", tag_separator=",")
    assert found.pop("HM-1") == {
        "google.tsv": ("spring",), "google_rss.xml": ("spring", "mug"), "google_atom.xml": ("mug",)
    }[name]  # fmt: skip
    assert found in ({}, {"LTR-B": ("shoes",)}, {"LTR-B": ("shoes", "waterproof")})
    if out.suffix == ".xml":
        element = re.compile(r"\n?<g:custom_label_0>.*?</g:custom_label_0>")
        before, after = (element.sub("", path.read_text(encoding="utf-8")) for path in (FILES / name, out))
        assert before == after
    else:
        assert without(out, "custom_label_0", "\t") == without(FILES / name, "custom_label_0", "\t")


def test_meta_lists_and_googles_longest_label(shop: Shop, tmp_path: Path) -> None:
    file, out = tmp_path / "meta.csv", tmp_path / "out.csv"
    file.write_text("id,title,link,image_link,internal_label\n1,Red mug,l,i,\"['old']\"\n", encoding="utf-8")
    assert shop.run(file, "--to", "google", "--out", str(out)) == 0
    assert out.read_text(encoding="utf-8").endswith("1,Red mug,l,i,\"['old', 'red', 'mug']\"\n")
    assert tags_of(out) == {"1": ("old", "red", "mug")}
    long = [f"{word} {'x' * 40}" for word in "abc"]
    shop.tags(long)
    file.write_text(f"id,title,link,image_link\n1,{'. '.join(long)},l,i\n", encoding="utf-8")
    assert shop.run(file, "--to", "google", "--out", str(out)) == 0
    assert out.read_text(encoding="utf-8").splitlines()[1].endswith(f'"{long[0]}, {long[1]}"')


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252", "utf-16-be"])
def test_a_plain_file_keeps_its_bytes(shop: Shop, tmp_path: Path, encoding: str) -> None:
    rows = [
        "id;title;note",
        '1;"Red ""Größe"" mug";  x ',
        '2;lantern;"a\nb"',
        "3;too;many;cells",
        "4;;",
        "5;cup;y",
    ]
    text = "\r\n".join(rows) + "\r\n"
    data = text.encode(encoding) if encoding != "utf-16-be" else b"\xfe\xff" + text.encode(encoding)
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_bytes(data)
    assert shop.run(file, "--to", "csv", "--out", str(out)) == 0
    wanted = text.replace("title;note\r", "title;note;tags\r").replace(";  x \r", ';  x ;"[""red"", ""mug""]"\r')
    wanted = (
        wanted.replace('a\nb"\r', 'a\nb";"[""lantern""]"\r').replace("4;;\r", "4;;;\r").replace(";y\r", ";y;\r")
    )
    assert out.read_bytes() == (
        wanted.encode(encoding) if encoding != "utf-16-be" else b"\xfe\xff" + wanted.encode(encoding)
    )
    assert "2 without a tagging" in shop.error


def test_a_column_of_tags_keeps_its_separator(shop: Shop, tmp_path: Path) -> None:
    file, out = tmp_path / "in.csv", tmp_path / "out.csv.gz"
    file.write_text("id,title,Tags\n1,Red mug,old|new\n2,Lantern,\n", encoding="utf-8")
    assert shop.run(file, "--to", "csv", "--out", str(out)) == 0
    assert (
        gzip.decompress(out.read_bytes()).decode()
        == "id,title,Tags\n1,Red mug,old| new| red| mug\n2,Lantern,lantern\n"
    )


def test_a_tag_that_cannot_stand_in_the_file_is_one_line(shop: Shop, tmp_path: Path) -> None:
    shop.tags(["mug, red", "防水"])
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text("Handle,Title,Vendor,Tags\na,mug red,,\n", encoding="utf-8")
    (tmp_path / "tags.json").write_text(
        '[{"tag": "mug, red", "aliases": ["mug"]}, {"tag": "防水", "aliases": ["cup"]}]'
    )
    options = ("--vocabulary", str(tmp_path / "tags.json"), "--out", str(out))
    assert shop.run(file, "--to", "shopify", *options) == 2
    assert "tag 'mug, red' holds a comma" in shop.error
    file.write_bytes("id,title\n1,Größe cup\n".encode("cp1252"))
    assert shop.run(file, "--to", "csv", *options) == 2
    assert "'防水' of a tag cannot be written in cp1252" in shop.error
    assert not out.exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(
    ("name", "to", "tags"),
    [
        ("magento.csv", "csv", {"HOOD-B": ("hoodie", "cotton"), "HOOD": ("hoodie", "cotton", "red")}),
        ("openfoodfacts.csv", "csv", {"0000000000017": ("butter",), "0000000000024": ("plums",)}),
        ("openfoodfacts.jsonl", "jsonl", {"0000000000017": ("butter",), "0000000000024": ("plums",)}),
        (
            "shopify_2025.csv",
            "shopify",
            {"lumo-trail-runner": ("men", "Running", "shoes"), "hearth-mug": ("mug",)},
        ),
    ],
)
def test_other_formats_there_and_back(
    shop: Shop, tmp_path: Path, name: str, to: str, tags: dict[str, tuple[str, ...]]
) -> None:
    out = tmp_path / name
    assert shop.run(FILES / name, "--to", to, "--out", str(out)) == 0
    assert tags_of(out) == tags
    before, after = (
        [row.model_copy(update={"tags": None}) for row in read_catalogue(path) if isinstance(row, Product)]
        for path in (FILES / name, out)
    )
    assert after == before


def test_a_vocabulary_is_built_of_a_shops_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tags.json"
    assert main(["vocabulary", "build", str(FILES / "woocommerce.csv"), "--out", str(out)]) == 0
    assert TagVocabulary.from_path(out).names == ("cotton", "soft, warm")
    assert "1 rows are no products and were left out" in capsys.readouterr().err
    options = ["--label-column", "Type", "--out", str(out)]
    assert main(["vocabulary", "build", str(FILES / "shopify.csv"), *options]) == 0
    assert TagVocabulary.from_path(out).names == ("Lighting", "Mugs", "Shoes")


def test_json_lines_keep_every_other_byte(shop: Shop, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        '{"id":1,"title":"Red mug","price":1.50,"tags": ["old"] }',
        '{"title":"Gl\\u00e4ser \\"lantern\\""}',
        "broken",
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert shop.run(file, "--to", "jsonl", "--out", str(out)) == 0
    assert out.read_text(encoding="utf-8").splitlines() == [
        '{"id":1,"title":"Red mug","price":1.50,"tags": ["old", "red", "mug"] }',
        '{"title":"Gl\\u00e4ser \\"lantern\\"", "tags": ["lantern"]}',
        "broken",
    ]


def test_a_workbook_keeps_cells_and_formulas(shop: Shop, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [
        ["ID", "Title", "Sum", "Tags"],
        [12, "Red mug", "=1+1", "old"],
        [None],
        [13, "Lantern", 2.5, None],
    ]:
        book.active.append(row)
    book.active["B2"].font = openpyxl.styles.Font(bold=True)
    book.save(tmp_path / "in.xlsx")
    out = tmp_path / "out.xlsx"
    assert shop.run(tmp_path / "in.xlsx", "--to", "xlsx", "--out", str(out)) == 0
    sheet = openpyxl.load_workbook(out).active
    assert [[cell.value for cell in row] for row in sheet.iter_rows()] == [
        ["ID", "Title", "Sum", "Tags"],
        [12, "Red mug", "=1+1", '["old", "red", "mug"]'],
        [None] * 4,
        [13, "Lantern", 2.5, '["lantern"]'],
    ]
    assert sheet["B2"].font.bold
    assert tags_of(out) == {"12": ("old", "red", "mug"), "13": ("lantern",)}


def test_parquet_keeps_its_types(shop: Shop, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "title": ["Red mug", "x"],
            "price": pa.array([0.3, None], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    assert shop.run(tmp_path / "in.parquet", "--to", "parquet", "--out", str(out)) == 0
    found = pq.read_table(out)
    assert found.drop_columns("tags").equals(table)
    assert found.column("tags").to_pylist() == [["red", "mug"], None]


@pytest.mark.parametrize("to", ["jsonl", "csv", "xlsx", "parquet", "label-studio"])
def test_products_of_any_format_go_into_a_new_file(shop: Shop, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"out.{'json' if to == 'label-studio' else to}"
    assert shop.run(FILES / "google_rss.xml", "--to", to, "--out", str(out)) == 0
    assert tags_of(out) == {"LTR-B": ("shoes", "waterproof"), "HM-1": ("spring", "mug")}
    before, after = (
        [row.model_copy(update={"tags": None}) for row in read_catalogue(path) if isinstance(row, Product)]
        for path in (FILES / "google_rss.xml", out)
    )
    assert after == before
    if to == "label-studio":
        task = json.loads(out.read_text(encoding="utf-8"))[0]
        assert task["predictions"][0]["result"][0]["value"] == {"choices": ["shoes", "waterproof"]}
        assert task["data"]["text"].startswith("Lumo Trail Runner. ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "shopify", "--out", "o.csv"), "a WooCommerce product CSV file; --to shopify writes back"),
        (("--to", "woocommerce"), "--to without --out"),
        (("--out", "o.csv"), "go with --to"),
        (("--diff",), "go with --to"),
        (("--to", "woocommerce", "--out", "o.csv", "--variants", "separate"), "tags stand with the product"),
    ],
)
def test_misuse_is_one_line(shop: Shop, options: tuple[str, ...], message: str) -> None:
    assert shop.run(FILES / "woocommerce.csv", *options) == 2
    assert message in shop.error


def test_the_file_that_is_read_is_not_written(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes((FILES / "shopify.csv").read_bytes())
    assert shop.run(file, "--to", "shopify", "--out", str(file)) == 2
    assert "the file that is read" in shop.error
    assert file.read_bytes() == (FILES / "shopify.csv").read_bytes()


CELL = st.text(st.sampled_from('ab",;\n \t\\é'), max_size=6)


@given(row=st.lists(CELL, min_size=2, max_size=5), place=st.integers(0, 4), new=CELL, quoting=st.integers(0, 1))
def test_only_one_cell_of_a_row_changes(row: list[str], place: int, new: str, quoting: Any) -> None:
    place %= len(row)
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting).writerow(row)
    raw = stream.getvalue()
    spans = _spans(raw, Dialect())
    assert len(spans) == len(row)
    changed = _with_cell(raw, Dialect(), place, len(row), new)
    assert next(csv.reader(io.StringIO(changed, newline=""))) == [*row[:place], new, *row[place + 1 :]]
    start, end = spans[place]
    assert changed.startswith(raw[:start])
    assert changed.endswith(raw[end:])
    longer = _with_cell(raw, Dialect(), None, len(row), new)
    assert next(csv.reader(io.StringIO(longer, newline=""))) == [*row, new]


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4), lambda some: st.lists(some, max_size=3), max_leaves=4
)


@given(st.dictionaries(st.text(max_size=4) | st.just("tags"), JSON, max_size=4))
def test_a_value_in_a_line_of_json(row: dict[str, Any]) -> None:
    changed = with_value(json.dumps(row, indent=1) + "\n", "tags", '["x"]')
    assert json.loads(changed) == row | {"tags": ["x"]}
    assert [*json.loads(changed)] == [*(row | {"tags": 0})]
