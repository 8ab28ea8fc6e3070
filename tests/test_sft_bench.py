from __future__ import annotations

import json

from tiny_model import make_tiny_model

from sft.bench import main


def test_bare_loop_and_trainer_are_timed_on_the_same_batches(tmp_path, capsys):
    model = make_tiny_model(tmp_path / "base")
    out = tmp_path / "bench.json"
    arguments = ["--model", str(model), "--products", "8", "--batch-size", "4", "--rounds", "1", "--out", str(out)]
    assert main(arguments) == 0
    document = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    assert set(document["contestants"]) == {
        "tag_tokens, lora", "tag_tokens, qlora", "text, lora", "text, qlora"
    }  # fmt: skip
    for figures in document["contestants"].values():
        assert figures["bare_samples_per_s"] > 0
        assert figures["trainer_samples_per_s"] > 0


def test_too_few_products_are_one_line(capsys):
    assert main(["--products", "3"]) == 2
    assert "at least two batches" in capsys.readouterr().err
