"""The figures in docs/catalogue.md are those of the committed results."""

from __future__ import annotations

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")


RESULTS = ROOT / "eval" / "results"


def result(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return document


def table(text: str, head: str) -> list[str]:
    """The rows of the table with this head."""
    lines = iter(text.splitlines())
    assert any(line.startswith(head) for line in lines), head
    assert set(next(lines)) <= set("|-:")
    return list(takewhile(lambda line: line.startswith("|"), lines))


def test_capacity_figures_are_those_of_the_benchmark() -> None:
    rows = [
        f"| {held['rows']:,} | {held['rows_per_cpu_s']:,} | {held['rows_per_s']:,} "
        f"| {held['peak_rss_mib']:.0f} | {held['resume_first_part_s']:.1f} |"
        for held in result("bench_catalogue_null")["results"]
    ]
    assert table(TEXT, "| rows |") == rows


def test_figures_with_an_engine_are_those_of_the_benchmark() -> None:
    document, rows = result("bench_catalogue_vllm"), []
    for name, against in (
        ("catalogue", None),
        ("bare", "catalogue_to_bare"),
        ("run-batch", "catalogue_to_run_batch"),
    ):
        held = document["contestants"][name]
        incorrect = "" if held["incorrect"] is None else f"{held['incorrect']} of {held['products']} "
        ratio = "" if against is None else f"{document['ratios'][against]['median']:.2f}x "
        rows.append(
            f" {held['products_per_s']:.2f} | {held['output_tokens_per_product']:.1f} | {incorrect}| {ratio}|"
        )
    assert [row.split("|", 2)[2] for row in table(TEXT, "| | products/s |")] == rows


def test_the_proofs_by_kills_are_told_as_they_ended() -> None:
    """The text says that no row differed, and in how many kills: it must, and may, say so of these files."""
    told = re.search(
        r"\(\[(\d+) without a language model\]\(\S+/(\w+)\.json\), \[(\d+) with vLLM\]\(\S+/(\w+)\.json\)", TEXT
    )
    assert told is not None
    for number, name in (told.group(1, 2), told.group(3, 4)):
        document = result(name)
        assert sum(document["kills"].values()) == int(number)
        assert document["different"] == []
