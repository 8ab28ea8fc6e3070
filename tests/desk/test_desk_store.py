"""What the desk keeps: orders, leases, decisions that survive, and what they say of quality."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from hangtag import Product, ScoredTag
from hangtag.desk.informative import information, sketch, spread_out
from hangtag.desk.loading import entry_key
from hangtag.desk.queue import Entry
from hangtag.desk.store import LEASE_S, Queued, Store
from hangtag.encoders.tfidf import TfidfEncoder
from hangtag.errors import DataError


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def entry(number: int, *, confidence: float = 0.5, facet: str = "colour", is_sample: bool = False) -> Entry:
    tags = (ScoredTag(tag="red", facet=facet, confidence=confidence),)
    return Entry(Product(id=str(number), title=f"Shoe {number}"), tags, is_sample=is_sample)


def queued(entries: list[Entry]) -> list[Queued]:
    return [
        Queued(one, entry_key(one), int.from_bytes(entry_key(one)[:8], "big") >> 1, -number)
        for number, one in enumerate(entries)
    ]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock):
    store = Store(tmp_path / "review.sqlite", clock=clock)
    entries = [
        entry(number, confidence=number / 10, facet="colour" if number % 2 else "type") for number in range(10)
    ]
    store.load(queued([*entries, *(entry(number, is_sample=True) for number in range(90, 96))]), digest="1")
    yield store
    store.close()


def next_id(store: Store, reviewer: str = "ada", order: str = "least", facet: str = "") -> str | None:
    position = store.lease(reviewer, order, facet)
    return None if position is None else store.entry(position).product.id


def work_off(
    store: Store, reviewer: str = "ada", order: str = "least", facet: str = "", tags=("red",)
) -> list[str]:
    found = []
    while (position := store.lease(reviewer, order, facet)) is not None:
        given = [tag.tag for tag in store.entry(position).tags]
        store.decide(position, reviewer, "accept" if list(tags) == given else "change", tags)
        found.append(store.entry(position).product.id)
    return found


def test_orders(store: Store) -> None:
    assert next_id(store) == "0"
    assert next_id(store, order="informative") == "9"
    assert next_id(store, facet="colour") == "1"
    assert next_id(store, order="accepted").startswith("9")
    assert work_off(store, facet="type") == ["0", "2", "4", "6", "8"]
    draws = {str(n): entry_key(entry(n, confidence=n / 10, facet="colour")) for n in (1, 3, 5, 7, 9)}
    assert work_off(store, order="random") == sorted(draws, key=lambda name: draws[name][:8])
    assert sorted(work_off(store, order="accepted")) == ["90", "91", "92", "93", "94", "95"]
    assert store.num_decided() == 16


def test_two_reviewers_get_different_products_until_a_lease_ends(store: Store, clock: Clock) -> None:
    assert next_id(store) == next_id(store) == "0"
    assert next_id(store, "ben") == "1"
    clock.now += LEASE_S + 1
    assert next_id(store, "cid") == "0"
    assert next_id(store, "ada") == "1"


def test_skipping_leaves_a_product_to_others(store: Store) -> None:
    position = store.lease("ada", "least")
    assert position is not None
    store.decide(position, "ada", "skip")
    assert next_id(store) == "1"
    assert next_id(store, "ben") == "0"
    assert store.num_decided() == 0


def test_undo_goes_back_one_by_one(store: Store) -> None:
    first = store.lease("ada", "least")
    store.decide(first, "ada", "change", ["blue"])
    second = store.lease("ada", "least")
    store.decide(second, "ada", "accept", ["red"])
    assert (store.undo("ada"), store.undo("ada"), store.undo("ada")) == (second, first, None)
    assert store.lease("ada", "least") == first
    assert list(store.decided()) == []


def test_a_decision_sent_twice_counts_once(store: Store) -> None:
    position = store.lease("ada", "least")
    for tags in (["red"], ["red"], ["blue"]):
        store.decide(position, "ada", "change", tags)
    [decided] = store.decided()
    assert (decided.tags, decided.reviewer, decided.entry.product.id) == (("blue",), "ada", "0")
    assert decided.at.startswith("1970-01-12T13:46:40")
    with pytest.raises(KeyError):
        store.decide(999, "ada", "accept", ["red"])


def test_decisions_outlive_the_process_and_a_new_queue(store: Store, tmp_path: Path) -> None:
    position = store.lease("ada", "least")
    store.decide(position, "ada", "change", ["blue"], comment="why")
    # As after kill -9: nothing was closed.
    again = Store(tmp_path / "review.sqlite")
    assert [decided.comment for decided in again.decided()] == ["why"]
    kept = [entry(number, confidence=number / 10, facet="colour" if number % 2 else "type") for number in (0, 1)]
    assert again.load(queued([*kept, entry(50, confidence=0.0)]), digest="2") == 3
    assert work_off(again, "ben") == ["50", "1"]
    assert [decided.entry.product.id for decided in again.decided()] == ["0", "50", "1"]
    again.close()


def test_twenty_reviewers_at_once_double_and_lose_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "many.sqlite")
    store.load(queued([entry(number) for number in range(200)]), digest="1")
    done: dict[str, list[str]] = {}

    def review(name: str) -> None:
        done[name] = work_off(store, name)

    threads = [threading.Thread(target=review, args=(f"r{number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [name for names in done.values() for name in names]
    assert sorted(ids, key=int) == [str(number) for number in range(200)]
    assert len(list(store.decided())) == 200
    store.close()


def test_products_to_be_seen_twice_go_to_two_people(tmp_path: Path) -> None:
    store = Store(tmp_path / "twice.sqlite")
    store.load(queued([entry(number) for number in range(200)]), digest="1", twice=0.25)
    first = work_off(store, "ada", tags=("red",))
    second = work_off(store, "ben", tags=("blue",))
    assert len(first) == 200
    assert 30 < len(second) < 70
    assert work_off(store, "cid") == []
    pairs = store.seen_twice()
    assert len(pairs) == len(second)
    assert pairs[0] == [frozenset({"red"}), frozenset({"blue"})]
    store.close()


def test_an_estimate_takes_what_is_a_random_sample(store: Store) -> None:
    sample = sorted((entry(n, is_sample=True) for n in range(90, 96)), key=lambda one: entry_key(one)[:8])
    for _ in range(2):
        store.decide(store.lease("ada", "accepted"), "ada", "accept", ["red"])
    store.decide(store.lease("ada", "accepted"), "ada", "skip")
    store.lease("ada", "accepted")
    store.lease("ben", "accepted")
    last = store.lease("cid", "accepted")
    store.decide(last, "cid", "change", ["blue"])
    # cid's product stands behind one that nobody has decided, ben has the one that ada skipped.
    assert [one.product.id for one, _ in store.drawn(is_sample=True)] == [one.product.id for one in sample[:2]]
    store.decide(store.lease("ada", "accepted"), "ada", "change", ["blue"])
    drawn = list(store.drawn(is_sample=True))
    assert [tags for _, tags in drawn] == [("red",), ("red",), ("blue",), ("blue",)]
    assert list(store.drawn(is_sample=False)) == []


def test_a_file_that_is_no_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("no database at all" * 100)
    with pytest.raises(DataError, match="cannot be used for reviews"):
        Store(tmp_path / "no")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(DataError, match="another version"):
        Store(tmp_path / "other")


def test_informative_products_are_uncertain_dense_and_apart() -> None:
    texts = ["red shoe", "red shoes", "red shoe new", "blue mug", "blue mug tea", "zebra quartz"]
    vectors = sketch(TfidfEncoder(texts).encode(texts))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    values = information(np.ones(6), vectors)
    assert values.argmin() == 5
    assert information(np.array([0, 1, 1, 1, 1, 1.0]), vectors)[0] == 0
    chosen = spread_out(np.ones(6), vectors, 3)
    assert len({0 if at < 3 else 1 if at < 5 else 2 for at in chosen}) == 3
    assert sorted(spread_out(values, vectors, 10)) == list(range(6))
