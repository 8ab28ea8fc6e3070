"""What every format is read into: concepts with the keys of their parents, and what was passed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hangtag.vocabulary import FacetLimits


@dataclass(slots=True)
class Concept:
    """One concept of a taxonomy: a tag before names are unique and parents are one.

    `key` is its identity within the file, `parents` are keys, `where` is its place in the file, for messages.
    """

    key: str
    label: str
    id: str | None = None
    facet: str = ""
    parents: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    description: str = ""
    count: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(slots=True)
class Taxonomy:
    """The concepts of a file in their order, and what was seen on the way.

    `parent_order` says which of several parents is the first; `notes` are lines for the user.
    """

    parent_order: str = "in the order of the file"
    concepts: dict[str, Concept] = field(default_factory=dict)
    facets: dict[str, FacetLimits] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts.values())

    def add(self, concept: Concept) -> None:
        """Keep a concept; one that has the key of an earlier one is passed over."""
        if concept.key in self.concepts:
            self.pass_over("entries that repeat an earlier one", concept.where)
        else:
            self.concepts[concept.key] = concept

    def pass_over(self, reason: str, where: str) -> None:
        """Count what is not taken; `reason` is a plural, `where` a place in the file."""
        self.passed_over.setdefault(reason, []).append(where)
