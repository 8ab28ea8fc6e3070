"""What a tagging was made from: the key of a row, and when a tagging outlives a change of the vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hangtag.product import ProductFields
from hangtag.vocabulary import TagVocabulary

KEY_BYTES = 16
NO_KEY = bytes(KEY_BYTES)
"""Stands for the key of a row that is no product."""


def context_digest(ingredients: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of everything beside the product that decides a tagging.

    Examples:
        >>> context_digest({"model": "a", "max_tags": 3}) == context_digest({"max_tags": 3, "model": "a"})
        True
    """
    text = json.dumps(ingredients, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class RowKeys:
    """Keys of rows in one context: equal exactly where product content and context are equal.

    A key is the BLAKE2b hash, 128 bits, of the context and of title, description and attributes in their order.
    The id is no part of it: identical products have one key.
    """

    def __init__(self, context: str) -> None:
        self._start = hashlib.blake2b(bytes.fromhex(context), digest_size=KEY_BYTES)

    def __call__(self, fields: ProductFields) -> bytes:
        """Return the key."""
        # Normalised text holds no control characters, so they can part the fields.
        text = f"{fields.title}\0{fields.description}"
        for name, value in fields.attributes.items():
            text += f"\0{name}\1{value}"
        digest = self._start.copy()
        digest.update(text.encode())
        return digest.digest()


def changed_tags(old: TagVocabulary, new: TagVocabulary) -> frozenset[str] | None:
    """Return the old tags whose taggings must be made again under `new`; None if all must.

    A tag that was taken out, or renamed in its place, concerns the taggings that hold it: every other product
    was already judged without it or against the same meaning. A tag counts as renamed if the new name stands at
    the old one's place in the order, or lists the old name among its aliases, and facet, parent and description
    are the same. Anything else (a tag more, another facet, parent, description, alias or order) may change any
    answer.
    """
    removed = [tag for tag in old if tag.tag not in new]
    added = [tag for tag in new if tag.tag not in old]
    renamed: dict[str, str] = {}
    for tag in added:
        candidates = [
            before
            for before in removed
            if before.tag not in renamed
            and (before.tag in tag.aliases or _same_place(old, new, before.tag, tag.tag))
        ]
        if not candidates:
            return None
        renamed[candidates[0].tag] = tag.tag
    gone = {tag.tag for tag in removed} - renamed.keys()
    expected = [
        (renamed.get(tag.tag, tag.tag), tag.facet, renamed.get(tag.parent or "", tag.parent), tag.description)
        for tag in old
        if tag.tag not in gone
    ]
    if expected != [(tag.tag, tag.facet, tag.parent, tag.description) for tag in new]:
        return None
    back = {after: before for before, after in renamed.items()}
    for tag in new:
        before = old[back.get(tag.tag, tag.tag)]
        if set(tag.aliases) - {before.tag} != set(before.aliases) - {tag.tag}:
            return None
    return frozenset(tag.tag for tag in removed)


def _same_place(old: TagVocabulary, new: TagVocabulary, before: str, after: str) -> bool:
    return len(old) == len(new) and old.position(before) == new.position(after)


def keys_column(keys: bytes) -> Any:
    """Return keys that stand one after another as a column; `NO_KEY` becomes null."""
    import pyarrow as pa

    pairs = np.frombuffer(keys, np.uint64).reshape(-1, 2)
    is_key = pairs.any(axis=1)
    mask = None if is_key.all() else pa.py_buffer(np.packbits(is_key, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(KEY_BYTES), len(pairs), [mask, pa.py_buffer(keys)])


def key_bytes(column: Any) -> bytes:
    """Return what `keys_column` was made from."""
    return b"".join(key or bytes(KEY_BYTES) for key in column.to_pylist())
