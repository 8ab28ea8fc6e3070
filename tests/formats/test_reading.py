"""Files as shops have them, read as products: formats, variants, encodings, delimiters, and what is broken."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hangtag import BadRow, Product
from hangtag.catalogue.files import list_files
from hangtag.catalogue.products import read_catalogue
from hangtag.catalogue.rows import CatalogueRows
from hangtag.errors import DataError, MissingExtra
from hangtag.formats.html_text import shown_text
from hangtag.formats.recognise import FORMAT_NAMES
from hangtag.formats.rows import Reading, Row

FILES = Path(__file__).resolve().parents[1] / "data" / "formats"


def read(path: Path, **reading: Any) -> list[Product | BadRow]:
    return list(read_catalogue(path, reading=Reading(**reading)))


def products(path: Path, **reading: Any) -> dict[str, Product]:
    return {row.id: row for row in read(path, **reading) if isinstance(row, Product)}


def notes(path: Path, **reading: Any) -> str:
    said: list[str] = []
    list(read_catalogue(path, reading=Reading(**reading), say=said.append))
    return "\n".join(said)


SHOE = {
    "vendor": "Lumo", "type": "Shoes", "category": "Apparel & Accessories > Shoes", "Color": "Blue, Green, Red",
    "Size": "42, 43", "image": "Side view of a blue shoe, Green shoe from above",
}  # fmt: skip


def test_shopify_rows_of_a_handle_are_one_product() -> None:
    found = read(FILES / "shopify.csv")
    assert found == [
        Product(
            id="lumo-trail-runner",
            title="Lumo Trail Runner",
            description="Running shoes for wet trails. Waterproof Vegan & light",
            attributes=SHOE,
            tags=("men", "Running"),
        ),
        Product(
            id="hearth-mug",
            title="Hearth Mug, 0.3 l",
            description="A cup for tea",
            attributes={
                "vendor": "Hearth", "type": "Mugs", "category": "Home & Garden > Mugs", "Material": "Stoneware",
                "Dishwasher": "yes",
            },
        ),
        Product(
            id="tin-lantern", title="Tin Lantern", description="Red lantern", tags=("old",),
            attributes={"vendor": "Hearth", "type": "Lighting"},
        ),
    ]  # fmt: skip
    assert notes(FILES / "shopify.csv").endswith("shopify.csv: Shopify product CSV; delimited text")


def test_shopify_variants_may_stand_for_themselves() -> None:
    found = products(FILES / "shopify.csv", variants="separate")
    assert [*found] == ["LTR-B42", "LTR-G42", "LTR-R43", "HM-1", "TL-1"]
    assert found["LTR-R43"].description == found["LTR-B42"].description != ""
    assert (found["LTR-R43"].attributes["Color"], found["LTR-R43"].attributes["Size"]) == ("Red", "43")


def test_from_plain_reads_rows_as_they_stand() -> None:
    columns = {"id": "Variant SKU", "title": "Title", "description": "Body (HTML)", "tags": "Tags"}
    shoe, green, *_ = read(FILES / "shopify.csv", format="plain", columns=columns)
    assert isinstance(shoe, Product)
    assert (shoe.id, shoe.tags, shoe.attributes) == ("LTR-B42", ("men", "Running"), {})
    assert isinstance(green, BadRow)
    assert green.id == "LTR-G42"


def test_shopify_columns_of_2025() -> None:
    found = products(FILES / "shopify_2025.csv")
    assert [*found] == ["lumo-trail-runner", "hearth-mug"]
    shoe = found["lumo-trail-runner"]
    assert (shoe.attributes["Color"], shoe.tags, shoe.description) == (
        "Blue, Green",
        ("men", "Running"),
        "Running shoes",
    )


def test_a_shopify_variant_without_its_product(tmp_path: Path) -> None:
    rows = [
        "Handle,Title,Vendor,Option1 Name,Option1 Value",
        "x,,,,Green",
        "y,Mug,v,Color,Red",
        "y,,,,Blue",
        ",,,,Pink",
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    lost, mug, nameless = read(tmp_path / "a.csv")
    assert isinstance(lost, BadRow)
    assert lost.reason.startswith("x: a variant without its product")
    assert isinstance(mug, Product)
    assert mug.attributes["Color"] == "Red, Blue"
    assert isinstance(nameless, BadRow)


def test_woocommerce_variations_go_to_their_parent() -> None:
    hoodie, beanie, lost, lantern = read(FILES / "woocommerce.csv")
    assert hoodie == Product(
        id="HOOD",
        title="Nook Hoodie",
        description="Warm, soft Cotton hoodie With a pocket",
        attributes={"categories": "Clothing > Hoodies, Clothing, warm", "Colour": "Blue, Green, Red"},
        tags=("soft, warm", "cotton"),
    )
    assert beanie.id == "11"
    assert isinstance(lost, BadRow)
    assert lost.reason == "LOST: a variation whose Parent 'GONE' is no product of the file"
    assert isinstance(lantern, Product)
    assert (lantern.id, lantern.attributes["Material"]) == ("=A1", "Tin, Glass, clear")
    apart = products(FILES / "woocommerce.csv", variants="separate")
    assert [*apart] == ["HOOD", "11", "HOOD-B", "HOOD-R", "=A1"]
    assert apart["HOOD-R"].description == hoodie.description
    assert apart["HOOD-R"].attributes["Colour"] == "Red"


def test_google_feeds_in_three_forms() -> None:
    tsv = products(FILES / "google.tsv")
    assert tsv["LTR-B"].attributes["Upper"] == "Mesh, woven"
    assert tsv["HM-1"].title == '27" shelf for mugs'
    rss = products(FILES / "google_rss.xml")
    assert rss["LTR-B"] == Product(
        id="LTR-B",
        title="Lumo Trail Runner",
        description="Running shoes for wet trails",
        attributes={"product type": "Shoes > Running", "product highlight": "Waterproof, Light", "Sole": "Rubber"},
    )
    assert products(FILES / "google_atom.xml")["HM-1"].description == "A cup for tea"


def test_a_column_may_be_read_as_labels_and_is_no_attribute_then() -> None:
    shoe = products(FILES / "google_rss.xml", label_column="product_type")["LTR-B"]
    assert shoe.tags == ("Shoes > Running",)
    assert "product type" not in shoe.attributes
    mug = products(FILES / "google.tsv", label_column="google_product_category")["HM-1"]
    assert mug.tags == ("Home & Garden > Shelving",)
    jam = products(FILES / "openfoodfacts.jsonl", label_column="categories_tags")
    assert jam["0000000000017"].tags == ("en:snacks", "en:biscuits")
    assert "categories" not in jam["0000000000017"].attributes


def test_magento_and_open_food_facts() -> None:
    hoodie = products(FILES / "magento.csv")["HOOD"]
    assert (hoodie.description, hoodie.attributes["color"]) == ("Warm Cotton hoodie", "Blue, Red")
    simple = products(FILES / "magento.csv")["HOOD-B"]
    assert (simple.attributes["material"], simple.attributes["care"]) == ("Cotton, Wool", "Wash cold, no dryer")
    lines, table = (products(FILES / f"openfoodfacts.{end}")["0000000000017"] for end in ("jsonl", "csv"))
    assert table.title == '"Oat" biscuits'
    assert lines.attributes == table.attributes


ROWS = "id{0}Title{0}Description{0}Tags\n1{0}Kühlschrank, grün{0}Größe 38{0}rot{1} grün\n2{0}Tasse{0}weiß{0}rot\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(("delimiter", "said"), [(";", "semicolon"), ("\t", "tab"), ("|", "pipe")])
def test_delimiters_and_encodings_are_recognised(tmp_path: Path, encoding: str, delimiter: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(ROWS.format(delimiter, ",").encode(encoding))
    found = products(path)
    assert found["1"] == Product(id="1", title="Kühlschrank, grün", description="Größe 38", tags=("rot", "grün"))
    assert f"delimiter {said}" in notes(path)
    assert ("a.csv: encoding " in notes(path)) == (encoding in ("utf-16", "cp1252"))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Żółta filiżanka z Łodzi, święta; zażółć gęślą jaźń. Kubek ceramiczny dla całej rodziny"),
        ("cp1251", "Красная кружка для чая; подарок для всей семьи"),
        ("gb18030", "红色陶瓷杯子，适合全家人使用；防水防滑"),
        ("cp1252", "Tasse à café ‘Été’ – 3 € – façon Köln"),
    ],
)
def test_encodings_other_than_unicode_are_guessed(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"id,title\n1,{text.replace(',', '')}\n".encode(encoding))
    assert products(path)["1"].title == text.replace(",", "")
    assert "(a guess; --encoding overrides it)" in notes(path)


def test_a_wrong_guess_is_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id;title\n1;Łódź;x\n".replace(";x", "").encode("cp1250"))
    assert products(path, encoding="cp1250")["1"].title == "Łódź"
    path.write_text("id|title;x\n1|a;b\n")
    assert products(path, delimiter="|", columns={"title": "title;x"})["1"].title == "a;b"
    with pytest.raises(DataError, match="--encoding 'utf-9': no such encoding"):
        read(path, encoding="utf-9")
    with pytest.raises(DataError, match="--delimiter '::': expected one character"):
        read(path, delimiter="::")
    with pytest.raises(DataError, match="--from 'shopfy': .*did you mean shopify"):
        read(path, format="shopfy")
    assert "shopify" in FORMAT_NAMES


def test_lines_that_end_in_cr_and_a_line_that_names_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,title\r1,Cup\r2,Mug\r")
    (tmp_path / "b.csv").write_bytes(b"sep=|\r\nid|title\r\n1|Cup\r\n2|Mug\r\n")
    for name in ("a.csv", "b.csv"):
        assert [row.title for row in products(tmp_path / name).values()] == ["Cup", "Mug"]


def test_a_broken_quote_costs_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f'{n},"Cup ""{n}""","two\nlines"' for n in range(1, 400)]
    rows[200] = '201,"27 inch screen,broken'
    path.write_text("id,title,description\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = read(path)
    bad = [row for row in found if isinstance(row, BadRow)]
    assert [(row.line, row.reason.partition("(")[0]) for row in bad] == [(201, "not CSV ")]
    assert [row.id for row in found] == [str(n) if n != 201 else "line-201" for n in range(1, 400)]
    path.write_text('id,title\n1,Cup\n2,"Mug\n3,Bowl\n', encoding="utf-8")
    assert [type(row).__name__ for row in read(path)] == ["Product", "BadRow", "Product"]


def test_a_row_of_another_encoding_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id,title\n1,Größe\n2,Kühl\n".encode() + "3,Spaß\n".encode("cp1252"))
    assert [row.id for row in read(path)] == ["1", "2", "line-3"]
    assert [type(row).__name__ for row in read(path)] == ["Product", "Product", "BadRow"]


def test_a_cell_of_two_megabytes_of_html(tmp_path: Path) -> None:
    body = "<p>" + "word <b>bold</b> " * 110_000 + "</p>"
    (tmp_path / "a.csv").write_text(f'Handle,Title,Body (HTML),Vendor\na,Cup,"{body}",x\nb,Mug,,x\n')
    cup, mug = read(tmp_path / "a.csv")
    assert isinstance(cup, Product)
    assert (len(cup.description), mug.id) == (110_000 * 10 - 1, "b")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("doctype", [BOMB, OUTSIDE, '<!DOCTYPE x SYSTEM "x.dtd">'])
def test_xml_with_a_document_type_is_refused(tmp_path: Path, doctype: str) -> None:
    (tmp_path / "a.xml").write_text(
        f"<?xml version='1.0'?>{doctype}<rss><item><id>1</id><title>&a;</title></item></rss>"
    )
    with pytest.raises(DataError, match="a document type"):
        read(tmp_path / "a.xml")


def test_xml_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    whole = (FILES / "google_rss.xml").read_text(encoding="utf-8")
    (tmp_path / "a.xml").write_text(whole[: whole.index("<g:description>A cup")], encoding="utf-8")
    shoe, last = read(tmp_path / "a.xml")
    assert shoe.id == "LTR-B"
    assert isinstance(last, BadRow)
    assert "not XML from line" in last.reason


def test_an_excel_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in [
        [None],
        ["ID", "Title", "Price", "Tags"],
        [12, "Cup", 3.5, "red; blue"],
        [13, "Mug", "=1+1", None],
    ]:
        sheet.append(row)
    sheet.append([14, "Bowl", None, None])
    sheet.merge_cells("B5:C5")
    book.save(tmp_path / "a.xlsx")
    found = products(tmp_path / "a.xlsx", columns={"attributes.price": "Price"})
    assert [*found] == ["12", "13", "14"]
    assert (found["12"].tags, found["12"].attributes) == (("red", "blue"), {"price": "3.5"})
    assert found["13"].attributes == {}


def test_of_several_sheets_the_first_is_read_and_said(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["title"], ["Cup"]):
        book.active.append(row)
    book.create_sheet("More").append(["title"])
    book.save(tmp_path / "a.xlsx")
    assert [row.title for row in products(tmp_path / "a.xlsx").values()] == ["Cup"]
    assert notes(tmp_path / "a.xlsx").endswith("Excel workbook; sheet 'Sheet', the first of 2")


def test_a_workbook_with_a_wrong_dimension_is_read_to_its_end(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [["id", "title"], *([n, f"Cup {n}"] for n in range(300))]:
        book.active.append(row)
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as source, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'ref="A1:B301"', b'ref="A1"'))
    assert len(products(tmp_path / "a.xlsx")) == 300


def test_a_json_array_and_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"id": n, "title": f"Cup {n}", "description": "x" * 5000, "tags": ["a"]} for n in range(50)]
    path.write_text(json.dumps([*rows, 7], indent=1))
    found = read(path)
    assert [row.id for row in found] == [*map(str, range(50)), "line-51"]
    path.write_text('[{"title": "Cup"}, {"title": ')
    assert [type(row).__name__ for row in read(path)] == ["Product", "BadRow"]
    path.write_text("[]")
    with pytest.raises(DataError, match="no rows"):
        read(path)


def test_a_saved_dataset_names_its_labels(tmp_path: Path) -> None:
    features = {
        "title": {"dtype": "string", "_type": "Value"},
        "kind": {"names": ["cup", "mug"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["red", "blue", "green"], "_type": "ClassLabel"}, "_type": "List"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table(
        {"title": ["Cup", "Mug"], "kind": pa.array([0, -1]), "tags": pa.array([[2, 0], []], pa.list_(pa.int64()))}
    ).replace_schema_metadata(metadata)
    folder = tmp_path / "data"
    folder.mkdir()
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "cache-1.arrow").write_bytes(b"")
    for name in ("state.json", "dataset_info.json"):
        (folder / name).write_text("{}")
    pq.write_table(table, tmp_path / "a.parquet")
    for path in (folder, tmp_path / "a.parquet"):
        cup, mug = read(path)
        assert isinstance(cup, Product)
        assert (cup.tags, mug.tags) == (("green", "red"), ())  # type: ignore[union-attr]
        assert [row.tags for row in read(path, label_column="kind")] == [("cup",), None]  # type: ignore[union-attr]


def test_a_shops_columns_in_parquet_and_excel(tmp_path: Path) -> None:
    with (FILES / "shopify.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    book = openpyxl.Workbook()
    for values in ([*rows[0]], *(list(row.values()) for row in rows)):
        book.active.append(values)
    book.save(tmp_path / "a.xlsx")
    for name in ("a.parquet", "a.xlsx"):
        assert read(tmp_path / name) == read(FILES / "shopify.csv"), name


@pytest.mark.parametrize("variants", ["joined", "separate"])
@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir() if path.name != "amazon.txt"))
def test_every_format_goes_on_at_every_row(name: str, variants: Any) -> None:
    files = list_files([FILES / name])
    reading = Reading(variants=variants)

    def rest(rows: CatalogueRows) -> list[Row]:
        found: list[Row] = []
        while batch := rows.read(2):
            found += batch
        return found

    expected = rest(CatalogueRows(files, reading))
    for stop in range(1, len(expected)):
        first = CatalogueRows(files, reading)
        head = first.read(stop)
        first.close()
        assert head + rest(CatalogueRows(files, reading, start=first.position)) == expected


def test_a_flat_file_with_a_mapping_that_ignores_case() -> None:
    columns = {
        "id": "ITEM SKU",
        "title": "Item Name",
        "attributes.colour": "color_name",
        "tags": "generic_keywords",
    }
    shoe = products(FILES / "amazon.txt", columns=columns)["LTR-B"]
    assert (shoe.title, shoe.attributes, shoe.tags) == (
        "Lumo Trail Runner",
        {"colour": "Blue"},
        ("running", "trail"),
    )


def test_html_in_a_plain_file_becomes_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        'id,title,description\n1,Cup,"<ul><li>one</li><li>two</li></ul>"\n2,a < b,1 < 2\n'
    )
    assert [row.description for row in products(tmp_path / "a.csv").values()] == ["one two", "1 < 2"]


def test_html_as_a_browser_shows_it() -> None:
    shown = shown_text(
        "<p>One<br>two</p><ul><li>a<li>b <b>bold</b>er</ul><style>x{}</style><script>y()</script><!-- c -->"
        "<table><tr><th>Colour:</th><td>Red &amp; blue</td></tr></table>5 &lt; 6&nbsp;kg<img alt=' A  shoe '>"
        "<table><tr><td>S<td>M<td>L</table>"
    )
    assert shown.text.split("\n") == [
        "One",
        "two",
        "a",
        "b bolder",
        "5 < 6 kg",
        "S",
        "M",
        "L",
    ]
    assert shown.attributes == {"Colour": "Red & blue"}
    assert shown.alts == ("A shoe",)


@pytest.mark.parametrize(("module", "name"), [("selectolax.lexbor", "shopify.csv"), ("openpyxl", "a.xlsx")])
def test_a_missing_extra_is_one_line(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    openpyxl.Workbook().save(tmp_path / "a.xlsx")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'hangtag\[files\]'"):
        read(FILES / name if (FILES / name).exists() else tmp_path / name)
