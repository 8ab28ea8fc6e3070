"""`/v1/tag`, its metrics and the drift of tags."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import Shop
from hypothesis import given
from hypothesis import strategies as st

from hangtag import ScoredTag, Tag, TagVocabulary
from hangtag.catalogue.products import read_catalogue
from hangtag.endpoint.vocabularies import MAX_ATTRIBUTES, read_product
from hangtag.metrics.drift import TagDrift, population_stability


@pytest.fixture
def shop(vocabulary: TagVocabulary) -> Shop:
    return Shop(vocabulary)


def test_taggings_come_in_order_with_an_error_where_there_is_no_product(shop: Shop) -> None:
    products: list[Any] = [
        {"id": "a", "title": "Red shoes", "unknown": 1},
        17,
        "Blue",
        {"id": "c", "title": {"en": "x"}},
        {"id": "\ud800", "title": "\udc00"},
        {},
        None,
        {"title": "x", "attributes": {str(number): "v" for number in range(300)}},
        {"id": 8, "title": "x", "attributes": '{"a": "b"}'},
    ]
    response = shop.ask(
        "POST", "/v1/tag", content=__import__("json").dumps({"products": products}).encode(),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert response.status_code == 200
    taggings = response.json()["taggings"]
    assert [tagging["id"] for tagging in taggings] == ["a", "1", "2", "c", "?", "5", "6", "7", "8"]
    assert [tagging["status"] for tagging in taggings] == [
        "ok", "error", "ok", "error", "error", "error", "error", "error", "ok",
    ]  # fmt: skip
    for tagging in taggings:
        assert (tagging["status"] == "ok") == ("reason" not in tagging)
        assert tagging["decision"] in ("accept", "review")
        assert tagging["model"] == "hangtag-fake"
        assert tagging["vocabulary"] == shop.vocabularies.default.vocabulary.fingerprint
    assert shop.sample("hangtag_taggings_total", vocabulary="shop", status="error") == 6


@pytest.mark.parametrize("title", ["", "Red shoes"])
def test_rows_have_the_ids_that_the_offline_reader_gives_them(shop: Shop, tmp_path: Path, title: str) -> None:
    ids: list[Any] = ["a", 2, 12345678.0, True, None, ["x", 1], {"a": 1}, " b "]
    rows = [*({"id": given, "title": title} for given in ids), {"title": title}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    offline = [row.id for row in read_catalogue(tmp_path / "rows.jsonl")]
    for products in (rows, [json.dumps(row) for row in rows]):
        online = [tagging["id"] for tagging in shop.post("/v1/tag", {"products": products}).json()["taggings"]]
        # A row without an id is called by its line in a file and by its position in a call.
        assert [f"line-{int(name) + 1}" if name in ("4", "6", "8") else name for name in online] == offline


def test_options_are_those_of_completions(shop: Shop, vocabulary: TagVocabulary) -> None:
    body = {"products": ["x"] * 5, "min_tags": 1, "max_tags": 1, "only_facets": ["colour"]}
    for tagging in shop.post("/v1/tag", body).json()["taggings"]:
        [tag] = tagging["tags"]
        assert tag["facet"] == "colour"
        assert 0 < tag["confidence"] <= 1
    other = shop.post("/v1/tag", {"products": ["x"], "vocabulary": "other", "min_tags": 2}).json()
    assert {tag["tag"] for tag in other["taggings"][0]["tags"]} <= {"tea", "cup", "böhm", "杯"}
    assert other["is_calibrated"] is False


def test_limits_by_facet_and_parents_are_heeded(shop: Shop) -> None:
    closed = {"max": 0}
    body: dict[str, Any] = {
        "products": [f"shoes {number}" for number in range(60)],
        "facets": {"type": {"min": 1, "max": 1}, "colour": closed, "feature": closed},
    }
    names = [{tag["tag"] for tag in t["tags"]} for t in shop.post("/v1/tag", body).json()["taggings"]]
    assert {frozenset(tags) for tags in names} == {frozenset({"shoes"}), frozenset({"running shoes"})}
    body |= {"with_parents": True}
    names = [{tag["tag"] for tag in t["tags"]} for t in shop.post("/v1/tag", body).json()["taggings"]]
    assert names == [{"shoes"}] * 60
    refused = shop.post("/v1/tag", body | {"facets": {"colour": {"min": 2, "max": 1}}})
    assert refused.status_code == 400
    assert "colour" in refused.json()["error"]["message"]


def test_no_products_get_no_taggings(shop: Shop) -> None:
    assert shop.post("/v1/tag", {"products": []}).json()["taggings"] == []


def test_one_product_that_vllm_refuses_does_not_stop_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = shop.vllm._complete

    async def refusing(path: str, body: dict[str, Any], send: Any) -> None:
        is_second = len(shop.vllm.bodies) == 2
        shop.vllm.failure = (400, {"error": {"message": "no"}}) if is_second else None
        await complete(path, body, send)

    monkeypatch.setattr(shop.vllm, "_complete", refusing)
    taggings = shop.post("/v1/tag", {"products": ["a", "b", "c"]}).json()["taggings"]
    assert sorted(tagging["status"] for tagging in taggings) == ["error", "ok", "ok"]


def test_a_dead_engine_is_an_error_of_the_call(shop: Shop) -> None:
    shop.vllm.failure = (500, {})
    assert shop.post("/v1/tag", {"products": ["a", "b"]}).status_code == 503
    assert shop.serving.load.num_products == 0


def test_metrics_count_taggings_tags_and_confidences(shop: Shop) -> None:
    body = {"products": ["x"] * 4, "min_tags": 2, "max_tags": 2}
    taggings = shop.post("/v1/tag", body).json()["taggings"]
    confidences = [tag["confidence"] for one in taggings for tag in one["tags"]]
    assert shop.sample("hangtag_tags_total", vocabulary="shop") == 8
    assert shop.sample("hangtag_confidence_count", vocabulary="shop") == 8
    assert shop.sample("hangtag_confidence_sum", vocabulary="shop") == pytest.approx(sum(confidences))
    low = sum(confidence < 0.5 for confidence in confidences)
    assert shop.sample("hangtag_tags_below_threshold_total", vocabulary="shop") == low
    assert shop.sample("hangtag_tags_per_product_bucket", vocabulary="shop", le="1.0") == 0
    assert shop.sample("hangtag_requests_total", route="/v1/tag", status="200") == 1
    shop.post("/v1/tag", {"products": ["x"], "max_tags": 0})
    assert shop.sample("hangtag_empty_taggings_total", vocabulary="shop") == 1


def test_drift_is_shown_for_vocabularies_with_counts() -> None:
    counted = TagVocabulary([Tag("red", count=90), Tag("blue", count=10), Tag("green")])
    shop = Shop(counted)
    tags = [ScoredTag(tag="blue", confidence=0.9)] * 5
    for _ in range(60):
        shop.serving.telemetry.tagging("shop", "ok", tags, 0.5)
    assert shop.sample("hangtag_tag_drift_psi", vocabulary="shop") > 1
    assert shop.registry.get_sample_value("hangtag_tag_drift_psi", {"vocabulary": "other"}) is None


class TestDrift:
    def test_numbers_that_can_be_counted_by_hand(self) -> None:
        # Shares 0.5/0.5 against 0.75/0.25, up to the smoothing of half a count.
        expected = 0.25 * math.log(1.5) - 0.25 * math.log(0.5)
        assert population_stability([5e6, 5e6], [7.5e6, 2.5e6]) == pytest.approx(expected, abs=1e-5)
        assert population_stability([10, 10], [10, 10]) == 0
        assert population_stability([], []) == 0
        assert population_stability([0, 0], [1, 2]) == 0
        with pytest.raises(ValueError, match="equally many"):
            population_stability([1], [1, 2])

    @given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20))
    def test_it_is_never_negative_and_finite(self, counts: list[tuple[int, int]]) -> None:
        value = population_stability([one for one, _ in counts], [other for _, other in counts])
        assert 0 <= value < math.inf

    def test_the_same_shares_are_stable_and_others_are_not(self) -> None:
        counts = {f"t{number}": 1000 // (number + 1) for number in range(50)}
        drift = TagDrift(counts, window=100)
        assert drift.value() is None
        for _ in range(20):
            for name, count in counts.items():
                drift.add([name] * (count // 20))
        assert len(drift._expected) <= 21
        for _ in range(100):
            drift.add([name for name, count in counts.items() for _ in range(count // 10)])
        value = drift.value()
        assert value is not None
        assert value < 0.1
        for _ in range(100):
            drift.add(["t49", "unseen"])
        value = drift.value()
        assert value is not None
        assert value > 1

    def test_the_window_forgets(self) -> None:
        drift = TagDrift({"a": 1000, "b": 1000}, window=10)
        for _ in range(500):
            drift.add(["a"] * 50)
        for _ in range(10):
            drift.add(["a"] * 25 + ["b"] * 25)
        value = drift.value()
        assert value is not None
        assert value < 0.01


def test_products_are_text_or_objects() -> None:
    assert read_product(" Red\nshoes ", 3).title == "Red shoes"
    assert read_product('{"id": "x", "title": "Red"}', 3).id == "x"
    assert read_product('{"title": NaN', 3).title == '{"title": NaN'
    assert read_product('["x"]', 3).title == '["x"]'
    assert read_product({"title": "x", "attributes": {"a": 1.5, "b": None}}, 3).attributes == {"a": "1.5"}
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    for wrong in (
        None, 1, [], {}, "", "\ud800", {"title": "x", "attributes": {"\ud800": "x"}}, {"title": deep},
        {"title": "x", "attributes": {str(n): "x" for n in range(MAX_ATTRIBUTES + 1)}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="."):
            read_product(wrong, 0)
