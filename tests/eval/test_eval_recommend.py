from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from recommend_shop import write_shop

from eval.recommend import main
from eval.recommend_products import _random
from hangtag import Tag, TagVocabulary

ROOT = Path(__file__).resolve().parent.parent.parent


def gzipped(source: Path, target: Path) -> None:
    with source.open("rb") as plain, gzip.open(target, "wb") as packed:
        shutil.copyfileobj(plain, packed)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made shop, its last five days as test."""
    folder = tmp_path_factory.mktemp("shop")
    interactions, items = write_shop(folder, num_users=80, num_items=60)
    header, *rows = interactions.read_text().splitlines()
    for name, keep in (("train", lambda day: day < "2024-01-26"), ("test", lambda day: day >= "2024-01-26")):
        part = folder / f"{name}.csv"
        part.write_text("\n".join([header, *(row for row in rows if keep(row.split(",")[1]))]) + "\n")
        gzipped(part, folder / f"interactions_{name}.csv.gz")
    gzipped(items, folder / "items.jsonl.gz")
    names = ("garden", "kitchen", "red", "blue", "green")
    TagVocabulary([Tag(name, "kind" if name in names[:2] else "colour") for name in names]).save(
        folder / "vocabulary.json"
    )
    return folder


def test_products(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.recommend_products.NUM_NEW", 10)
    assert main(["--data", str(shop), "--horizon", "5", "--resamples", "50", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "recommend.json").read_text())
    arms = found["sections"]["all items"]["arms"]
    value = {arm: held["figures"]["recall@12"]["value"] for arm, held in arms.items()}
    assert value["hybrid"] > value["popular"] + 0.1
    assert arms["popular"]["exceeded_by"]["recall@12"]["low"] > 0
    assert arms["hybrid"]["exceeded_by"] is None
    new = found["new"]["sections"]["among all items"]["arms"]
    assert new["hybrid"]["figures"]["recall@100"]["value"] > 0
    report = (tmp_path / "report.md").read_text()
    assert "## All items: " in report
    assert "## New items" in report
    assert "| **hybrid** |" in report


def test_tags(tmp_path: Path) -> None:
    lines = [
        f"u{user},2020-01-{day + 1:02},i{(user * 7 + day * 3) % 20},{'genre' if user % 2 else 'mood'}{day % 3}"
        for user in range(40)
        for day in range(8)
    ]
    for name in ("train", "test"):
        part = [line for index, line in enumerate(lines) if (index % 8 == 7) == (name == "test")]
        with gzip.open(tmp_path / f"assignments_{name}.csv.gz", "wt") as stream:
            stream.write("\n".join(["user,day,item,tag", *part]) + "\n")
    assert main(["--data", str(tmp_path), "--resamples", "20", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "recommend.json").read_text())
    arms = found["sections"]["tags of a person's post"]["arms"]
    assert {"FolkRank", "learned", "own", "given"} <= arms.keys()
    assert arms["learned"]["figures"]["ndcg@10"]["value"] > arms["popular"]["figures"]["ndcg@10"]["value"]


def test_misuse_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "neither interactions_train.csv.gz nor assignments_train.csv.gz" in capsys.readouterr().err
    assert main(["--data", str(tmp_path), "--horizon", "0"]) == 2


def test_random_lists_are_at_chance() -> None:
    gold = np.zeros((150, 500), np.bool_)
    gold[np.arange(150), np.arange(150)] = True
    values = _random(gold, np.random.default_rng(0))
    assert values["recall@20"].mean() == pytest.approx(20 / 500, abs=0.01)


def test_figures_of_the_page_are_those_of_the_reports() -> None:
    page = (ROOT / "docs" / "recommending.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| (\w+@\d+) \| ([\d.]+) \| (.+) ([\d.]+) \| ", page, re.MULTILINE)
    assert len(rows) == 8
    for data, section, figure, own, best, other in rows:
        found = json.loads((ROOT / "eval" / "results" / f"recommend_{data}" / "recommend.json").read_text())
        arms = found["sections"][section]["arms"]
        assert f"{arms[found['own']]['figures'][figure]['value']:.3f}" == own
        values = {arm: held["figures"][figure]["value"] for arm, held in arms.items() if arm != found["own"]}
        assert max(values, key=lambda arm: values[arm]) == best
        assert f"{values[best]:.3f}" == other
