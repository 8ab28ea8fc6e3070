"""Shopify's product taxonomy in JSON: `categories.json`, `attributes.json`, `taxonomy.json` of its releases.

Categories become a tree without a facet, the values of an attribute tags of a facet with the attribute's name.
"""

from __future__ import annotations

from typing import Any

from hangtag.errors import VocabularyError
from hangtag.taxonomies.concepts import Concept, Taxonomy


def read_shopify(document: Any, source: str) -> Taxonomy:
    """Return categories and attributes; ids are GIDs.

    Raises:
        VocabularyError: the document has neither.
    """
    if not isinstance(document, dict) or not document.keys() & {"verticals", "attributes"}:
        raise VocabularyError(f"{source}: no `verticals` and no `attributes`; expected Shopify's taxonomy in JSON")
    taxonomy = Taxonomy()
    for vertical in _objects(document.get("verticals"), taxonomy, "verticals"):
        for category in _objects(vertical.get("categories"), taxonomy, "categories"):
            _add(taxonomy, category, "", category.get("parent_id"))
    for attribute in _objects(document.get("attributes"), taxonomy, "attributes"):
        facet = str(attribute.get("name") or attribute.get("handle") or "")
        for value in _objects(attribute.get("values"), taxonomy, "values"):
            _add(taxonomy, value, facet, None)
    return taxonomy


def _objects(found: Any, taxonomy: Taxonomy, name: str) -> list[dict[str, Any]]:
    rows = found if isinstance(found, list) else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            taxonomy.pass_over(f"entries of `{name}` that are no objects", f"number {number}")
    return [row for row in rows if isinstance(row, dict)]


def _add(taxonomy: Taxonomy, row: dict[str, Any], facet: str, parent: Any) -> None:
    gid = str(row.get("id") or "")
    where = gid or repr(row)[:60]
    if not gid:
        taxonomy.pass_over("entries without an `id`", where)
        return
    # Attributes that extend another share its values: the same GID under a second facet is a tag of its own.
    key = f"{facet}\0{gid}" if facet else gid
    parents = [str(parent)] if parent else []
    taxonomy.add(Concept(key, str(row.get("name") or ""), id=gid, facet=facet, parents=parents, where=where))
