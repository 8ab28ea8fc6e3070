from __future__ import annotations

import json

import pytest
from tiny_model import make_tiny_model

from bench.__main__ import main
from sft.machine import can_compile


@pytest.mark.train
def test_bare_loop_and_trainer_are_timed_on_the_same_batches(tmp_path, capsys, monkeypatch):
    kinds = [("tag_tokens", "full"), ("tag_tokens", "qlora"), ("text", "qlora")]
    monkeypatch.setattr("bench.training._KINDS", kinds)  # a compilation takes ten seconds
    model = make_tiny_model(tmp_path / "base")
    out = tmp_path / "bench.json"
    arguments = [
        "training",
        "--model",
        str(model),
        "--products",
        "8",
        "--batch-size",
        "4",
        "--rounds",
        "1",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    document = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    assert list(document["contestants"]) == [", ".join(kind) for kind in kinds]
    for name, figures in document["contestants"].items():
        assert set(figures["samples_per_s"]) == {"bare", "trainer"} | (
            {"compiled"} if "qlora" not in name and can_compile() else set()
        )
        assert all(rate > 0 for rate in figures["samples_per_s"].values())
        assert figures["to_bare"].keys() == figures["samples_per_s"].keys() - {"bare"}


def test_too_few_products_are_one_line(capsys):
    assert main(["training", "--products", "3"]) == 2
    assert "at least two batches" in capsys.readouterr().err
