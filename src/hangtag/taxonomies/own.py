"""Vocabularies in hangtag's own forms and in YAML, whose names need not be unique yet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from hangtag.errors import VocabularyError
from hangtag.recognition import Format
from hangtag.tags import read_facets, read_tag
from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.vocabulary_files import read_rows


def read_own(text: str, form: Format, source: str) -> Taxonomy:
    """Return the tags of a list, a table, JSON, JSON Lines or YAML; a bad entry is passed over.

    A parent is looked up in the tag's own facet first.

    Raises:
        VocabularyError: the file as a whole has another form.
    """
    taxonomy = Taxonomy()
    entries: Iterable[tuple[str, Any]]
    if form in ("json", "yaml"):
        document = _document(text, form, source)
        if isinstance(document, dict) and "tags" in document:
            taxonomy.facets = read_facets(document.get("facets"), source)
            document = document["tags"]
        if not isinstance(document, list):
            raise VocabularyError(f"{source}: got {type(document).__name__}, expected a list of tags, or `tags`")
        entries = ((f"entry {number}", entry) for number, entry in enumerate(document, start=1))
    else:
        entries = ((f"line {line}", entry) for line, entry in read_rows(text, form, source))
    for where, entry in entries:
        try:
            tag = read_tag(entry, where)
        except VocabularyError as error:
            taxonomy.pass_over("entries that are no tags", str(error))
            continue
        key = tag.id or f"{tag.facet}\0{tag.tag}\0{tag.parent or ''}"
        parents = [tag.parent] if tag.parent else []
        taxonomy.add(
            Concept(
                key, tag.tag, tag.id, tag.facet, parents, list(tag.aliases), tag.description, tag.count,
                dict(tag.labels), where,
            )
        )  # fmt: skip
    _find_parents(taxonomy)
    return taxonomy


def _document(text: str, form: Format, source: str) -> Any:
    try:
        return yaml.safe_load(text) if form == "yaml" else json.loads(text)
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        raise VocabularyError(f"{source}: not {form.upper()} ({' '.join(str(error).split())[:200]})") from None


def _find_parents(taxonomy: Taxonomy) -> None:
    key_of: dict[tuple[str | None, str], str] = {}
    for concept in taxonomy:
        key_of.setdefault((concept.facet, concept.label), concept.key)
        key_of.setdefault((None, concept.label), concept.key)
    for concept in taxonomy:
        concept.parents = [
            key_of.get((concept.facet, name)) or key_of.get((None, name)) or name for name in concept.parents
        ]
