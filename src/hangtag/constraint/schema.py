"""What remains of the constraint for servers without it: a JSON Schema, and a check of what came back.

A schema can say which tags exist and how many an answer holds. Few engines heed `uniqueItems`, and none knows
facets or parents: the check counts what they let through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hangtag.constraint.limits import Limits, ResolvedLimits
from hangtag.vocabulary import FacetLimits, TagVocabulary


def answer_schema(vocabulary: TagVocabulary, limits: Limits | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an answer. Every legal answer conforms to it.

    Raises:
        ConstraintError: no set of tags obeys `limits`.
    """
    resolved = _resolved(vocabulary, limits or Limits())
    most = dict(zip(vocabulary.facet_names, resolved.most, strict=True))
    names = [tag.tag for tag in vocabulary.tags if most[tag.facet]]
    tags: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    if names:
        tags["items"]["enum"] = names
    tags |= {
        "minItems": max(resolved.min_tags, sum(resolved.least)),
        "maxItems": resolved.max_tags,
        "uniqueItems": True,
    }
    return {
        "type": "object",
        "properties": {"tags": tags},
        "required": ["tags"],
        "additionalProperties": False,
    }


def count_violations(
    tags: Sequence[str], vocabulary: TagVocabulary, limits: Limits | None = None
) -> dict[str, int]:
    """Return how an answer's tags break the vocabulary and `limits`: numbers by kind, empty if they do not.

    "unknown" and "repeated" count tags; "over_limit" those that had to go to obey the facets' maxima,
    `only_facets` and `max_tags`; "under_limit" those that `min_tags` and the facets' minima still ask for;
    "missing_parents" the parents that had to come.

    Raises:
        ConstraintError: no set of tags obeys `limits`.
    """
    limits = limits or Limits()
    resolved = _resolved(vocabulary, limits)
    known = list(dict.fromkeys(tag for tag in tags if tag in vocabulary))
    counts = Counter(vocabulary[tag].facet for tag in known)
    over = under = kept = 0
    for facet, least, most in zip(vocabulary.facet_names, resolved.least, resolved.most, strict=True):
        over += max(0, counts[facet] - most)
        under += max(0, least - counts[facet])
        kept += min(counts[facet], most)
    over += max(0, kept - resolved.max_tags)
    under = max(under, resolved.min_tags - min(kept, resolved.max_tags))
    found = {
        "unknown": sum(tag not in vocabulary for tag in tags),
        "repeated": sum(tag in vocabulary for tag in tags) - len(known),
        "over_limit": over,
        "under_limit": under,
        "missing_parents": len(_missing_parents(known, vocabulary, limits)) if limits.with_parents else 0,
    }
    return {kind: number for kind, number in found.items() if number}


def _missing_parents(tags: Sequence[str], vocabulary: TagVocabulary, limits: Limits) -> set[str]:
    only = limits.only_facets
    parents = {parent for tag in tags for parent in vocabulary.ancestors(tag)}
    return {p for p in parents if only is None or vocabulary[p].facet in only} - set(tags)


def _resolved(vocabulary: TagVocabulary, limits: Limits) -> ResolvedLimits:
    counts = Counter(tag.facet for tag in vocabulary.tags)
    own: dict[str, FacetLimits] = vocabulary.facets
    return ResolvedLimits.of(limits, own, {facet: counts[facet] for facet in vocabulary.facet_names})
