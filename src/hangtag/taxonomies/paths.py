"""Paths, one a line: Google's product taxonomy, Shopify's list of categories, plain `A > B > C`.

Google: `# Google_Product_Taxonomy_Version: 2021-09-21`, then `Animals & Pet Supplies > Live Animals`, in the file
with ids `3237 - Animals & Pet Supplies > Live Animals`.
Shopify: `gid://shopify/TaxonomyCategory/ap-1 : Animals & Pet Supplies > Live Animals`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hangtag.taxonomies.concepts import Concept, Taxonomy

_SEPARATOR = re.compile(r"\s>(?=\s)")
_NUMBER = re.compile(r"(\d+) - (.+)")
_GID = re.compile(r"(gid://\S+)\s+:\s+(.+)")


class PathTree:
    """Puts paths into a taxonomy; a parent that no line names is added before its child."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._listed: set[str] = set()

    def add(self, path: Sequence[str], where: str, *, id: str | None = None, description: str = "") -> None:
        """Add the concept at the end of a path, with those above it."""
        parts = [part.strip() for part in path]
        if not all(parts):
            self._taxonomy.pass_over("paths with an empty name", where)
            return
        parents: list[str] = []
        for depth in range(1, len(parts) + 1):
            key = "\0".join(parts[:depth])
            if key not in self._taxonomy.concepts:
                self._taxonomy.add(Concept(key, parts[depth - 1], parents=parents, where=where))
            parents = [key]
        concept = self._taxonomy.concepts[key]
        if key in self._listed:
            self._taxonomy.pass_over("entries that repeat an earlier one", where)
            return
        self._listed.add(key)
        concept.id, concept.description, concept.where = id, description, where

    def finish(self) -> Taxonomy:
        """Return the taxonomy, with a note on parents that no line names."""
        added = [concept for concept in self._taxonomy if concept.key not in self._listed]
        if added:
            self._taxonomy.notes.append(
                f"parents that stand in paths only, added: {len(added)} (first: {added[0].label!r})"
            )
        return self._taxonomy


def read_google(text: str) -> Taxonomy:
    """Return Google's product taxonomy; ids are its numbers, where the file has them."""
    return _read(text, _NUMBER)


def read_shopify_list(text: str) -> Taxonomy:
    """Return Shopify's categories from `categories.txt`; ids are GIDs."""
    return _read(text, _GID)


def read_paths(text: str) -> Taxonomy:
    """Return the tree of plain paths."""
    return _read(text, None)


def _read(text: str, with_id: re.Pattern[str] | None) -> Taxonomy:
    tree = PathTree(Taxonomy())
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("# "):
            continue
        found = with_id.fullmatch(line.strip()) if with_id else None
        path = _SEPARATOR.split(f" {found[2] if found else line} ")
        tree.add(path, f"line {number}", id=found[1] if found else None)
    return tree.finish()
