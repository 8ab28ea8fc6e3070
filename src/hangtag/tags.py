"""One tag and what a vocabulary asks of it; entries of files as tags."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hangtag.errors import VocabularyError

PATH_SEPARATOR = " > "
"""Between the names of a path, and in names that a path made unique."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag. `facet` is "" where the vocabulary has no facets; `count` is its number of training products.

    `id` (a URI, a GID, a number) stays when the tag is renamed. `labels` are its names in languages.
    """

    tag: str
    facet: str = ""
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    description: str = ""
    count: int | None = None
    id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


class FacetLimits(BaseModel):
    """How many tags of a facet one product may hold; `max` None means any number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(default=0, ge=0)
    max: int | None = Field(default=None, ge=0)

    @property
    def is_exclusive(self) -> bool:
        """Whether the facet holds at most one tag."""
        return self.max == 1


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tag: str
    facet: str | None = None
    parent: str | None = None
    aliases: list[str] = Field(default_factory=list)
    description: str | None = None
    count: int | None = Field(default=None, ge=0)
    id: str | None = Field(default=None, coerce_numbers_to_str=True)
    labels: dict[str, str] = Field(default_factory=dict)


def composed(tag: Tag) -> Tag:
    """Return the tag with its names in Unicode NFC."""

    def normal(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    return replace(
        tag,
        tag=normal(tag.tag),
        facet=normal(tag.facet),
        parent=None if tag.parent is None else normal(tag.parent),
        aliases=tuple(normal(alias) for alias in tag.aliases),
        labels={language: normal(label) for language, label in tag.labels.items()},
    )


def check_tags(tags: Sequence[Tag], source: str, line_of: Mapping[int, int]) -> None:
    """Refuse tags that make no vocabulary; `source` and `line_of` (position -> line) say where one stands.

    Raises:
        VocabularyError: naming file, line and reason.
    """

    def where(position: int) -> str:
        return f"{source}:{line_of[position]}" if position in line_of else f"{source}: entry {position + 1}"

    if not tags:
        raise VocabularyError(f"{source}: no tags; expected at least one")
    folded: dict[str, int] = {}
    holder_of: dict[str, int] = {}
    for position, tag in enumerate(tags):
        name = tag.tag
        if not name.strip():
            raise VocabularyError(f"{where(position)}: a blank tag; remove the entry or give it a name")
        if name != name.strip():
            raise VocabularyError(f"{where(position)}: tag {name!r} begins or ends with a space; remove it")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise VocabularyError(f"{where(position)}: tag {name!r} holds a control character; remove it")
        if tag.id is not None and (other := holder_of.setdefault(tag.id, position)) != position:
            raise VocabularyError(
                f"{where(position)}: {name!r} has the id {tag.id!r} of {tags[other].tag!r}; an id names one tag"
            )
        first = folded.setdefault(name.casefold(), position)
        if first != position:
            raise VocabularyError(
                f"{where(position)}: tag {name!r} repeats {tags[first].tag!r} of {where(first)} "
                "(case does not count); keep one, make the other an alias, or add their paths to their names, as "
                "hangtag vocabulary import does"
            )
    parent_of = {tag.tag: tag.parent for tag in tags}
    for position, tag in enumerate(tags):
        if tag.parent is not None and tag.parent not in parent_of:
            raise VocabularyError(
                f"{where(position)}: tag {tag.tag!r} has the unknown parent {tag.parent!r}; add it as a tag"
            )
    acyclic: set[str] = set()
    for position, tag in enumerate(tags):
        chain: dict[str, None] = {}
        name_or_none: str | None = tag.tag
        while name_or_none is not None and name_or_none not in acyclic:
            if name_or_none in chain:
                loop = " -> ".join([*chain, name_or_none])
                raise VocabularyError(f"{where(position)}: a cycle of parents: {loop}; break it")
            chain[name_or_none] = None
            name_or_none = parent_of[name_or_none]
        acyclic.update(chain)


def read_facets(document: Any, source: str) -> dict[str, FacetLimits]:
    """Return the limits of a vocabulary's `facets`, which may be None. Raises VocabularyError: they are none."""
    if not isinstance(document or {}, dict):
        raise VocabularyError(
            f"{source}: `facets`: got {reprlib.repr(document)}, expected {{facet: {{min, max}}}}"
        )
    facets = {}
    for name, limits in (document or {}).items():
        try:
            facets[str(name)] = FacetLimits.model_validate(limits)
        except ValidationError as error:
            raise VocabularyError(
                f"{source}: facet {name!r}: got {reprlib.repr(limits)}, expected {{min, max}} "
                f"({error.errors()[0]['msg']})"
            ) from None
    return facets


def read_tag(entry: Any, where: str) -> Tag:
    """Return the tag that an entry of a file says. Raises VocabularyError: it says none."""
    if isinstance(entry, str):
        entry = {"tag": entry}
    if not isinstance(entry, dict):
        raise VocabularyError(
            f"{where}: got {reprlib.repr(entry)[:80]}, expected an object with `tag` or a string"
        )
    try:
        checked = _Entry.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise VocabularyError(f"{where}: `{field}`: {problem['msg']} (entry {reprlib.repr(entry)[:80]})") from None
    return Tag(
        tag=checked.tag,
        facet=checked.facet or "",
        parent=checked.parent or None,
        aliases=tuple(dict.fromkeys(alias for alias in checked.aliases if alias.strip())),
        description=checked.description or "",
        count=checked.count,
        id=(checked.id or "").strip() or None,
        labels={language: label for language, label in checked.labels.items() if label.strip()},
    )
