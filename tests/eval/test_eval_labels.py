"""The simulation of orders, and the measure of faithfulness, on the sample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval import faithfulness, labels
from hangtag.sample import sample_folder


def test_each_order_labels_as_many_and_starts_alike(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "labels.json"
    small = ["--pool", "80", "--batch", "20", "--rounds", "2", "--products", "30", "--seeds", "1"]
    assert labels.main(["--data", str(sample_folder()), "--out", str(out), *small]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["labels"] == [20, 40, 60]
    assert {curve[0] for curve in found["set_f1"].values()} == {found["set_f1"]["random"][0]}
    assert len({tuple(curve) for curve in found["set_f1"].values()}) > 1
    assert labels.main(["--data", str(sample_folder()), "--out", str(out), "--pool", "100"]) == 2


def test_labels_needed_are_interpolated() -> None:
    assert labels._needed([100, 200, 300], np.array([0.2, 0.4, 0.6]), 0.5) == 250
    assert labels._needed([100, 200], np.array([0.6, 0.7]), 0.5) == 100
    assert labels._needed([100, 200], np.array([0.1, 0.2]), 0.5) is None


def test_faithfulness_of_the_sample(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "explain.json"
    assert faithfulness.main(["--data", str(sample_folder()), "--out", str(out), "--products", "40"]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["explainers"]
    assert found["linear"]["top"][1] > found["linear"]["random"][2]
    assert faithfulness.main(["--data", str(sample_folder()), "--out", str(out), "--train", "0"]) == 2
