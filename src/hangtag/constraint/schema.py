"""What remains of the constraint for servers without it: a JSON Schema, and a check of what came back.

A schema can say which tags exist and how many an answer holds. Few engines heed `uniqueItems`, and none knows
facets or parents: the check leaves out what is too much, counts it, and refuses what lacks something.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hangtag.constraint.limits import Limits, ResolvedLimits
from hangtag.vocabulary import FacetLimits, TagVocabulary

_ANY_NUMBER = FacetLimits()


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


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A model's text read as an answer.

    `tags` are known, distinct and within the limits, in the order written. `unknown`, `repeated` and `over_limit`
    list what had to be left out. `under_limit` (a number) and `missing_parents` are what the limits ask for beside
    `tags`. `reason` is None for text that is a whole answer, perhaps repaired, else why it is none; then `tags` is
    empty.
    """

    tags: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    over_limit: tuple[str, ...] = ()
    under_limit: int = 0
    missing_parents: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def is_correct_set(self) -> bool:
        """Whether the text was an answer with nothing to repair."""
        return self.reason is None and not self.violations

    @property
    def violations(self) -> dict[str, int]:
        """How many tags had to be left out or are missing, by kind; kinds without any are absent."""
        kinds = {
            "unknown": len(self.unknown),
            "repeated": len(self.repeated),
            "over_limit": len(self.over_limit),
            "under_limit": self.under_limit,
            "missing_parents": len(self.missing_parents),
        }
        return {kind: number for kind, number in kinds.items() if number}

    @property
    def repairs(self) -> str | None:
        """One line that lists what was left out; None if nothing was."""
        left_out = [*self.unknown, *self.repeated, *self.over_limit]
        if not left_out:
            return None
        counts = ", ".join(f"{number} {kind}" for kind, number in self.violations.items())
        # Quoted: a tag of a model may hold line breaks, or half a surrogate pair, which no file takes.
        return f"repaired, left out {counts}: {', '.join(map(repr, left_out))}"[:300]


def parse_answer(text: str, vocabulary: TagVocabulary, limits: Limits | None = None) -> ParsedAnswer:
    """Return what `text` says, checked against the vocabulary and a request's limits. Never raises.

    White space around the JSON is accepted, anything else beside it is not. Matching of tags is exact. What is too
    much is left out, the first tags written stay; what is too little (`min_tags`, facets' minima, parents) cannot
    be repaired, and the text counts as no answer.
    """
    limits = limits or Limits()
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return ParsedAnswer(reason=f"not JSON ({error}): {text!r:.120}")
    if not isinstance(document, dict) or set(document) != {"tags"}:
        return ParsedAnswer(reason=f'expected {{"tags":[…]}}, got {text!r:.120}')
    written = document["tags"]
    if not isinstance(written, list) or not all(isinstance(tag, str) for tag in written):
        return ParsedAnswer(reason=f"`tags` is no list of strings: {text!r:.120}")
    return _checked(written, vocabulary, limits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


def _checked(written: Sequence[str], vocabulary: TagVocabulary, limits: Limits) -> ParsedAnswer:
    facets = vocabulary.facets if limits.facets is None else limits.facets
    only = limits.only_facets
    kept: dict[str, None] = {}
    unknown, repeated, over_limit = [], [], []
    held: Counter[str] = Counter()
    for tag in written:
        if tag not in vocabulary:
            unknown.append(tag)
            continue
        facet = vocabulary[tag].facet
        most = facets.get(facet, _ANY_NUMBER).max if only is None or facet in only else 0
        if tag in kept:
            repeated.append(tag)
        elif (most is not None and held[facet] >= most) or len(kept) == limits.max_tags:
            over_limit.append(tag)
        else:
            kept[tag] = None
            held[facet] += 1
    asked = facets.items() if only is None else ((name, facets.get(name, _ANY_NUMBER)) for name in only)
    owed = {name: limit.min - held[name] for name, limit in asked if limit.min > held[name]}
    under = max(sum(owed.values()), limits.min_tags - len(kept))
    parents = _missing_parents(kept, vocabulary, limits) if limits.with_parents else ()
    reason = None
    if under > 0 or parents:
        lacks = [f"{number} more of {name!r}" for name, number in owed.items()]
        lacks += [] if owed or under <= 0 else [f"{under} more tags"]
        lacks += [f"the parent {parent!r}" for parent in parents]
        reason = f"the answer lacks what its limits ask for: {', '.join(lacks)}"[:300]
    return ParsedAnswer(
        tags=() if reason else tuple(kept),
        unknown=tuple(unknown),
        repeated=tuple(repeated),
        over_limit=tuple(over_limit),
        under_limit=max(0, under),
        missing_parents=parents,
        reason=reason,
    )


def _missing_parents(tags: Collection[str], vocabulary: TagVocabulary, limits: Limits) -> tuple[str, ...]:
    only = limits.only_facets
    parents = dict.fromkeys(parent for tag in tags for parent in vocabulary.ancestors(tag))
    return tuple(
        parent for parent in parents if parent not in tags and (only is None or vocabulary[parent].facet in only)
    )


def _resolved(vocabulary: TagVocabulary, limits: Limits) -> ResolvedLimits:
    counts = Counter(tag.facet for tag in vocabulary.tags)
    own: dict[str, FacetLimits] = vocabulary.facets
    return ResolvedLimits.of(limits, own, {facet: counts[facet] for facet in vocabulary.facet_names})
