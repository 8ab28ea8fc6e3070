"""The tag vocabulary of a shop: which tags exist, in which facets and places, under which limits."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hangtag.errors import VocabularyError
from hangtag.product import Product
from hangtag.tags import PATH_SEPARATOR, FacetLimits, Tag, check_tags, composed, read_facets, read_tag
from hangtag.vocabulary_files import entry_lines, read_rows, read_text

__all__ = ["PATH_SEPARATOR", "FacetLimits", "Tag", "TagVocabulary"]


class TagVocabulary:
    """An ordered set of tags with facets, parents and limits; immutable.

    Tags are in Unicode NFC. Two tags that differ in case only, two with one id, blank tags, control characters,
    an unknown parent and a cycle of parents are refused.
    """

    def __init__(
        self,
        tags: Iterable[Tag],
        *,
        facets: Mapping[str, FacetLimits] | None = None,
        source: str = "vocabulary",
        line_of: Mapping[int, int] | None = None,
    ) -> None:
        """Check and keep `tags` in the given order.

        `source` and `line_of` (position of a tag -> line number) say where a refused entry stands.

        Raises:
            VocabularyError: naming file, line and reason.
        """
        self.tags: tuple[Tag, ...] = tuple(composed(tag) for tag in tags)
        check_tags(self.tags, source, line_of or {})
        self.names: tuple[str, ...] = tuple(tag.tag for tag in self.tags)
        self._position = {name: position for position, name in enumerate(self.names)}
        self.facet_names: tuple[str, ...] = tuple(dict.fromkeys(tag.facet for tag in self.tags))
        limits = dict(facets or {})
        for name, limit in limits.items():
            size = sum(tag.facet == name for tag in self.tags)
            if not size:
                raise VocabularyError(
                    f"{source}: limits are given for facet {name!r}, which no tag has "
                    f"(facets: {', '.join(map(repr, self.facet_names))})"
                )
            if limit.max is not None and limit.max < limit.min:
                raise VocabularyError(f"{source}: facet {name!r}: max {limit.max} is below min {limit.min}")
            if limit.min > size:
                raise VocabularyError(f"{source}: facet {name!r}: min {limit.min} is more than its {size} tags")
        self.facets: dict[str, FacetLimits] = {name: limits.get(name, FacetLimits()) for name in self.facet_names}

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __getitem__(self, name: str) -> Tag:
        return self.tags[self._position[name]]

    def position(self, name: str) -> int:
        """Return where `name` stands in the vocabulary's order. Raises KeyError for an unknown tag."""
        return self._position[name]

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return `names`, each once, in the vocabulary's order. Raises KeyError for an unknown tag."""
        return tuple(sorted(set(names), key=self._position.__getitem__))

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Return the parents of a tag, nearest first."""
        found: list[str] = []
        parent = self[name].parent
        while parent is not None:
            found.append(parent)
            parent = self[parent].parent
        return tuple(found)

    def path(self, name: str) -> tuple[str, ...]:
        """Return the names from the root down to a tag, without the paths that made them unique.

        >>> shoes = Tag("Shoes", parent="Men > Sport")
        >>> vocabulary = TagVocabulary([Tag("Men"), Tag("Sport"), Tag("Men > Sport", parent="Men"), shoes])
        >>> vocabulary.path("Shoes")
        ('Men', 'Sport', 'Shoes')
        """
        found: list[str] = []
        for step in (*reversed(self.ancestors(name)), name):
            facet = self[step].facet
            for above in range(len(found) + bool(facet), 0, -1):
                start = PATH_SEPARATOR.join([*([facet] if facet else []), *found][-above:]) + PATH_SEPARATOR
                if step.startswith(start):
                    step = step[len(start) :]
                    break
            found.append(step)
        return tuple(found)

    def in_facet(self, facet: str) -> tuple[str, ...]:
        """Return the tags of a facet in the vocabulary's order; empty for an unknown facet."""
        return tuple(tag.tag for tag in self.tags if tag.facet == facet)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over tag, facet, parent, aliases, description and any id of every tag, in order.

        Counts, facet limits and names in other languages do not enter: the first change with the training data,
        the second belong to decoding and are recorded beside the fingerprint, the third decide no tagging. Names
        enter beside their ids: what a model learned to write, and what an answer says, are names.
        """
        canonical = [
            [tag.tag, tag.facet, tag.parent, sorted(tag.aliases), tag.description]
            + ([] if tag.id is None else [tag.id])
            for tag in self.tags
        ]
        text = json.dumps(canonical, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def with_limits(self, facets: Mapping[str, FacetLimits]) -> TagVocabulary:
        """Return the same tags under other facet limits; a facet that is not named becomes unlimited."""
        return TagVocabulary(self.tags, facets=facets)

    def with_observed_limits(self, tag_sets: Iterable[Iterable[str]]) -> TagVocabulary:
        """Return the same tags with the limits that labelled data keep.

        A facet that never holds two tags gets max 1, one that never is empty gets min 1. Other facets stay
        unlimited: the largest number seen is no limit. Unknown tags are passed over. One pass.
        """
        facet_of = {tag.tag: tag.facet for tag in self.tags}
        most: Counter[str] = Counter()
        always = set(self.facet_names)
        num_sets = 0
        for tags in tag_sets:
            num_sets += 1
            held = Counter(facet_of[name] for name in tags if name in facet_of)
            always &= held.keys()
            most |= held
        if not num_sets:
            return self
        return self.with_limits(
            {
                facet: FacetLimits(min=int(facet in always), max=1 if most[facet] <= 1 else None)
                for facet in self.facet_names
            }
        )

    def with_some_limits(self, tag_sets: Iterable[Iterable[str]]) -> TagVocabulary:
        """Return the vocabulary as it is where it limits a facet, else `with_observed_limits`."""
        if any(limits != FacetLimits() for limits in self.facets.values()):
            return self
        return self.with_observed_limits(tag_sets)

    @classmethod
    def build(cls, products: Iterable[Product], *, base: TagVocabulary | None = None) -> TagVocabulary:
        """Return the vocabulary of labelled products: each tag with its count, most frequent first.

        `base` gives facets, parents, aliases and descriptions of the tags it knows, and its limits. Unlabelled
        products are passed over. Tags that differ in case or Unicode form only are one tag, under the spelling of
        `base` or the most frequent one; the other spellings become its aliases.

        Raises:
            VocabularyError: no product carries a tag, or one is refused.
        """
        spellings: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for product in products:
            names = set(product.tags or ())
            spellings.update(names)
            counts.update({_folded(name) for name in names})
        if not counts:
            raise VocabularyError("no product carries a tag; expected labelled products (a field `tags`)")
        known = {_folded(tag.tag): tag for tag in base.tags} if base else {}
        for name in known:
            counts.setdefault(name, 0)
        by_name: dict[str, list[str]] = {}
        for name, _ in sorted(spellings.items(), key=lambda item: (-item[1], item[0])):
            by_name.setdefault(_folded(name), []).append(name)
        tags = []
        for folded, count in counts.items():
            written = by_name.get(folded, [])
            tag = known.get(folded) or Tag(written[0])
            aliases = dict.fromkeys(
                (*tag.aliases, *(name for name in written if unicodedata.normalize("NFC", name) != tag.tag))
            )
            tags.append(replace(tag, aliases=tuple(aliases), count=count))
        tags.sort(key=lambda tag: (-(tag.count or 0), tag.tag))
        return cls(tags, facets=base.facets if base else None, source="labelled products")

    @classmethod
    def from_path(cls, path: str | Path) -> TagVocabulary:
        """Return the vocabulary in a file: JSON, JSON Lines, CSV (aliases separated by `|`), or one tag a line.

        The file may be gzipped.

        Raises:
            VocabularyError: the file is missing, not UTF-8, malformed, of a format that has to be imported, or
                holds a refused tag.
        """
        text, form = read_text(path)
        if form == "json":
            return cls._from_json(text, str(path))
        lines: dict[int, int] = {}
        tags: list[Tag] = []
        for line, entry in read_rows(text, form, str(path)):
            lines[len(tags)] = line
            tags.append(read_tag(entry, f"{path}:{line}"))
        return cls(tags, source=str(path), line_of=lines)

    @classmethod
    def _from_json(cls, text: str, source: str) -> TagVocabulary:
        try:
            document = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            line = getattr(error, "lineno", 1)
            raise VocabularyError(f"{source}:{line}: not JSON ({getattr(error, 'msg', error)})") from None
        return cls.from_json(document, source=source, text=text)

    @classmethod
    def from_json(cls, document: Any, *, source: str = "vocabulary", text: str = "") -> TagVocabulary:
        """Return the vocabulary of a parsed JSON document: a list of tags or {"tags": […], "facets": {…}}.

        An entry is an object with at least `tag`, or a bare string. `text` lets errors name lines.

        Raises:
            VocabularyError: the document has another form or holds a refused tag.
        """
        facets: dict[str, FacetLimits] = {}
        if isinstance(document, dict):
            unknown = sorted(document.keys() - {"tags", "facets"})
            if unknown:
                raise VocabularyError(
                    f"{source}: unknown key {unknown[0]!r}; expected `tags` and, if wanted, `facets`"
                )
            facets = read_facets(document.get("facets"), source)
            document = document.get("tags")
        if not isinstance(document, list):
            raise VocabularyError(
                f"{source}: got {type(document).__name__}, expected a JSON list of tags or an object with `tags`"
            )
        lines = entry_lines(text, len(document)) if text else {}
        where = [
            f"{source}:{lines[n]}" if n in lines else f"{source}: entry {n + 1}" for n in range(len(document))
        ]
        tags = [read_tag(entry, where[n]) for n, entry in enumerate(document)]
        return cls(tags, facets=facets, source=source, line_of=lines)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form {"tags": […], "facets": {…}} that `from_json` reads back unchanged."""
        tags = []
        for tag in self.tags:
            entry: dict[str, Any] = {"tag": tag.tag}
            if tag.id is not None:
                entry["id"] = tag.id
            if tag.facet:
                entry["facet"] = tag.facet
            if tag.parent:
                entry["parent"] = tag.parent
            if tag.aliases:
                entry["aliases"] = list(tag.aliases)
            if tag.description:
                entry["description"] = tag.description
            if tag.count is not None:
                entry["count"] = tag.count
            if tag.labels:
                entry["labels"] = dict(tag.labels)
            tags.append(entry)
        facets = {
            name: limits.model_dump(exclude_defaults=True)
            for name, limits in self.facets.items()
            if limits != FacetLimits()
        }
        return {"tags": tags, "facets": facets} if facets else {"tags": tags}

    def save(self, path: str | Path) -> None:
        """Write the JSON form, one tag a line, so that a diff shows tags."""
        document = self.to_json()
        lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in document["tags"])
        facets = json.dumps(document.get("facets", {}), ensure_ascii=False)
        Path(path).write_text(f'{{"tags": [\n{lines}\n],\n"facets": {facets}}}\n', encoding="utf-8")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
