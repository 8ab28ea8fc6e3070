"""The way round: a catalogue's review queue, decided, becomes what the next model is trained on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hangtag import TagVocabulary, load_dataset
from hangtag.bulk.review import _Sample, read_decisions
from hangtag.cli import main as hangtag
from hangtag.errors import DataError
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


def test_a_sample_of_what_was_accepted_is_written_in_the_queues_form(tmp_path: Path) -> None:
    vocabulary = str(sample_folder() / "vocabulary.json")
    rows = [product.model_dump(exclude={"tags"}) for product in load_dataset(sample_folder()).train[:60]]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0] | {"id": "again"}])) + "\n")
    arguments = [str(tmp_path / "in.jsonl"), "--vocabulary", vocabulary, "--engine", "null", "--quiet"]
    assert generate.main([*arguments[:1], str(tmp_path / "out"), *arguments[1:], "--accept-at", "0.2"]) == 0
    accepted, sample = (
        [json.loads(line) for line in (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines()]
        for name in ("accepted.jsonl", "accepted_sample.jsonl")
    )
    assert len(accepted) > 5
    assert {entry["id"] for entry in sample} == {row["id"] for row in accepted} - {"again"}
    assert [entry["id"] for entry in sample] != sorted(entry["id"] for entry in sample)
    assert all(entry["title"] and entry["decision"] == "" for entry in sample)


def test_the_sample_holds_the_smallest_draws() -> None:
    sample = _Sample(2)
    keys = [bytes([draw, *bytes(15)]) for draw in (9, 1, 7, 3)]
    for key in keys:
        rows, draws = sample.choose(np.array([0]), key)
        sample.add(draws, [{"draw": key[0]}][: len(rows)])
    assert [entry["draw"] for entry in sample.entries()] == [1, 3]


def test_label_studios_json_is_read(tmp_path: Path, vocabulary: TagVocabulary) -> None:
    def result(*choices: str) -> dict[str, object]:
        value = {"choices": list(choices)}
        return {"result": [{"from_name": "colour", "to_name": "text", "type": "choices", "value": value}]}

    data = [{"id": str(number), "title": f"Shoe {number}"} for number in range(4)]
    tasks = [
        {"data": data[0], "annotations": [result("red"), result("blue", "shoes")]},
        {"data": data[1], "annotations": [result()]},
        {"data": data[2], "annotations": [{"was_cancelled": True, "result": []}]},
        {"data": data[3], "annotations": []},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    decisions = read_decisions([path], vocabulary)
    assert [(product.id, product.tags) for product in decisions.products] == [("0", ("blue", "shoes")), ("1", ())]
    assert (decisions.changed, decisions.skipped, decisions.waiting) == (3, 1, 1)
    for text, message in [
        ("{", "not JSON"),
        ('{"a": 1}', "no tasks"),
        ("[3]", "no tasks"),
        ('[{"data": 3}]', "no tasks"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_decisions([path], vocabulary)
