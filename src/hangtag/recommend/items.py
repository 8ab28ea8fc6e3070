"""The items that can be recommended: their tags with confidences, and the words that a shop says of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from hangtag.catalogue.files import catalogue_file
from hangtag.catalogue.rows import CatalogueRows
from hangtag.errors import DataError
from hangtag.product import normalise_text
from hangtag.vocabulary import TagVocabulary

NO_FACET = ""
_WORD = re.compile(r"[^\W_]+")
_READ_ROWS = 1024


@dataclass(frozen=True)
class Items:
    """Items in the order of their file.

    `has_tag` (num_items, num_tags) holds confidences in (0, 1], gold tags count 1; `has_word` (num_items,
    num_words) holds 1 for each word of title, description and attributes that two items or more share.
    `facets[t]` is the facet of `tags[t]`. `num_bad` rows were no items.
    """

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    tags: tuple[str, ...]
    facets: tuple[str, ...]
    has_tag: sp.csr_matrix = field(repr=False)
    has_word: sp.csr_matrix = field(repr=False)
    num_bad: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def tags_of(self, item: int) -> list[str]:
        """Return the tags of an item, given its position."""
        row = self.has_tag.indices[self.has_tag.indptr[item] : self.has_tag.indptr[item + 1]]
        return [self.tags[tag] for tag in row]


def read_items(path: str | Path, *, vocabulary: TagVocabulary | None = None) -> Items:
    """Return the items of a catalogue file with tags, or of a file of taggings.

    A row has `id` and `tags`: a list of names (labelled products), or of objects with `tag` and, optionally,
    `facet` and `confidence` (taggings). `title`, `description` and `attributes` may be missing. `vocabulary` gives
    the facets where rows do not. Rows without id, with another form of tags, or whose id came before are counted
    in `num_bad`.

    Raises:
        DataError: the file is missing or of another kind, or holds no item.
    """
    file = catalogue_file(path)
    rows = CatalogueRows([file], None)
    found: dict[str, tuple[str, dict[str, float], set[str]]] = {}
    facets: dict[str, str] = {}
    num_bad = 0
    try:
        while batch := rows.read(_READ_ROWS):
            for _, row in batch:
                read = None if isinstance(row, str) else _item(row, facets)
                if read is None or read[0] in found:
                    num_bad += 1
                else:
                    found[read[0]] = read[1:]
    finally:
        rows.close()
    if not found:
        raise DataError(f"{file.name}: no items; expected rows with `id` and `tags`")
    tags = sorted({tag for _, held, _ in found.values() for tag in held})
    if vocabulary is not None:
        facets |= {tag: vocabulary[tag].facet or NO_FACET for tag in tags if tag in vocabulary}
    shared = Counter(word for _, _, words in found.values() for word in words)
    words = sorted(word for word, number in shared.items() if number > 1)
    return Items(
        ids=tuple(found),
        titles=tuple(title for title, _, _ in found.values()),
        tags=tuple(tags),
        facets=tuple(facets.get(tag, NO_FACET) for tag in tags),
        has_tag=_sparse((held for _, held, _ in found.values()), tags),
        has_word=_sparse((dict.fromkeys(own, 1.0) for _, _, own in found.values()), words),
        num_bad=num_bad,
    )


def _item(row: Mapping[str, Any], facets: dict[str, str]) -> tuple[str, str, dict[str, float], set[str]] | None:
    """Return id, title, tags with confidences and words of a row; facets that it names go into `facets`."""
    tags = row.get("tags")
    if isinstance(tags, str):
        try:
            tags = json.loads(tags or "[]")
        except ValueError:
            return None
    if row.get("id") in (None, "") or not isinstance(tags, list | tuple | None):
        return None
    held: dict[str, float] = {}
    for tag in tags or ():
        given = tag if isinstance(tag, Mapping) else {"tag": tag}
        name, confidence = given.get("tag"), given.get("confidence")
        if not isinstance(name, str) or not name:
            return None
        if given.get("facet"):
            facets[name] = str(given["facet"])
        held[name] = 1.0 if confidence is None else min(1.0, max(1e-6, float(confidence)))
    title = normalise_text(str(row.get("title") or ""))
    words = {word for word in _WORD.findall(f"{title} {row.get('description') or ''}".casefold()) if len(word) > 1}
    attributes = row.get("attributes")
    if isinstance(attributes, Mapping):
        words |= {f"{name}={value}".casefold() for name, value in attributes.items() if value}
    if title:
        words.add(f"title={title.casefold()}")
    return str(row["id"]), title, held, words


def _sparse(rows: Iterable[Mapping[str, float]], names: Iterable[str]) -> sp.csr_matrix:
    column = {name: position for position, name in enumerate(names)}
    indptr, indices, values = [0], [], []
    for row in rows:
        known = [(column[name], value) for name, value in row.items() if name in column]
        indices += [position for position, _ in known]
        values += [value for _, value in known]
        indptr.append(len(indices))
    shape = (len(indptr) - 1, len(column))
    return sp.csr_matrix((np.asarray(values, np.float32), np.asarray(indices, np.int64), indptr), shape=shape)


def idf(held: sp.csr_matrix) -> NDArray[np.float32]:
    """Return log(num_items / num_items with it) of each column, shape (num_columns,); 0 where no item has it."""
    number = np.bincount(held.indices, minlength=held.shape[1])
    found: NDArray[np.float32] = np.log(held.shape[0] / np.maximum(number, 1)).astype(np.float32)
    return found


def unit_rows(matrix: sp.csr_matrix, scale: NDArray[np.float32]) -> sp.csr_matrix:
    """Return `matrix` with columns scaled and rows of length 1; rows of zeros stay."""
    scaled = matrix.multiply(scale[None, :]).tocsr().astype(np.float32)
    length = np.sqrt(np.asarray(scaled.multiply(scaled).sum(1)).ravel())
    scale_rows: Callable[..., Any] = sp.diags
    return (scale_rows((1 / np.maximum(length, 1e-9)).astype(np.float32)) @ scaled).tocsr()
