"""Taxonomies of Open Food Facts: blocks of lines, parted by blank ones.

`< en:parent`, then `en: Name, synonym` and other languages, then properties such as `description:en: …`.
`stopwords:fr: …` tells words that do not count where a parent is looked up. An id is what products carry: the
language of the block's first name and that name in small letters with hyphens (`en:banana-yogurts`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.taxonomies.languages import NO_LANGUAGE, LanguageChoice

_UNACCENTED = {"ca", "en", "es", "fr", "it", "nl", "pt", "sk", "xx"}
_NAMES = re.compile(r"([a-z]{2,3}(?:[_-][a-zA-Z]{2,4})?)\s*:\s*(.*)")
_PARENT = re.compile(r"<\s*([a-z]{2,3})\s*:\s*(.*)")
_PROPERTY = re.compile(r"([\w-]+):([a-z]{2,3})\s*:\s*(.*)")
_COMMA = re.compile(r"(?<!\\),(?!\d)|(?<!\d)(?<!\\),")
Block = list[tuple[int, str]]


def read_food(text: str, choice: LanguageChoice) -> Taxonomy:
    """Return the entries; names are those of the chosen language, its synonyms are aliases."""
    taxonomy = Taxonomy()
    stopwords: dict[str, set[str]] = {}
    keys: dict[str, str] = {}
    wanted: list[tuple[Concept, list[tuple[str, str]]]] = []
    for block in _blocks(text):
        first = block[0][1]
        if first.startswith(("stopwords:", "synonyms:")):
            _, language, words = (*first.split(":", 2), "", "")[:3]
            if first.startswith("stopwords:"):
                stopwords.setdefault(language.strip(), set()).update(map(_hyphened, _split(words)))
            continue
        parsed = _entry(block, choice, taxonomy)
        if parsed is not None:
            concept, names, parents = parsed
            wanted.append((concept, parents))
            for language, all_names in names.items():
                for name in all_names:
                    keys.setdefault(_tag_id(language, name), concept.key)
    loose = {_loose(tag_id, stopwords): key for tag_id, key in reversed(keys.items())}
    for concept, parents in wanted:
        for language, name in parents:
            tag_id = _tag_id(language, name)
            concept.parents.append(
                keys.get(tag_id) or loose.get(_loose(tag_id, stopwords)) or f"{language}:{name}"
            )
    return taxonomy


def _blocks(text: str) -> Iterator[Block]:
    block: Block = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("#"):
            continue
        if line.strip():
            block.append((number, line.strip()))
        elif block:
            yield block
            block = []


def _entry(
    block: Block, choice: LanguageChoice, taxonomy: Taxonomy
) -> tuple[Concept, dict[str, list[str]], list[tuple[str, str]]] | None:
    names: dict[str, list[str]] = {}
    parents: list[tuple[str, str]] = []
    descriptions: dict[str, list[str]] = {}
    for number, line in block:
        if found := _PARENT.fullmatch(line):
            parents.append((found[1], found[2].strip()))
        elif found := _PROPERTY.fullmatch(line):
            if found[1] == "description":
                descriptions.setdefault(found[2], []).append(found[3])
        elif found := _NAMES.fullmatch(line):
            names.setdefault(found[1], []).extend(_split(found[2]))
        else:
            taxonomy.pass_over("lines of no known form", f"line {number}")
    names = {language: found for language, found in names.items() if found}
    where = f"line {block[0][0]}"
    if not names:
        taxonomy.pass_over("blocks without a name", where)
        return None
    language = next(iter(names))
    tag_id = _tag_id(language, names[language][0])
    if tag_id in taxonomy.concepts:
        taxonomy.pass_over("entries that repeat an earlier one", where)
        return None
    by_language = {NO_LANGUAGE if name == "xx" else name: found for name, found in names.items()}
    label, *aliases = choice.of(by_language)
    aliases += [name for name in by_language.get(NO_LANGUAGE, ()) if name != label]
    concept = Concept(
        tag_id,
        label,
        id=tag_id,
        aliases=aliases,
        description=" ".join(choice.matching(descriptions)),
        labels={name: found[0] for name, found in by_language.items() if name},
        where=where,
    )
    taxonomy.add(concept)
    return concept, names, parents


def _split(text: str) -> list[str]:
    """Return what stands between commas; a comma after a backslash, or between digits, belongs to a name."""
    return [part for part in (part.replace("\\,", ",").strip() for part in _COMMA.split(text)) if part]


def _tag_id(language: str, name: str) -> str:
    text = unicodedata.normalize("NFC", name).lower()
    if language in _UNACCENTED:
        plain = unicodedata.normalize("NFD", text.replace("œ", "oe").replace("æ", "ae"))
        text = "".join(character for character in plain if not unicodedata.combining(character))
    return f"{language}:{_hyphened(text)}"


def _hyphened(text: str) -> str:
    return re.sub(r"(?:[^\w%]|_)+", "-", text.lower()).strip("-")


def _loose(tag_id: str, stopwords: dict[str, set[str]]) -> str:
    language, _, words = tag_id.partition(":")
    skipped = stopwords.get(language, set())
    return f"{language}:{'-'.join(word for word in words.split('-') if word not in skipped)}"
