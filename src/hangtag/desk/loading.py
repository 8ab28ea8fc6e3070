"""From a queue on disk to a store that knows in which orders to ask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hangtag.catalogue.labelled import split_file
from hangtag.desk.informative import information, sketch, spread_out
from hangtag.desk.queue import Entry, queue_files, read_labels, read_queue
from hangtag.desk.store import Queued, Store
from hangtag.encoders.tfidf import TfidfEncoder
from hangtag.manifest import file_sha256
from hangtag.vocabulary import TagVocabulary

STORE = "review.sqlite"
MOST_RANKED = 20_000
"""Products that are ordered by information: of a longer queue the least sure ones. The others come after them."""
_SPREAD = 500
_ENCODED_AT_ONCE = 500


def load_queue(store: Store, folder: Path, vocabulary: TagVocabulary, *, is_labels: bool, twice: float) -> int:
    """Fill the store from a catalogue run's output, or from labelled data, and return the size of the queue.

    A queue that the store holds already is not read again. Cost: about a millisecond for each product that is
    ordered by information, less for the others; two passes over the files.

    Raises:
        DataError: there is no queue, or it is damaged.
    """
    files = [split_file(folder, "train")] if is_labels else queue_files(folder)
    digest = hashlib.sha256(json.dumps([[file_sha256(path) for path in files], twice]).encode()).hexdigest()
    if store.recall("queue") == digest:
        return int(store.recall("size") or 0)

    def read() -> Iterator[Entry]:
        return read_labels(folder, vocabulary) if is_labels else read_queue(folder, vocabulary)

    return store.load(_queued(read), digest=digest, twice=twice)


def _queued(read: Callable[[], Iterator[Entry]]) -> Iterator[Queued]:
    place = _places(read)
    for number, entry in enumerate(read()):
        key = entry_key(entry)
        yield Queued(entry, key, int.from_bytes(key[:8], "big") >> 1, place.get(number, len(place)))


def entry_key(entry: Entry) -> bytes:
    """Return 16 bytes that are equal for equal products with equal tags; their bits are as good as random."""
    product = entry.product.model_dump(exclude={"tags"})
    text = json.dumps([product, [tag.tag for tag in entry.tags]], ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _places(read: Callable[[], Iterator[Entry]]) -> dict[int, int]:
    """Return the place by information of the entries that are ordered so, by their numbers."""
    uncertain = np.array([-1.0 if entry.is_sample else entry.uncertainty for entry in read()])
    ranked = np.argsort(-uncertain, kind="stable")[:MOST_RANKED]
    chosen = {int(number) for number in ranked if uncertain[number] >= 0}
    if not chosen:
        return {}
    texts: list[str] = []
    numbers: list[int] = []
    for number, entry in enumerate(read()):
        if number in chosen:
            numbers.append(number)
            texts.append(entry.product.text)
    encoder = TfidfEncoder(texts)
    vectors = np.concatenate(
        [
            sketch(encoder.encode(texts[at : at + _ENCODED_AT_ONCE]))
            for at in range(0, len(texts), _ENCODED_AT_ONCE)
        ]
    )
    values = information(uncertain[numbers], vectors)
    first = spread_out(values, vectors, _SPREAD)
    taken = set(first)
    rest = [at for at in np.argsort(-values, kind="stable").tolist() if at not in taken]
    return {numbers[at]: place for place, at in enumerate([*first, *rest])}
