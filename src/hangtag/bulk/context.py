"""When the taggings of an earlier edition outlive a change of what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hangtag.bulk.keys import changed_tags, context_digest
from hangtag.bulk.ledger import EditionRecord
from hangtag.vocabulary import TagVocabulary


def carry_from(
    edition: EditionRecord, ingredients: Mapping[str, Any], vocabulary: TagVocabulary
) -> tuple[str, frozenset[str]] | None:
    """Return the edition's context and the tags whose taggings must be made again, if the others need not be.

    None if the edition has the same context, or anything beside the names of tags has changed.
    """
    before = edition.details["ingredients"]
    if context_digest(before) == context_digest(ingredients):
        return None
    if {**before, "vocabulary": ""} != json.loads(json.dumps({**ingredients, "vocabulary": ""})):
        return None
    changed = changed_tags(TagVocabulary.from_json(edition.details["vocabulary"]), vocabulary)
    return None if changed is None else (edition.context, changed)
