"""A product of a catalogue, and the normalisation of its text."""

from __future__ import annotations

import json
import re
import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_SPACE = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")


def normalise_text(text: str) -> str:
    """Return `text` in Unicode NFC, without control characters, white space collapsed to one space.

    Examples:
        >>> normalise_text("  Red\\u00a0shoes\\n\\x00size 9 ")
        'Red shoes size 9'
    """
    if text.isascii() and text.isprintable():
        # The common case, without a regular expression: the only white space left to collapse is the space.
        return " ".join(text.split()) if "  " in text else text.strip()
    text = unicodedata.normalize("NFC", _CONTROL.sub(" ", text))
    return _SPACE.sub(" ", text).strip()


class ProductFields(NamedTuple):
    """The fields of a `Product`, cleaned but not yet a model: what reading a catalogue in bulk can afford."""

    id: str
    title: str
    description: str
    attributes: dict[str, str]
    tags: tuple[str, ...] | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, default_id: str) -> ProductFields:
        """Return what a catalogue row says; see `Product.from_row`, which raises the same."""
        attributes = row.get("attributes")
        if attributes is not None:
            attributes = _json_if_text(attributes, "attributes", dict)
        tags = row.get("tags")
        if tags is not None:
            tags = _json_if_text(tags, "tags", list)
        title = _text(row.get("title"), "title")
        description = _text(row.get("description"), "description")
        if not title and not description:
            raise ValueError("title and description are both empty; a product needs one of them")
        product_id = _text(row.get("id"), "id") or default_id
        if tags is not None and not all(isinstance(tag, str) for tag in tags):
            raise ValueError(f"tags: got {tags!r:.80}, expected a list of strings")
        return cls(
            product_id,
            title,
            description,
            {
                _text(name, "attribute name"): text
                for name, value in (attributes or {}).items()
                if (text := _text(value, f"attribute {name!r}"))
            },
            None if tags is None else tuple(tags),
        )


class Product(BaseModel):
    """One product: what a shop says of it and, in labelled data, its gold tags.

    Texts are normalised (`normalise_text`) and attribute values are turned into strings. `tags` is None
    where the product is unlabelled; an empty tuple is a label: "no tag fits". Order of `tags` is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str = ""
    description: str = ""
    attributes: dict[str, str] = Field(default_factory=dict)
    tags: tuple[str, ...] | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, default_id: str) -> Product:
        """Return the product that a catalogue row describes; keys that no product has are ignored.

        `attributes` may be a mapping or a JSON object in a string, `tags` a list or a JSON list in a
        string. `default_id` names a row that brings no id.

        Raises:
            ValueError: a field has the wrong type or is no well-formed Unicode, or title and description are both
                empty.
        """
        fields = ProductFields.from_row(row, default_id=default_id)
        try:
            return cls(**fields._asdict())
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"]) from None

    @property
    def text(self) -> str:
        """Title, description and attributes in one line, the same for every tagger that reads plain text."""
        parts = [self.title, self.description]
        parts += [f"{name}: {value}" for name, value in self.attributes.items()]
        return ". ".join(part.rstrip(".") for part in parts if part)


def row_id(row: Mapping[str, Any], *, default_id: str) -> str:
    """Return what a row is called, product or not: the id that `Product.from_row` would give it.

    `default_id` names a row whose id is missing or cannot be one; half surrogate pairs become question marks.
    """
    given = row.get("id")
    try:
        return _text(given, "id") or default_id
    except ValueError:
        text = given.encode(errors="replace").decode() if isinstance(given, str) else ""
        return normalise_text(text) or default_id


def _text(value: object, field: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _encodable(normalise_text(value), field)
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        # NaN is how Parquet and pandas write a missing text.
        return "" if value != value else format(value, ".15g")
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return _encodable(normalise_text(", ".join(str(item) for item in value)), field)
    raise ValueError(f"{field}: got {_shown(value)}, expected text")


def _shown(value: object) -> str:
    return f"{type(value).__name__} {reprlib.repr(value):.60}"


def _encodable(text: str, field: str) -> str:
    """Return the text. JSON can escape half a surrogate pair, but no tokenizer and no file takes one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}: its text is no well-formed Unicode (a lone surrogate)") from None
    return text


def _json_if_text(value: object, field: str, kind: type[Any]) -> Any:
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{field}: got {reprlib.repr(value):.60}, expected a JSON {kind.__name__}") from None
    if value is None or (isinstance(value, float) and value != value):
        return None
    if not isinstance(value, kind):
        raise ValueError(f"{field}: got {_shown(value)}, expected a {kind.__name__}")
    return value
