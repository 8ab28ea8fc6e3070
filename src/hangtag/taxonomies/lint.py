"""What is allowed in a vocabulary but seldom meant: look-alikes, deep chains, tags that nothing uses."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from hangtag.vocabulary import TagVocabulary

MOST_LEVELS = 7
"""A deeper tag is reported; no public product taxonomy that hangtag imports is deeper."""
MOST_TOKENS = 40
"""A tag that is spelled in more tokens is reported: most answers have room for few of those."""
NEAR = 0.9
"""Cosine from which on two names are near-duplicates: `grey` and `gray` have 0.97, `red` and `blue` 0.73."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at: what it is, in the plural, and where, one entry a case."""

    what: str
    cases: tuple[str, ...]


def lint(vocabulary: TagVocabulary) -> list[Finding]:
    """Return what the vocabulary alone shows, and by its counts, where every tag has one."""
    findings = [
        Finding("tags that look the same (equal under NFKC)", tuple(_alike(vocabulary))),
        Finding("aliases that are another tag's name", tuple(_names_as_aliases(vocabulary))),
        Finding(f"tags more than {MOST_LEVELS} levels deep", tuple(_deep(vocabulary))),
    ]
    counts = {tag.tag: tag.count for tag in vocabulary if tag.count is not None}
    if len(counts) == len(vocabulary):
        findings += unused(vocabulary, counts)
    return [finding for finding in findings if finding.cases]


def unused(vocabulary: TagVocabulary, counts: Mapping[str, int]) -> list[Finding]:
    """Return tags that no product holds, and branches in which no tag is held; `counts` are products by tag.

    Of nested empty branches the topmost is named. Names that are in no vocabulary are found too.
    """
    held = {name for name, count in counts.items() if count}
    alive = held | {parent for name in held if name in vocabulary for parent in vocabulary.ancestors(name)}
    parents = {tag.parent for tag in vocabulary if tag.parent}
    empty = [
        tag.tag
        for tag in vocabulary
        if tag.tag in parents and tag.tag not in alive and (tag.parent is None or tag.parent in alive)
    ]
    findings = [
        Finding("empty branches (no product holds one of their tags)", tuple(empty)),
        Finding("tags that no product holds", tuple(tag.tag for tag in vocabulary if tag.tag not in held)),
        Finding("labels that are not in the vocabulary", tuple(sorted(held - {*vocabulary.names}))),
    ]
    return [finding for finding in findings if finding.cases]


def long_spellings(vocabulary: TagVocabulary, spell: Callable[[Sequence[str]], Iterable[int]]) -> list[Finding]:
    """Return tags of more than `MOST_TOKENS` tokens; `spell` gives each text's number of tokens."""
    lengths = zip(vocabulary.names, spell(vocabulary.names), strict=True)
    cases = [f"{name} ({length})" for name, length in lengths if length > MOST_TOKENS]
    return [Finding(f"tags of more than {MOST_TOKENS} tokens", tuple(cases))] if cases else []


def near_duplicates(
    vocabulary: TagVocabulary, positions: npt.NDArray[Any], cosines: npt.NDArray[Any]
) -> list[Finding]:
    """Return pairs of tags whose names mean nearly the same.

    `positions` and `cosines` have shape (tags, k): the nearest tags of each, itself among them.
    """
    pairs: dict[tuple[int, int], float] = {}
    for number, (row, near) in enumerate(zip(positions.tolist(), cosines.tolist(), strict=True)):
        for other, cosine in zip(row, near, strict=True):
            if other != number and cosine >= NEAR:
                pairs[min(number, other), max(number, other)] = cosine
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    names = vocabulary.names
    cases = [f"{names[first]} ~ {names[second]} ({cosine:.2f})" for (first, second), cosine in ordered]
    return [Finding("near-duplicates by meaning", tuple(cases))] if cases else []


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _alike(vocabulary: TagVocabulary) -> Iterable[str]:
    same: dict[str, list[str]] = {}
    for name in vocabulary.names:
        same.setdefault(_folded(name), []).append(name)
    return (" = ".join(map(repr, names)) for names in same.values() if len(names) > 1)


def _names_as_aliases(vocabulary: TagVocabulary) -> Iterable[str]:
    name_of = {_folded(name): name for name in vocabulary.names}
    for tag in vocabulary:
        for alias in tag.aliases:
            other = name_of.get(_folded(alias))
            if other is not None and other != tag.tag:
                yield f"{alias!r} of {tag.tag!r}"


def _deep(vocabulary: TagVocabulary) -> Iterable[str]:
    for tag in vocabulary:
        levels = len(vocabulary.ancestors(tag.tag)) + 1
        if levels > MOST_LEVELS:
            yield f"{tag.tag} ({levels})"
