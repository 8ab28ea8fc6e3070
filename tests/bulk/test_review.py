"""The way round: a catalogue's review queue, decided, becomes what the next model is trained on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hangtag import load_dataset
from hangtag.cli import main as hangtag
from hangtag.sample import sample_folder
from serve import generate


def test_decisions_on_a_review_queue_are_prepared_for_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    from tiny_model import make_tiny_model

    from sft.prepare import main as prepare

    out, labelled = tmp_path / "out", tmp_path / "labelled"
    vocabulary = str(sample_folder() / "vocabulary.json")
    products = load_dataset(sample_folder()).train[:60]
    rows = [product.model_dump(exclude={"tags"}) for product in products]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    arguments = [str(tmp_path / "in.jsonl"), str(out), "--vocabulary", vocabulary, "--engine", "null", "--quiet"]
    assert generate.main([*arguments, "--accept-at", "0.95"]) == 0
    with (out / "review.csv").open(encoding="utf-8", newline="") as stream:
        queue = list(csv.DictReader(stream))
    assert len(queue) > 20
    gold = {product.id: product.tags or () for product in products}
    with (tmp_path / "decided.csv").open("w", encoding="utf-8", newline="") as decided:
        writer = csv.DictWriter(decided, list(queue[0]))
        writer.writeheader()
        for entry in queue:
            new_tags = json.dumps(gold[entry["id"]], ensure_ascii=False)
            writer.writerow(entry | {"decision": "change", "new_tags": new_tags})
    # The queue's own folder holds the vocabulary, but the reviewer's copy was saved elsewhere.
    import_it = ["review", "import", str(tmp_path / "decided.csv"), "--vocabulary", str(out / "vocabulary.json")]
    assert hangtag([*import_it, "--out", str(labelled)]) == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"model": str(make_tiny_model(tmp_path / "base"))}))
    capsys.readouterr()
    assert prepare([str(recipe), "--data", str(labelled), "--out", str(tmp_path / "pairs")]) == 0
    pairs = pq.read_table(tmp_path / "pairs" / "train.parquet").to_pylist()
    train = load_dataset(labelled).train
    assert [row["id"] for row in pairs] == [product.id for product in train]
    assert all(set(row["tags"]) == set(gold[row["id"]]) for row in pairs)
