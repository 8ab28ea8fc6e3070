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

    A tag that was taken out, renamed, or given another id concerns the taggings that hold it: every other product
    was already judged without it or against the same meaning. A tag counts as renamed if its id has another name,
    or else if the new name stands at the old one's place in the order, or lists the old name among its aliases;
    facet, parent and description are the same. Anything else (a tag more, another facet, parent, description,
    alias or order) may change any answer. Names in other languages change none.
    """
    name_now = _names_now(old, new)
    if name_now is None:
        return None
    expected = [
        (name_now[tag.tag], tag.facet, name_now.get(tag.parent or "", tag.parent), tag.description)
        for tag in old
        if tag.tag in name_now
    ]
    if expected != [(tag.tag, tag.facet, tag.parent, tag.description) for tag in new]:
        return None
    for before, after in name_now.items():
        if set(new[after].aliases) - {before} != set(old[before].aliases) - {after}:
            return None
    same = {before for before, after in name_now.items() if (before, old[before].id) == (after, new[after].id)}
    return frozenset(tag.tag for tag in old if tag.tag not in same)


def _names_now(old: TagVocabulary, new: TagVocabulary) -> dict[str, str] | None:
    """Return what each old tag that still exists is called now; None if a tag is new."""
    name_of = {tag.id: tag.tag for tag in new if tag.id is not None}
    found = {tag.tag: name_of[tag.id] for tag in old if tag.id in name_of}
    taken = set(found.values())
    for tag in old:
        if tag.tag not in found and tag.tag in new and tag.tag not in taken:
            found[tag.tag] = tag.tag
    taken = set(found.values())
    left = [tag.tag for tag in old if tag.tag not in found]
    for tag in new:
        if tag.tag in taken:
            continue
        before = next((name for name in left if name in tag.aliases or _same_place(old, new, name, tag.tag)), None)
        if before is None:
            return None
        left.remove(before)
        found[before] = tag.tag
    return found


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
