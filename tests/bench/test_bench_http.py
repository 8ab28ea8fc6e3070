"""The benchmark of the server: its load, its figures, and that it asks both contestants the same."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import Shop

from bench.__main__ import main
from bench.http import Contestant, Request, _arrivals, _closed, _open, _rate, _summary, plot, quantile
from hangtag import Limits, TagVocabulary


def test_quantiles_that_can_be_counted_by_hand() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert quantile([3.0], 0.5) == quantile([3.0], 0.99) == 3
    assert quantile([], 0.5) is None


def test_arrivals_keep_the_rate_and_are_the_same_for_a_seed() -> None:
    async def count(seed: int) -> tuple[int, float]:
        start = time.perf_counter()
        number = sum([1 async for _ in _arrivals(400, 0.5, seed)])
        return number, time.perf_counter() - start

    number, seconds = asyncio.run(count(1))
    assert 140 < number < 260
    assert seconds < 5
    assert asyncio.run(count(1))[0] == number


def test_loads_are_measured_and_answers_checked(vocabulary: TagVocabulary) -> None:
    shop = Shop(vocabulary, delay_s=0.001, max_in_flight=6)
    slow = Shop(vocabulary, delay_s=0.05, max_in_flight=6)
    body = {"model": "hangtag", "stream": True, "messages": [{"role": "user", "content": "Red"}]}
    one = Contestant("hangtag", "http://shop.test/v1", [body], vocabulary, Limits())

    async def run() -> tuple[list[Request], list[Request]]:
        async with shop.client() as client, slow.client() as slow_client:
            return await _closed(one, client, 3, 0.3), await _open(one, slow_client, 200, 0.3, 0)

    closed, opened = asyncio.run(run())
    first = _summary(one, closed, 0.3)
    assert first["answers"] == first["requests"] == len(closed) > 3
    assert first["errors"] == first["shed"] == first["incorrect"] == 0
    assert 0 < first["first_p50_s"] <= first["p50_s"] <= first["p95_s"] <= first["p99_s"]
    second = _summary(one, opened, 0.3)
    assert second["shed"] > 0
    assert second["answers"] + second["shed"] == second["requests"]


def test_what_is_wrong_is_counted() -> None:
    one = Contestant("x", "http://x", [], TagVocabulary.from_json(["red", "blue"]), Limits(max_tags=1))
    outcomes = [
        Request(200, 0.1, 0.2, '{"tags":["red"]}'),
        Request(200, 0.1, 0.2, '{"tags":["red","red"]}'),
        Request(200, 0.1, 0.2, '{"tags":["red","blue"]}'),
        Request(200, None, 0.2, ""),
        Request(429),
        Request(500),
        Request(0),
    ]
    row = _summary(one, outcomes, 2.0)
    assert [row[name] for name in ("answers", "incorrect", "shed", "errors")] == [4, 3, 1, 2]
    assert row["answers_per_s"] == 2


def test_rates_are_numbers_or_factors() -> None:
    assert _rate("3")(10) == 3
    assert _rate("x0.5")(10) == 5


@pytest.mark.parametrize(
    "options",
    [[], ["--start", "--rates", "fast"], ["--start", "--rates", "x-1"], ["--start", "--clients", "0"]],
)
def test_wrong_options_are_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http", *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    row: dict[str, Any] = {"answers_per_s": 1.0, "p50_s": 0.1, "p99_s": None, "rate": 2.0}
    plot(
        {"contestants": {"a": {"closed": [row], "open": [row]}, "b": {"closed": [], "open": []}}},
        tmp_path / "p.svg",
    )
    assert "<svg" in (tmp_path / "p.svg").read_text(encoding="utf-8")


def test_figures_in_the_documents_are_those_of_the_file() -> None:
    root = Path(__file__).resolve().parents[2]
    document = json.loads((root / "eval" / "results" / "bench_http_sample.json").read_text(encoding="utf-8"))
    text = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    for name, loads in document["contestants"].items():
        for kind, column in (("closed", "clients"), ("open", "rate")):
            for row in loads[kind]:
                load = f"{row[column]} clients" if kind == "closed" else f"{row[column]:.1f}/s"
                figures = " | ".join(
                    f"{row[key]:.2f}" for key in ("answers_per_s", "p50_s", "p99_s", "first_p50_s")
                )
                assert (
                    f"| {name} | {load} | {figures} | {row['shed']} | {row['incorrect']} of {row['answers']} |"
                    in text
                )
