"""Catalogue runs through the program, with an engine that costs nothing."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hangtag import Product, Tagging, TagVocabulary, load_dataset
from hangtag.baselines.null import NullTagger
from hangtag.bulk import edition
from hangtag.cli import main as hangtag
from hangtag.errors import EngineError
from serve import generate

TAGS = ["red", "blue", "shoes", "boots", "steel", "cotton", "防水"]
ROOT = Path(__file__).resolve().parents[2]


class Shop:
    """A catalogue, a vocabulary and an output folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.input = folder / "in.jsonl"
        self.out = folder / "out"
        self.asked: list[str] = []
        self.fails: set[str] = set()
        self.dies_after: int | None = None
        self.error = ""
        self._capsys = capsys
        self.tags(TAGS)
        stream = NullTagger.stream

        def watched(tagger: NullTagger, products: Iterable[Product]) -> Iterator[Tagging]:
            for tagging, product in _beside(lambda some: stream(tagger, some), products):
                self.asked.append(product.id)
                if self.dies_after is not None and len(self.asked) > self.dies_after:
                    raise EngineError("the engine died")
                if product.title in self.fails:
                    tagging = Tagging(
                        id=product.id, status="error", reason="refused", model="null", vocabulary="v"
                    )
                yield tagging

        monkeypatch.setattr(NullTagger, "stream", watched)

    def tags(self, tags: list[Any]) -> None:
        (self.folder / "tags.json").write_text(json.dumps(tags), encoding="utf-8")

    def write(self, rows: list[dict[str, Any] | str]) -> None:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        self.input.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, *options: str, inputs: list[str] | None = None) -> tuple[int, dict[str, Any]]:
        self.asked.clear()
        given = [*(inputs or [str(self.input)]), str(self.out), "--vocabulary", str(self.folder / "tags.json")]
        if "--part-rows" not in options:
            given += ["--part-rows", "7"]
        code = generate.main([*given, "--engine", "null", "--quiet", "--window", "5", *options])
        shown = self._capsys.readouterr()
        self.error = shown.err
        return code, json.loads(shown.out.splitlines()[-1]) if shown.out.strip() else {}

    def rows(self) -> list[dict[str, Any]]:
        manifest = json.loads((self.out / "manifest.json").read_text(encoding="utf-8"))
        return [row for part in manifest["parts"] for row in pq.read_table(self.out / part["file"]).to_pylist()]


def _beside(stream: Any, products: Iterable[Product]) -> Iterator[tuple[Tagging, Product]]:
    for product in products:
        yield next(stream([product])), product


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, monkeypatch, capsys)


def products(number: int, start: int = 0) -> list[dict[str, Any] | str]:
    return [{"id": f"p{n}", "title": f"Product {n}", "price": n} for n in range(start, start + number)]


def test_rows_keep_their_places_and_equal_products_are_tagged_once(shop: Shop) -> None:
    rows = products(20)
    rows[3] = "broken"
    rows[9] = {"id": "same", "title": "  Product 2 "}
    rows[19] = {"id": "last", "title": "Product 0"}
    shop.write(rows)
    code, summary = shop.run("--keep", "price")
    assert code == 3
    assert (summary["rows"], summary["failed"], summary["malformed"], summary["duplicates"]) == (20, 1, 1, 2)
    assert len(shop.asked) == 17 == summary["tagged_now"]
    written = shop.rows()
    assert [row["id"] for row in written] == [
        "line-4" if n == 3 else "same" if n == 9 else "last" if n == 19 else f"p{n}" for n in range(20)
    ]
    assert written[9]["tags"] == written[2]["tags"]
    assert written[9]["key"] == written[2]["key"] != written[1]["key"]
    assert (written[3]["status"], written[3]["key"], written[3]["price"]) == ("error", None, None)
    assert written[4]["price"] == "4"
    errors = [json.loads(line) for line in (shop.out / "errors.jsonl").read_text().splitlines()]
    assert [(error["row"], error["id"]) for error in errors] == [(4, "line-4")]
    report = json.loads((shop.out / "report.json").read_text())
    assert report["ok"] == 19
    assert sum(report["confidence"]["counts"]) == 19
    assert "20 rows, 19 with a tagging" in (shop.out / "report.html").read_text()


def test_the_same_command_again_does_nothing(shop: Shop) -> None:
    shop.write(products(10))
    assert shop.run()[0] == 0
    before = {path: path.stat().st_mtime_ns for path in shop.out.rglob("*.*") if path.is_file()}
    code, summary = shop.run()
    assert (code, summary["rows"], shop.asked) == (0, 10, [])
    after = {path: path.stat().st_mtime_ns for path in shop.out.rglob("*.*") if path.is_file()}
    assert {p.name for p in before if after.get(p) != before[p]} <= {"ledger.sqlite-shm", "ledger.sqlite-wal"}
    assert "nothing to tag" in shop.error


def test_a_kill_right_after_the_last_commit_leaves_nothing_behind(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write(products(20))
    shop.run()
    shop.write(products(21))
    with monkeypatch.context() as patch:
        patch.setattr("hangtag.bulk.output.Output.forget_others", lambda *_: None)
        shop.run()
    assert len([*shop.out.glob("parts-*")]) == 2
    (shop.out / "manifest.json").unlink()
    for _ in range(2):
        assert shop.run()[0] == 0
        assert shop.asked == []
        assert len(shop.rows()) == 21
        assert [path.name for path in shop.out.glob("parts-*")] == ["parts-0002"]


def test_only_changed_rows_are_tagged_again_and_gone_rows_are_dropped(shop: Shop) -> None:
    shop.write(products(30))
    shop.run()
    rows = products(30)
    rows[4] = {"id": "p4", "title": "Product 4, new"}
    del rows[10:12]
    rows.insert(0, {"id": "first", "title": "Brand new"})
    shop.write(rows)
    foreseen = shop.run("--dry-run")[1]
    assert (foreseen["rows"], foreseen["to_tag"], foreseen["reused"]) == (29, 2, 27)
    assert shop.asked == []
    joined = shop.folder / "joined.csv"
    code, summary = shop.run("--join", str(joined))
    assert (code, sorted(shop.asked), summary["reused"], summary["edition"]) == (0, ["first", "p4"], 27, 2)
    assert [row["id"] for row in shop.rows()] == [row["id"] for row in rows]  # type: ignore[index]
    with joined.open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [row["id"] for row in table] == [row["id"] for row in rows]  # type: ignore[index]
    assert [path.name for path in shop.out.glob("parts-*")] == ["parts-0002"]


def test_a_renamed_tag_tags_again_only_what_holds_it(shop: Shop) -> None:
    shop.write(products(60))
    shop.run()
    held = {row["id"] for row in shop.rows() if any(tag["tag"] == "steel" for tag in row["tags"])}
    assert 0 < len(held) < 60
    renamed = [{"tag": "stainless steel", "aliases": ["steel"]} if tag == "steel" else tag for tag in TAGS]
    shop.tags(renamed)
    foreseen = shop.run("--dry-run")[1]
    assert (foreseen["to_tag"], foreseen["carried"]) == (len(held), 60 - len(held))
    fingerprints = {row["vocabulary"] for row in shop.rows()}
    _, summary = shop.run()
    assert set(shop.asked) == held
    assert summary["carried"] == 60 - len(held)
    assert "renamed or taken out" in shop.error
    new = TagVocabulary.from_json(renamed).fingerprint
    for row in shop.rows():
        assert row["vocabulary"] == new if row["id"] in held else row["vocabulary"] in fingerprints
        assert all(tag["tag"] in [*TAGS, "stainless steel"] and tag["tag"] != "steel" for tag in row["tags"])
    shop.tags([*renamed, "green"])
    assert shop.run("--dry-run")[1]["to_tag"] == 60


def test_taggings_carry_ids_and_a_new_name_under_an_id_is_no_new_tag(shop: Shop) -> None:
    shop.write(products(60))
    tags = [{"tag": tag, "id": number} if number else tag for number, tag in enumerate(TAGS)]
    shop.tags(tags)
    shop.run()
    ids = {tag: str(number) if number else None for number, tag in enumerate(TAGS)}
    assert {tag["tag"]: tag["id"] for row in shop.rows() for tag in row["tags"]} == ids
    held = {row["id"] for row in shop.rows() if any(tag["tag"] in TAGS[-2:] for tag in row["tags"])}
    # Both names are there still, so only the ids tell that they changed places.
    tags[-2:] = [{"tag": TAGS[-1], "id": len(TAGS) - 2}, {"tag": TAGS[-2], "id": len(TAGS) - 1}]
    shop.tags(tags)
    _, summary = shop.run()
    assert set(shop.asked) == held
    assert summary["carried"] == 60 - len(held) > 0


def test_lines_of_taggings_have_ids_where_tags_have(shop: Shop) -> None:
    shop.write(products(60))
    shop.tags([{"tag": tag, "id": "gid://shop/1"} if tag == "steel" else tag for tag in TAGS])
    shop.run("--format", "jsonl")
    text = "".join(path.read_text(encoding="utf-8") for path in shop.out.glob("parts-*/*"))
    tags = [tag for line in text.splitlines() for tag in json.loads(line)["tags"]]
    assert {tag.get("id", "none") for tag in tags if tag["tag"] == "steel"} == {"gid://shop/1"}
    assert {tag.get("id", "none") for tag in tags if tag["tag"] != "steel"} == {"none"}


def test_a_run_after_a_renamed_tag_goes_on_as_it_began(shop: Shop) -> None:
    shop.write(products(60))
    shop.run()
    held = {row["id"] for row in shop.rows() if any(tag["tag"] == "steel" for tag in row["tags"])}
    shop.tags(["iron" if tag == "steel" else tag for tag in TAGS])
    shop.dies_after = len(held) // 2
    assert shop.run()[0] == 1
    first = set(shop.asked[:-1])
    shop.dies_after = None
    assert shop.run("--dry-run")[1]["to_tag"] == len(held - first)
    assert shop.run()[0] == 0
    assert first | set(shop.asked) == held
    assert not first & set(shop.asked)


def test_an_index_that_cannot_be_written_is_one_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    shop.write(products(40))
    with monkeypatch.context() as patch:
        patch.setattr("hangtag.bulk.key_index._IN_MEMORY", 10)
        patch.setattr("hangtag.bulk.key_index.write_durably", full)
        assert shop.run()[0] == 2
    assert "No space left on device" in shop.error
    assert shop.error.count("\n") == 1
    assert shop.run()[0] == 0
    assert [row["id"] for row in shop.rows()] == [f"p{n}" for n in range(40)]


def test_strict_tags_every_row_again(shop: Shop) -> None:
    shop.write(products(12))
    shop.run()
    shop.tags(["red", "navy", *TAGS[2:]])
    assert shop.run("--dry-run", "--strict")[1]["to_tag"] == 12
    shop.run("--strict")
    assert len(shop.asked) == 12


def test_a_dead_engine_costs_nothing_that_it_gave(shop: Shop) -> None:
    shop.write(products(40))
    shop.dies_after = 25
    assert shop.run()[0] == 1
    assert "the engine died" in shop.error
    assert not (shop.out / "manifest.json").exists()
    shop.dies_after = None
    code, summary = shop.run()
    assert (code, summary["rows"], len(shop.asked)) == (0, 40, 15)
    whole = shop.rows()
    shutil.rmtree(shop.out)
    shop.run()
    assert shop.rows() == whole


def shuffled(taggings: list[Tagging]) -> list[Tagging]:
    return [taggings[1], taggings[0], *taggings[2:]]


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (shuffled, "got a tagging of 'p6', expected that of 'p5'"),
        (lambda taggings: taggings[1:], "got a tagging of 'p6', expected that of 'p5'"),
        (lambda taggings: taggings[:-1], "got the end, expected that of 'p9'"),
        (lambda taggings: [*taggings, taggings[-1]], "got a tagging of 'p9', expected the end"),
    ],
)
def test_an_engine_that_answers_out_of_order_mislabels_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, disturb: Any, message: str
) -> None:
    shop.write(products(10))
    stream = NullTagger.stream

    def disturbed(tagger: NullTagger, some: Iterable[Product]) -> Iterator[Tagging]:
        taggings = sorted(stream(tagger, some), key=lambda tagging: tagging.id)
        yield from taggings[:5]
        yield from disturb(taggings[5:])

    with monkeypatch.context() as patch:
        patch.setattr(NullTagger, "stream", disturbed)
        code, _ = shop.run("--window", "10")
        assert code == 1
        assert message in shop.error
        assert shop.error.count("\n") == 1
    code, summary = shop.run("--window", "10")
    assert (code, summary["ok"]) == (0, 10)
    truth = NullTagger(TagVocabulary.from_json(TAGS))
    for row in shop.rows():
        tagging = truth.tag([Product(id=row["id"], title=f"Product {row['id'][1:]}")])[0]
        assert [tag["tag"] for tag in row["tags"]] == list(tagging.names)


def test_rows_that_share_an_id_cannot_change_places_unseen(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write([{"id": "same", "title": f"Product {n}"} for n in range(10)])
    stream = NullTagger.stream
    with monkeypatch.context() as patch:
        patch.setattr(NullTagger, "stream", lambda tagger, some: reversed(list(stream(tagger, some))))
        code, _ = shop.run("--window", "10")
        assert code == 1
        assert "expected that of 'same'" in shop.error
    assert shop.run("--window", "10")[0] == 0
    truth = NullTagger(TagVocabulary.from_json(TAGS))
    for n, row in enumerate(shop.rows()):
        assert row["id"] == "same"
        tagging = truth.tag([Product(id="same", title=f"Product {n}")])[0]
        assert [tag["tag"] for tag in row["tags"]] == list(tagging.names)


def test_an_interrupt_is_one_line_and_loses_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write(products(40))
    stream = NullTagger.stream

    def interrupted(tagger: NullTagger, some: Iterable[Product]) -> Iterator[Tagging]:
        for number, tagging in enumerate(stream(tagger, some)):
            if number == 20:
                raise KeyboardInterrupt
            yield tagging

    with monkeypatch.context() as patch:
        patch.setattr(NullTagger, "stream", interrupted)
        assert shop.run()[0] == 1
    assert "the same command goes on" in shop.error
    assert shop.run()[0] == 0
    assert len(shop.asked) == 20


def test_errors_are_tagged_again_on_request(shop: Shop) -> None:
    shop.write([*products(10), "broken"])
    shop.fails = {"Product 3", "Product 7"}
    code, summary = shop.run()
    assert (code, summary["failed"], summary["error"]) == (3, 3, 3)
    shop.fails = {"Product 7"}
    assert shop.run()[0] == 3
    assert shop.asked == []
    code, summary = shop.run("--retry-errors")
    assert (sorted(shop.asked), summary["failed"], code) == (["p3", "p7"], 2, 3)
    shop.fails = set()
    shop.write(products(10))
    assert shop.run("--retry-errors")[0] == 0
    assert shop.asked == ["p7"]
    shop.run("--retry-errors")
    assert shop.asked == []


def test_an_input_that_changed_after_a_crash_is_read_again(shop: Shop) -> None:
    shop.write(products(40))
    shop.dies_after = 30
    shop.run()
    shop.dies_after = None
    shop.write(products(45, start=5))
    code, summary = shop.run()
    assert "the input changed since the run that was not finished" in shop.error
    assert (code, summary["rows"]) == (0, 45)
    assert len(shop.asked) < 25
    assert [row["id"] for row in shop.rows()] == [f"p{n}" for n in range(5, 50)]


def test_an_input_that_changes_under_the_run_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write(products(40))
    stream = NullTagger.stream

    def changing(tagger: NullTagger, some: Iterable[Product]) -> Iterator[Tagging]:
        for number, tagging in enumerate(stream(tagger, some)):
            if number == 10:
                shop.write(products(50))
            yield tagging

    with monkeypatch.context() as patch:
        patch.setattr(NullTagger, "stream", changing)
        assert shop.run()[0] == 2
    assert "while it was read; repeat the same command" in shop.error
    assert not (shop.out / "manifest.json").exists()
    assert shop.run()[0] == 0
    assert [row["id"] for row in shop.rows()] == [f"p{n}" for n in range(50)]


def test_a_second_process_on_one_folder_is_refused(shop: Shop) -> None:
    shop.write(products(5))
    shop.run()
    with (shop.out / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert shop.run()[0] == 2
    assert "another process is writing it" in shop.error


def damage_part(out: Path) -> None:
    next(out.glob("parts-*/part-000002.*")).unlink()


def tear_part(out: Path) -> None:
    os.truncate(next(out.glob("parts-*/part-000002.*")), 100)


def damage_ledger(out: Path) -> None:
    for path in out.glob("ledger.sqlite-*"):
        path.unlink()
    (out / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + os.urandom(20_000))


def empty_ledger(out: Path) -> None:
    for path in out.glob("ledger.sqlite-*"):
        path.unlink()
    (out / "ledger.sqlite").write_bytes(b"no database at all, but long enough to be taken for one" * 100)


def delete_ledger(out: Path) -> None:
    for path in out.glob("ledger.sqlite*"):
        path.unlink()


def test_a_kill_before_the_ledger_knows_of_an_edition_takes_no_number(shop: Shop) -> None:
    shop.write(products(10))
    (shop.out / "index" / "0001").mkdir(parents=True)
    (shop.out / "index" / "0001" / "edition.json").write_text("{}")
    (shop.out / ".lock").touch()
    assert shop.run()[1]["edition"] == 1


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("damage", [damage_part, tear_part, damage_ledger, empty_ledger, delete_ledger])
def test_damage_is_one_line_and_mended_by_the_command_it_names(shop: Shop, damage: Any, is_finished: bool) -> None:
    shop.write(products(40))
    shop.run()
    whole = shop.rows()
    if not is_finished:
        shutil.rmtree(shop.out)
        shop.dies_after = 30
        shop.run()
        shop.dies_after = None
    damage(shop.out)
    code, _ = shop.run()
    assert code == 2
    assert shop.error.count("\n") == 1
    assert "--repair" in shop.error
    assert shop.run("--repair")[0] == 0
    # What is still in the index files need not be tagged again; a lost part is at most seven rows.
    assert len(shop.asked) <= 7 + 10 * (not is_finished) + 10
    assert [(row["id"], row["tags"]) for row in shop.rows()] == [(row["id"], row["tags"]) for row in whole]
    shop.run()
    assert shop.asked == []


def test_a_part_changed_in_place_is_found_by_repair(shop: Shop) -> None:
    shop.write(products(21))
    shop.run()
    path = next(shop.out.glob("parts-*/part-000001.*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert shop.run("--repair")[0] == 0
    assert "its content is not what was written" in shop.error
    assert len(shop.asked) == 7


def test_a_lost_index_is_made_again(shop: Shop) -> None:
    shop.write(products(40))
    shop.run()
    for path in [*shop.out.glob("index/*/*.arrow"), *shop.out.glob("index/*/*.keys")]:
        path.unlink()
    shop.write(products(41))
    assert shop.run()[0] == 0
    assert shop.asked == ["p40"]


@pytest.mark.parametrize("form", ["parquet", "jsonl", "openai-batch"])
def test_a_lost_index_file_is_read_back_from_the_part(shop: Shop, form: str) -> None:
    rows: list[dict[str, Any] | str] = products(20)
    if form == "openai-batch":
        rows = [
            {"custom_id": r["id"], "body": {"messages": [{"role": "user", "content": r["title"]}]}} for r in rows
        ]  # type: ignore[index]
    shop.write(rows)
    shop.run("--format", form)
    for path in shop.out.glob("index/*/*.arrow"):
        path.unlink()
    shop.write(rows[1:])
    assert shop.run("--format", form)[0] == 0
    assert shop.asked == []


@pytest.mark.parametrize("damage", ["a page's header", "a page's values"])
def test_corrupted_parquet_input_is_one_line(shop: Shop, damage: str) -> None:
    path = shop.folder / "in.parquet"
    table = pa.table({"id": [str(n) for n in range(5000)], "title": [f"P {n * 7919}" for n in range(5000)]})
    pq.write_table(
        table, path, row_group_size=1000, compression="none", use_dictionary=False, write_page_checksum=True
    )
    good = path.read_bytes()
    data = bytearray(good)
    column = pq.read_metadata(path).row_group(3).column(1)
    # In the middle of the values a digit becomes another: only the checksum can tell.
    at = column.data_page_offset if damage == "a page's header" else good.index(b"P 27716500")
    data[at : at + 4] = b"\xff" * 4 if damage == "a page's header" else b"P 99"
    path.write_bytes(data)
    code, _ = shop.run("--part-rows", "500", inputs=[str(path)])
    assert code == 2
    assert "not readable as Parquet" in shop.error
    assert shop.error.count("\n") == 1
    num_asked = len(shop.asked)
    path.write_bytes(good)
    assert shop.run("--part-rows", "500", inputs=[str(path)])[0] == 0
    # What was read before the damage is not tagged again.
    assert len(shop.asked) + num_asked == 5000
    assert len(shop.rows()) == 5000


def mounted(folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0


def test_a_full_disk_is_one_line_and_the_run_goes_on_after(shop: Shop) -> None:
    disk = shop.folder / "disk"
    if os.geteuid() != 0 or not mounted(disk, "-t", "tmpfs", "-o", "size=600k", "none"):
        pytest.skip("a small file system cannot be mounted here")
    try:
        shop.write([{"id": str(n), "title": os.urandom(40).hex()} for n in range(8000)])
        shop.out = disk / "out"
        assert shop.run("--part-rows", "500")[0] == 2
        assert "No space left on device" in shop.error or "full" in shop.error
        assert shop.error.count("\n") == 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert shop.run("--part-rows", "500")[0] == 0
        assert len(shop.asked) < 8000
        assert len(shop.rows()) == 8000
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_folder_that_cannot_be_written_is_one_line(shop: Shop) -> None:
    disk = shop.folder / "disk"
    if os.geteuid() != 0 or not mounted(disk, "-t", "tmpfs", "-o", "size=8m", "none"):
        pytest.skip("a read-only file system cannot be mounted here")
    try:
        shop.write(products(20))
        shop.out = disk / "out"
        shop.run()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        shop.write(products(21))
        for out in (disk / "out", disk / "new"):
            shop.out = out
            assert shop.run()[0] == 2
            assert "Read-only file system" in shop.error
            assert shop.error.count("\n") == 1
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        shop.out = disk / "out"
        assert shop.run()[0] == 0
        assert shop.asked == ["p20"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_strange_folder_is_not_touched(shop: Shop) -> None:
    shop.write(products(3))
    shop.out.mkdir()
    (shop.out / "thesis.txt").write_text("x")
    assert shop.run()[0] == 2
    assert "holds 'thesis.txt'" in shop.error


def test_batch_files_come_back_in_their_form(shop: Shop) -> None:
    def request(content: Any) -> dict[str, Any]:
        body = {
            "model": "m",
            "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": content}],
        }
        return {"custom_id": f"r{len(rows)}", "method": "POST", "url": "/v1/chat/completions", "body": body}

    rows: list[dict[str, Any] | str] = []
    for content in ("Red shoes", '{"title": "Red shoes"}', [{"type": "text", "text": "Blue"}], "", "{broken"):
        rows.append(request(content))
    rows.append({"custom_id": "r5", "body": {}})
    shop.write(rows)
    assert shop.run("--format", "openai-batch")[0] == 3
    (part,) = shop.out.glob("parts-*/*")
    lines = [json.loads(line) for line in part.read_text(encoding="utf-8").splitlines()]
    assert [line["custom_id"] for line in lines] == [f"r{n}" for n in range(6)]
    assert [line["error"] is None for line in lines] == [True, True, True, False, True, False]
    answer = json.loads(lines[0]["response"]["body"]["choices"][0]["message"]["content"])
    assert answer["tags"] == [tag["tag"] for tag in lines[0]["hangtag"]["tags"]]
    assert lines[3]["response"] is None
    assert "both empty" in lines[3]["error"]["message"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_review_goes_out_and_comes_back_as_labelled_data(shop: Shop, form: str) -> None:
    shop.write([*products(40), {"id": "again", "title": "Product 1"}])
    shop.run("--accept-at", "0.4", "--review-format", form)
    accepted = [json.loads(line)["id"] for line in (shop.out / "accepted.jsonl").read_text().splitlines()]
    queue = shop.out / f"review.{form}"
    if form == "csv":
        with queue.open(encoding="utf-8", newline="") as stream:
            entries = list(csv.DictReader(stream))
    else:
        entries = [json.loads(line) for line in queue.read_text(encoding="utf-8").splitlines()]
    sure = [float(entry["confidence"]) for entry in entries]
    assert sure == sorted(sure)
    assert max(sure) < 0.4
    in_queue = [entry["id"] for entry in entries]
    assert "again" not in in_queue
    assert set(in_queue) | set(accepted) | {"again"} == {row["id"] for row in shop.rows()}
    assert not set(in_queue) & set(accepted)
    for number, entry in enumerate(entries):
        entry["decision"] = ["accept", "change", "skip", ""][number % 4]
        entry["new_tags"] = "red; shoes" if number % 4 == 1 else ""
    decided = shop.out / f"decided.{form}"
    with decided.open("w", encoding="utf-8", newline="") as out:
        if form == "csv":
            writer = csv.DictWriter(out, list(entries[0]))
            writer.writeheader()
            writer.writerows(entries)
        else:
            out.writelines(json.dumps(entry) + "\n" for entry in entries)
    labelled = shop.folder / "labelled"
    assert hangtag(["review", "import", str(decided), "--out", str(labelled)]) == 0
    data = load_dataset(labelled)
    got = {product.id: product.tags for product in (*data.train, *data.validation, *data.test)}
    assert len(got) == sum(number % 4 < 2 for number in range(len(entries)))
    for number, entry in enumerate(entries):
        if number % 4 == 1:
            assert got[entry["id"]] == ("red", "shoes")
    more = shop.folder / "more"
    assert hangtag(["review", "import", str(decided), "--out", str(more), "--data", str(labelled)]) == 0
    assert load_dataset(more).test == data.test


@pytest.mark.parametrize(
    ("decision", "new_tags", "message"),
    [
        ("perhaps", "", "expected one of accept, change, skip"),
        ("change", "", "change without new_tags"),
        ("change", "rod", "did you mean 'red'"),
        ("change", "[1]", "no list of tags"),
    ],
)
def test_a_wrong_decision_is_named_with_its_row(
    tmp_path: Path, decision: str, new_tags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": "1", "title": "Cup", "tags": ["red"], "decision": decision, "new_tags": new_tags}
    (tmp_path / "review.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "vocabulary.json").write_text('["red"]')
    arguments = ["review", "import", str(tmp_path / "review.jsonl"), "--out", str(tmp_path / "labelled")]
    assert hangtag(arguments) == 2
    error = capsys.readouterr().err
    assert "row 1" in error
    assert message in error


@pytest.mark.parametrize("name", ["j.parquet", "j.jsonl.gz", "j.csv"])
def test_the_joined_catalogue_has_every_column(shop: Shop, name: str) -> None:
    table = pa.table(
        {
            "sku": pa.array(["a", "b", "a2"]),
            "name": pa.array(["Cup", "", "Cup"]),
            "price": pa.array([1.5, 2.5, None]),
            "more": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
        }
    )
    path = shop.folder / "in.parquet"
    pq.write_table(table, path)
    mapping = ("--map", "id=sku", "--map", "title=name", "--keep", "price")
    assert shop.run(*mapping, "--join", str(shop.folder / name), inputs=[str(path)])[0] == 3
    assert [row["price"] for row in shop.rows()] == [1.5, 2.5, None]
    if name == "j.parquet":
        joined = pq.read_table(shop.folder / name)
        assert joined.schema.field("price").type == pa.float64()
        rows = joined.to_pylist()
        assert rows[0]["tags"] == rows[2]["tags"] == [tag["tag"] for tag in shop.rows()[0]["tags"]]
        assert [row["tag_status"] for row in rows] == ["ok", "error", "ok"]
    assert (shop.folder / name).stat().st_size > 0


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_join_keeps_the_own_tags_of_a_shop_and_its_line_ends(shop: Shop, end: str) -> None:
    path, joined = shop.folder / "in.csv", shop.folder / "j.csv"
    lines = [b"id,title,Tags", b"1,Cup,mine", b"2,caf\xe9,b", "3,Glas \u00e4,c".encode()]
    path.write_bytes(b"".join(line + end.encode() for line in lines))
    assert shop.run("--join", str(joined), inputs=[str(path)])[0] == 3
    assert joined.read_bytes().count(b"\r\n") == (4 if end == "\r\n" else 0)
    with joined.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["Tags"] for row in rows] == ["mine", "b", "c"]
    assert rows[1] == {
        "id": "2", "title": "caf\ufffd", "Tags": "b", "hangtag_tags": "[]", "tag_confidences": "[]",
        "tag_status": "error",
    }  # fmt: skip
    assert json.loads(rows[0]["hangtag_tags"]) == [tag["tag"] for tag in shop.rows()[0]["tags"]]
    assert "the tags are in hangtag_tags" in shop.error


@pytest.mark.parametrize("name", ["j.parquet", "j.csv"])
def test_a_join_has_the_columns_that_first_appear_in_a_later_part(shop: Shop, name: str) -> None:
    rows = products(20)
    rows[15] = {"id": "p15", "title": "Product 15", "material": "steel"}
    shop.write(rows)
    joined = shop.folder / name
    assert shop.run("--join", str(joined))[0] == 0
    if name == "j.parquet":
        found = pq.read_table(joined).to_pylist()
    else:
        with joined.open(encoding="utf-8", newline="") as stream:
            found = list(csv.DictReader(stream))
    assert [row["material"] or "" for row in found] == [""] * 15 + ["steel"] + [""] * 4


def test_labels_as_numbers_are_kept_and_joined_by_their_names(shop: Shop) -> None:
    features = {"kind": {"names": ["cup", "mug"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"title": ["a", "b"], "kind": [1, 0]}).replace_schema_metadata(metadata)
    path, joined = shop.folder / "in.parquet", shop.folder / "j.parquet"
    pq.write_table(table, path)
    assert shop.run("--keep", "kind", "--join", str(joined), inputs=[str(path)])[0] == 0
    assert [row["kind"] for row in shop.rows()] == ["mug", "cup"]
    assert pq.read_table(joined).column("kind").to_pylist() == ["mug", "cup"]


SHOPIFY = ROOT / "tests" / "data" / "formats" / "shopify.csv"


def test_a_shops_own_file_is_written_back(shop: Shop) -> None:
    joined = shop.folder / "import.csv"
    options = ("--join", str(joined), "--to", "shopify", "--merge", "replace")
    code, summary = shop.run(*options, "--part-rows", "2", inputs=[str(SHOPIFY)])
    assert (code, summary["rows"]) == (0, 3)
    assert "shopify.csv: Shopify product CSV" in shop.error
    with joined.open(encoding="utf-8", newline="") as after, SHOPIFY.open(encoding="utf-8", newline="") as before:
        rows = list(csv.DictReader(after))
        assert [row | {"Tags": ""} for row in rows] == [row | {"Tags": ""} for row in csv.DictReader(before)]
    written = {row["Handle"]: row["Tags"] for row in rows if row["Title"]}
    assert written == {row["id"]: ", ".join(tag["tag"] for tag in row["tags"]) for row in shop.rows()}
    assert shop.run("--variants", "separate", "--dry-run", inputs=[str(SHOPIFY)])[1]["rows"] == 5
    assert shop.run("--to", "shopify", inputs=[str(SHOPIFY)])[0] == 2
    assert "--to without --join" in shop.error


def test_a_run_goes_on_in_the_middle_of_a_shops_file(shop: Shop) -> None:
    shop.dies_after = 2
    assert shop.run("--part-rows", "1", inputs=[str(SHOPIFY)])[0] == 1
    shop.dies_after = None
    assert shop.run("--part-rows", "1", inputs=[str(SHOPIFY)])[0] == 0
    assert [row["id"] for row in shop.rows()] == ["lumo-trail-runner", "hearth-mug", "tin-lantern"]
    assert len(shop.asked) < 3


def test_plan_measures_a_sample_and_writes_nothing(shop: Shop) -> None:
    shop.write(products(300))
    code, plan = shop.run("--plan", "--plan-rows", "100", "--rate", "2.5")
    assert (code, plan["rows"], plan["sample"]) == (0, 300, 90)
    assert plan["cost"] is not None
    assert not shop.out.exists()


@pytest.mark.parametrize("order", [("full", "empty"), ("empty", "full")])
def test_plan_passes_over_a_file_without_rows_as_a_run_does(shop: Shop, order: tuple[str, ...]) -> None:
    shop.write(products(30))
    (shop.folder / "empty.jsonl").write_text("")
    paths = {"full": str(shop.input), "empty": str(shop.folder / "empty.jsonl")}
    code, plan = shop.run("--plan", "--plan-rows", "20", inputs=[paths[name] for name in order])
    assert (code, plan["rows"], plan["sample"]) == (0, 30, 9)


def test_an_interrupted_edition_keeps_taggings_within_seconds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal holds what a part in flight has, so that slow engines lose no more."""
    monkeypatch.setattr(edition, "_JOURNAL_S", 0.0)
    shop.write(products(400))
    shop.dies_after = 300
    with monkeypatch.context() as patch:
        # What is saved on the way out would hide what the journal had before.
        patch.setattr(edition.EditionRun, "_save_journal", lambda self: None)
        assert shop.run("--part-rows", "1000")[0] == 1
    shop.dies_after = None
    assert shop.run("--part-rows", "1000")[0] == 0
    assert len(shop.asked) <= 400 - 300 + 1


def test_kills_change_nothing() -> None:
    """The full proof is `python -m tests.catalogue_kills`; HANGTAG_KILLS sets how often this test kills."""
    kills = os.environ.get("HANGTAG_KILLS", "12")
    done = subprocess.run(
        [sys.executable, "-m", "tests.catalogue_kills", "--kills", kills, "--rows", "2000"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["different"] == []
