"""The figures in docs/catalogue.md are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_capacity_figures_are_those_of_the_benchmark() -> None:
    document = json.loads((ROOT / "eval" / "results" / "bench_catalogue_null.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    for result in document["results"]:
        row = (
            f"| {result['rows']:,} | {result['rows_per_cpu_s']:,} | {result['rows_per_s']:,} "
            f"| {result['peak_rss_mib']:.0f} | {result['resume_first_part_s']:.1f} |"
        )
        assert row in text


def test_the_proof_by_kills_found_no_difference() -> None:
    document = json.loads((ROOT / "eval" / "results" / "catalogue_kills.json").read_text(encoding="utf-8"))
    assert document["different"] == []
    assert sum(document["kills"].values()) >= 200
    assert document["rows"] >= 5000
