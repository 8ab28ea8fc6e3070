"""The tag vocabulary of a shop: which tags exist, in which facets, under which limits."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hangtag.errors import VocabularyError
from hangtag.product import Product

CSV_COLUMNS = ("tag", "facet", "parent", "aliases", "description", "count")


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag. `facet` is "" where the vocabulary has no facets; `count` is its number of training products."""

    tag: str
    facet: str = ""
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    description: str = ""
    count: int | None = None


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


class TagVocabulary:
    """An ordered set of tags with facets, parents and limits; immutable.

    Tags are in Unicode NFC. Two tags that differ in case only, blank tags, control characters, an unknown
    parent and a cycle of parents are refused.
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
        self.tags: tuple[Tag, ...] = tuple(_nfc(tag) for tag in tags)
        _check(self.tags, source, line_of or {})
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

    def in_facet(self, facet: str) -> tuple[str, ...]:
        """Return the tags of a facet in the vocabulary's order; empty for an unknown facet."""
        return tuple(tag.tag for tag in self.tags if tag.facet == facet)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over tag, facet, parent, aliases and description of every tag, in order.

        Counts and facet limits do not enter: the first change with the training data, the second belong to
        decoding and are recorded beside the fingerprint.
        """
        canonical = [[tag.tag, tag.facet, tag.parent, sorted(tag.aliases), tag.description] for tag in self.tags]
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
            aliases = dict.fromkeys((*tag.aliases, *(name for name in written if _nfc(Tag(name)).tag != tag.tag)))
            tags.append(replace(tag, aliases=tuple(aliases), count=count))
        tags.sort(key=lambda tag: (-(tag.count or 0), tag.tag))
        return cls(tags, facets=base.facets if base else None, source="labelled products")

    @classmethod
    def from_path(cls, path: str | Path) -> TagVocabulary:
        """Return the vocabulary in a file: `.json`, `.csv` (columns of `CSV_COLUMNS`; aliases separated by
        `|`), or any other text with one tag a line.

        Raises:
            VocabularyError: the file is missing, not UTF-8, malformed or holds a refused tag.
        """
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise VocabularyError(f"{path}: {error.strerror or error}; expected a vocabulary file") from None
        except UnicodeDecodeError as error:
            raise VocabularyError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
        if path.suffix == ".json":
            return cls._from_json(text, str(path))
        rows = _csv_rows(text, str(path)) if path.suffix == ".csv" else _plain_rows(text)
        lines: dict[int, int] = {}
        tags: list[Tag] = []
        for line, entry in rows:
            lines[len(tags)] = line
            tags.append(_tag(entry, f"{path}:{line}"))
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
            for name, limits in (document.get("facets") or {}).items():
                try:
                    facets[name] = FacetLimits.model_validate(limits)
                except ValidationError as error:
                    raise VocabularyError(
                        f"{source}: facet {name!r}: got {limits!r}, expected {{min, max}} "
                        f"({error.errors()[0]['msg']})"
                    ) from None
            document = document.get("tags")
        if not isinstance(document, list):
            raise VocabularyError(
                f"{source}: got {type(document).__name__}, expected a JSON list of tags or an object with `tags`"
            )
        lines = _entry_lines(text, len(document)) if text else {}
        where = [
            f"{source}:{lines[n]}" if n in lines else f"{source}: entry {n + 1}" for n in range(len(document))
        ]
        tags = [_tag(entry, where[n]) for n, entry in enumerate(document)]
        return cls(tags, facets=facets, source=source, line_of=lines)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form {"tags": […], "facets": {…}} that `from_json` reads back unchanged."""
        tags = []
        for tag in self.tags:
            entry: dict[str, Any] = {"tag": tag.tag}
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


def _nfc(tag: Tag) -> Tag:
    def normal(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    return replace(
        tag,
        tag=normal(tag.tag),
        facet=normal(tag.facet),
        parent=None if tag.parent is None else normal(tag.parent),
        aliases=tuple(normal(alias) for alias in tag.aliases),
    )


def _check(tags: Sequence[Tag], source: str, line_of: Mapping[int, int]) -> None:
    def where(position: int) -> str:
        return f"{source}:{line_of[position]}" if position in line_of else f"{source}: entry {position + 1}"

    if not tags:
        raise VocabularyError(f"{source}: no tags; expected at least one")
    folded: dict[str, int] = {}
    for position, tag in enumerate(tags):
        name = tag.tag
        if not name.strip():
            raise VocabularyError(f"{where(position)}: a blank tag; remove the entry or give it a name")
        if name != name.strip():
            raise VocabularyError(f"{where(position)}: tag {name!r} begins or ends with a space; remove it")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise VocabularyError(f"{where(position)}: tag {name!r} holds a control character; remove it")
        first = folded.setdefault(name.casefold(), position)
        if first != position:
            raise VocabularyError(
                f"{where(position)}: tag {name!r} repeats {tags[first].tag!r} of {where(first)} "
                "(case does not count); keep one, or make the other an alias"
            )
    parent_of = {tag.tag: tag.parent for tag in tags}
    acyclic: set[str] = set()
    for position, tag in enumerate(tags):
        if tag.parent is not None and tag.parent not in parent_of:
            raise VocabularyError(
                f"{where(position)}: tag {tag.tag!r} has the unknown parent {tag.parent!r}; add it as a tag"
            )
        chain: dict[str, None] = {}
        name_or_none: str | None = tag.tag
        while name_or_none is not None and name_or_none not in acyclic:
            if name_or_none in chain:
                loop = " -> ".join([*chain, name_or_none])
                raise VocabularyError(f"{where(position)}: a cycle of parents: {loop}; break it")
            chain[name_or_none] = None
            name_or_none = parent_of[name_or_none]
        acyclic.update(chain)


def _tag(entry: Any, where: str) -> Tag:
    if isinstance(entry, str):
        entry = {"tag": entry}
    if not isinstance(entry, dict):
        raise VocabularyError(f"{where}: got {entry!r:.80}, expected an object with `tag` or a string")
    try:
        checked = _Entry.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise VocabularyError(f"{where}: `{field}`: {problem['msg']} (entry {entry!r:.80})") from None
    return Tag(
        tag=checked.tag,
        facet=checked.facet or "",
        parent=checked.parent or None,
        aliases=tuple(dict.fromkeys(alias for alias in checked.aliases if alias.strip())),
        description=checked.description or "",
        count=checked.count,
    )


def _plain_rows(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, tag in enumerate(text.rstrip("\n").split("\n"), start=1):
        yield line, {"tag": tag.rstrip("\r")}


def _csv_rows(text: str, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or []
    if "tag" not in header:
        raise VocabularyError(f"{source}:1: columns {', '.join(header) or 'none'}; expected a column `tag`")
    unknown = [name for name in header if name not in CSV_COLUMNS]
    if unknown:
        raise VocabularyError(
            f"{source}:1: unknown column {unknown[0]!r}; expected some of {', '.join(CSV_COLUMNS)}"
        )
    for row in reader:
        entry: dict[str, Any] = {name: value for name, value in row.items() if name in CSV_COLUMNS and value}
        entry.setdefault("tag", "")
        if "aliases" in entry:
            entry["aliases"] = [alias.strip() for alias in entry["aliases"].split("|")]
        yield reader.line_num, entry


def _entry_lines(text: str, num_entries: int) -> dict[int, int]:
    """Return the line on which each element of the vocabulary's list begins."""
    decoder = json.JSONDecoder()
    start = 0
    if text.lstrip().startswith("{"):
        start = text.find('"tags"')
    position = text.find("[", start) + 1
    lines: dict[int, int] = {}
    line, counted = 1, 0
    for number in range(num_entries):
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        line += text.count("\n", counted, position)
        counted = position
        lines[number] = line
        _, position = decoder.raw_decode(text, position)
    return lines
