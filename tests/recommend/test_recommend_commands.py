from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from recommend_shop import write_shop

from hangtag import cli
from serve import recommend as serve_recommend

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    interactions, items = write_shop(tmp_path_factory.mktemp("shop"))
    return ["--interactions", str(interactions), "--items", str(items), "--horizon", "7"]


def test_products_say_why(shop: list[str], capsys: Captured) -> None:
    words = ["recommend", "products", *shop, "--history", shop[1], "--user", "u0", "--user", "nobody", "--json"]
    assert cli.main([*words, "--count", "4"]) == 0
    known, unknown = map(json.loads, capsys.readouterr().out.splitlines())
    assert (known["user"], known["known"], len(known["products"])) == ("u0", True, 4)
    assert any("bought before" in product["reasons"] for product in known["products"])
    assert any(reason.startswith("tags garden") for product in known["products"] for reason in product["reasons"])
    assert (unknown["user"], unknown["known"], len(unknown["products"])) == ("nobody", False, 4)
    assert all(product["reasons"] == ["popular"] for product in unknown["products"])


def test_tags_by_facet(shop: list[str], capsys: Captured) -> None:
    assert cli.main(["recommend", "tags", *shop, "--history", shop[1], "--user", "u1", "--count", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("u1:\n  next: ")
    assert "because of i" in out
    assert cli.main(["recommend", "tags", *shop, "--history", shop[1], "--user", "nobody", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known"] is False


@pytest.mark.parametrize("words", [["--horizon", "0"], ["--count", "0"], ["--map", "who=user"]])
def test_misuse_is_one_line(shop: list[str], words: list[str], capsys: Captured) -> None:
    assert cli.main(["recommend", "products", *shop, "--history", shop[1], *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_all_customers_in_parts_and_going_on(shop: list[str], tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "lists"
    words = [shop[1], shop[3], str(out), "--horizon", "7", "--part-size", "25", "--count", "3"]
    assert serve_recommend.main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"customers": 60, "parts": 3, "written": 3}
    table = pyarrow.parquet.read_table(out / "part-000001.parquet")
    assert table.column_names == ["user", "rank", "item", "score", "reasons"]
    assert table["rank"].to_pylist() == [1, 2, 3] * 25
    assert all(table["reasons"].to_pylist())
    whole = (out / "part-000001.parquet").read_bytes()
    (out / "part-000001.parquet").unlink()
    (out / "manifest.json").unlink()
    assert serve_recommend.main(words) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 1
    assert (out / "part-000001.parquet").read_bytes() == whole
    assert (out / "manifest.json").is_file()


def test_lists_of_something_else_are_refused(shop: list[str], tmp_path: Path, capsys: Captured) -> None:
    words = [shop[1], shop[3], str(tmp_path / "lists"), "--horizon", "7", "--no-reasons"]
    assert serve_recommend.main(words) == 0
    assert serve_recommend.main([*words, "--count", "2"]) == 2
    assert "other inputs or options" in capsys.readouterr().err
    assert serve_recommend.main(["lost.csv", shop[3], str(tmp_path / "new")]) == 2
