"""A taxonomy's file as a vocabulary, whatever its format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hangtag.errors import VocabularyError
from hangtag.recognition import DESCRIPTIONS, Format, decode, recognise
from hangtag.taxonomies.annif import read_annif_csv, read_annif_tsv
from hangtag.taxonomies.build import to_vocabulary
from hangtag.taxonomies.concepts import Taxonomy
from hangtag.taxonomies.debtags import read_debtags
from hangtag.taxonomies.food import read_food
from hangtag.taxonomies.gpc import read_gpc
from hangtag.taxonomies.label_studio import read_label_studio
from hangtag.taxonomies.languages import LanguageChoice
from hangtag.taxonomies.levels import read_levels
from hangtag.taxonomies.own import read_own
from hangtag.taxonomies.paths import read_google, read_paths, read_shopify_list
from hangtag.taxonomies.shopify import read_shopify
from hangtag.taxonomies.skos import read_skos
from hangtag.vocabulary import TagVocabulary
from hangtag.vocabulary_files import read_bytes

DEFAULT_LANGUAGE = "en"
FORMATS: tuple[Format, ...] = tuple(form for form in DESCRIPTIONS if form != "xml")
"""What can be imported."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A vocabulary, the format it was read from, and lines on what was recognised, changed and left out."""

    vocabulary: TagVocabulary
    format: Format
    lines: tuple[str, ...]


def import_taxonomy(path: str | Path, *, form: Format | None = None, language: str = DEFAULT_LANGUAGE) -> Imported:
    """Return the vocabulary in a taxonomy's file, also gzipped.

    `form` None means what the content looks like; `language` is that of names, with the fallback of
    `LanguageChoice`. A bad entry is left out and counted, and the rest goes on.

    Raises:
        VocabularyError: the file cannot be read as that format, or no tag is in it.
        MissingExtra: a library of the extra `files` is needed.
    """
    data = read_bytes(path)
    found = form or recognise(data, str(path))
    if found == "xml":
        raise VocabularyError(f"{path}: {DESCRIPTIONS[found]}; name its format with --format")
    lines = [f"{path}: read as {DESCRIPTIONS[found]}" + ("" if form else "; --format names another")]
    choice = LanguageChoice(language)
    taxonomy = _read(data, found, choice, str(path), lines)
    vocabulary, changes = to_vocabulary(taxonomy, str(path))
    return Imported(vocabulary, found, (*lines, *choice.note(), *changes))


def _read(data: bytes, form: Format, choice: LanguageChoice, source: str, lines: list[str]) -> Taxonomy:
    match form:
        case "turtle" | "rdf-xml" | "n-triples" | "json-ld":
            return read_skos(data, form, choice, source)
        case "gpc":
            return read_gpc(data, source)
        case "label-studio":
            return read_label_studio(data, source)
        case "levels" if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            return read_levels(data, None, source)
    text = _text(data, source, lines)
    match form:
        case "levels":
            return read_levels(data, text, source)
        case "google":
            return read_google(text)
        case "shopify":
            return read_shopify_list(text)
        case "paths":
            return read_paths(text)
        case "open-food-facts":
            return read_food(text, choice)
        case "annif-tsv":
            return read_annif_tsv(text)
        case "annif-csv":
            return read_annif_csv(text, choice, source)
        case "debtags":
            return read_debtags(text)
        case "shopify-json":
            return read_shopify(_json(text, source), source)
    return read_own(text, form, source)


def _text(data: bytes, source: str, lines: list[str]) -> str:
    try:
        return decode(data)
    except UnicodeDecodeError as error:
        place = error.start
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise VocabularyError(f"{source}: not UTF-8 (byte {place}); save the file as UTF-8") from None
    lines.append(f"not UTF-8 (byte {place}): read as Windows-1252; if names look wrong, save the file as UTF-8")
    return text


def _json(text: str, source: str) -> object:
    try:
        document: object = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise VocabularyError(f"{source}:{getattr(error, 'lineno', 1)}: not JSON ({error})") from None
    return document
