"""Metrics of parts: facets, the hierarchy, frequent and rare tags, Chinese and English products."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from hangtag.metrics.outcomes import FloatArray, Outcomes
from hangtag.metrics.sets import micro_f1
from hangtag.vocabulary import TagVocabulary

HEAD_SHARE = 0.80
TORSO_SHARE = 0.95
_HAN_SHARE = 0.2


def facet_accuracy(
    outcomes: Outcomes, facet_tags: Collection[str], weights: FloatArray | None = None
) -> FloatArray:
    """Return the share of products whose predicted tags of one facet are exactly the gold ones.

    `facet_tags` are the tags of the facet. A product without a gold tag of the facet is right where none is
    predicted. An unparsed answer is wrong in every facet; a tag left out of an answer belongs to none.
    """
    part = outcomes.only_tags(frozenset(facet_tags).__contains__)
    right = (part.gold == part.predicted).all(axis=1) & part.is_answered
    return part.mean(right.astype(np.float64), weights)


def tags_f1(outcomes: Outcomes, tags: Collection[str], weights: FloatArray | None = None) -> FloatArray:
    """Return micro-F1 over some tags only, as if the vocabulary held no others.

    NaN where none of them is gold or predicted anywhere. Used for facets and for head, torso and tail.
    """
    return micro_f1(outcomes.only_tags(frozenset(tags).__contains__), weights, empty=np.nan)


def hierarchical_f1(
    outcomes: Outcomes, vocabulary: TagVocabulary, weights: FloatArray | None = None
) -> FloatArray:
    """Return micro-F1 after the ancestors of every gold and every predicted tag are added to its set.

    A wrong tag under the right parent thus earns part of the credit.
    Source: Kiritchenko, Matwin, Nock and Famili, "Learning and evaluation in the presence of class
    hierarchies" (2006), section 3.
    """
    return micro_f1(outcomes.with_ancestors(vocabulary), weights)


def frequency_groups(counts: Mapping[str, int]) -> dict[str, frozenset[str]]:
    """Return the tags in three groups by their number of training products: "head", "torso" and "tail".

    The tags are ordered from frequent to rare. Head tags are those that begin within the first 80 % of all
    training occurrences, torso tags within the next 15 %, tail tags within the last 5 %, and those never seen.
    Tags of equal count share a group.

    Examples:
        >>> groups = frequency_groups({"a": 80, "b": 15, "c": 3, "d": 2, "e": 0})
        >>> [sorted(groups[name]) for name in ("head", "torso", "tail")]
        [['a'], ['b'], ['c', 'd', 'e']]
    """
    total = sum(counts.values())
    groups: dict[str, set[str]] = {"head": set(), "torso": set(), "tail": set()}
    before, start, previous = 0, 0, -1
    for tag, count in sorted(counts.items(), key=lambda item: -item[1]):
        if count != previous:
            start, previous = before, count
        if count == 0 or start >= TORSO_SHARE * total:
            groups["tail"].add(tag)
        else:
            groups["head" if start < HEAD_SHARE * total else "torso"].add(tag)
        before += count
    return {name: frozenset(tags) for name, tags in groups.items()}


def is_chinese(text: str) -> bool:
    """Return whether at least a fifth of the letters of a text are Han characters.

    A fifth, because one Han character says as much as several Latin letters and brands stay Latin.

    Examples:
        >>> is_chinese("Nike 男士运动鞋 Air"), is_chinese("Tee with the print 福")
        (True, False)
    """
    letters = [character for character in text if character.isalpha()]
    han = sum("\u3400" <= character <= "\u9fff" or character >= "\U00020000" for character in letters)
    return bool(letters) and han >= _HAN_SHARE * len(letters)
