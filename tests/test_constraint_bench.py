from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve.bench_constraint import main, synthetic_vocabulary


def test_synthetic_vocabulary_is_deterministic_and_limited() -> None:
    vocabulary = synthetic_vocabulary(1000)
    assert len(vocabulary) == 1000
    assert vocabulary.fingerprint == synthetic_vocabulary(1000).fingerprint
    assert vocabulary.fingerprint != synthetic_vocabulary(1000, seed=1).fingerprint
    assert len(vocabulary.facet_names) == 8
    assert sum(limit.is_exclusive for limit in vocabulary.facets.values()) == 3


@pytest.mark.model
def test_benchmark_reports_every_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert main(["--sizes", "50", "--steps", "100", "--engines", "set", "xgrammar", "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == document
    for row in document["results"]:
        assert row["num_tags"] == 50
        assert "failed" in row or row["step_us"]["mean"] <= row["step_us"]["max"]
    assert document["results"][0]["load_s"] > 0
