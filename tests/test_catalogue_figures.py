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


def test_figures_with_an_engine_are_those_of_the_benchmark() -> None:
    document = json.loads((ROOT / "eval" / "results" / "bench_catalogue_vllm.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    for name, against in (
        ("catalogue", None),
        ("bare", "catalogue_to_bare"),
        ("run-batch", "catalogue_to_run_batch"),
    ):
        held = document["contestants"][name]
        incorrect = "" if held["incorrect"] is None else f"{held['incorrect']} of {held['products']} "
        ratio = "" if against is None else f"{document['ratios'][against]['median']:.2f}x "
        row = f"| {held['products_per_s']:.2f} | {held['output_tokens_per_product']:.1f} | {incorrect}| {ratio}|"
        assert row in text


def test_the_proofs_by_kills_found_no_difference() -> None:
    for name, kills, rows in (("catalogue_kills", 200, 5000), ("catalogue_kills_vllm", 5, 200)):
        document = json.loads((ROOT / "eval" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        assert document["different"] == []
        assert sum(document["kills"].values()) >= kills
        assert document["rows"] >= rows
