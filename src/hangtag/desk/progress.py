"""How far the review is, how fast, how much reviewers agree, and how good the taggings are that they saw."""

from __future__ import annotations

from dataclasses import dataclass

from hangtag.desk.store import Store
from hangtag.metrics import krippendorff_alpha, wilson
from hangtag.metrics.bootstrap import Estimate


@dataclass(frozen=True, slots=True)
class Quality:
    """What a random sample says of the tagger: products whose tags were all right, and tags that were right."""

    num_products: int
    products: Estimate
    num_tags: int
    tags: Estimate


@dataclass(frozen=True, slots=True)
class Progress:
    """The figures of the progress page.

    `alpha` is over the `num_twice` products that two people decided. `reviewers` holds name, decisions and median
    seconds a product.
    """

    size: int
    num_decided: int
    queue: Quality
    accepted: Quality
    num_twice: int
    alpha: float
    reviewers: list[tuple[str, int, float | None]]


def progress_of(store: Store) -> Progress:
    """Return the figures of a store at this moment. Cost: grows with the number of decisions."""
    twice = store.seen_twice()
    return Progress(
        int(store.recall("size") or 0),
        store.num_decided(),
        quality_of(store, is_sample=False),
        quality_of(store, is_sample=True),
        len(twice),
        krippendorff_alpha(twice),
        store.by_reviewer(),
    )


def quality_of(store: Store, *, is_sample: bool) -> Quality:
    """Return how good the queue's taggings are, or those accepted without a look, by `Store.drawn`.

    Intervals are Wilson's, 95 %. For tags they take each tag as drawn by itself, so they are a little narrow.
    """
    num_products = whole = num_tags = kept = 0
    for entry, right in store.drawn(is_sample=is_sample):
        given = {tag.tag for tag in entry.tags}
        num_products += 1
        whole += given == set(right)
        num_tags += len(given)
        kept += len(given & set(right))
    return Quality(num_products, wilson(whole, num_products), num_tags, wilson(kept, num_tags))
