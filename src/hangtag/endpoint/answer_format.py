"""The form of the answer: what a client's `response_format` admits of the tag answer, and what it calls it.

A schema admits the tag answer if it is an object with one required property that is an array of strings. The
property's name becomes the answer's, bounds on the array become limits, an enum closes facets. References and
`anyOf` with null are read as pydantic writes them. Every other keyword that a validator would check is refused by
name: the answer could break it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from hangtag.constraint import Limits
from hangtag.endpoint.asgi import Refusal, well_formed
from hangtag.engines.vllm_arguments import MAX_TAGS, MIN_TAGS, ONLY_FACETS
from hangtag.vocabulary import TagVocabulary

_PARAM = "response_format"
_EXPECTED = (
    "expected an object with one required property, an array of strings (the tags); change the schema, leave "
    "response_format out, or start the server with --allow-own-formats"
)
_READ = {
    "object": {"type", "properties", "required", "additionalProperties"},
    "array": {"type", "items", "minItems", "maxItems", "uniqueItems"},
    "string": {"type", "enum", "const"},
}
_CHECKED = {*Draft202012Validator.VALIDATORS, "$id"}
_MOST_STEPS = 32


@dataclass(frozen=True)
class AnswerFormat:
    """What a request asks of the answer's form; without arguments the plain tag answer.

    `enum` has the strings that the array may hold, None: any. `schema` is the client's, None where it sent none.
    """

    name: str = "tags"
    min_items: int = 0
    max_items: int | None = None
    enum: frozenset[str] | None = None
    schema: Mapping[str, Any] | None = None

    def narrow(self, limits: Limits, vocabulary: TagVocabulary) -> dict[str, Any]:
        """Return the arguments (see `vllm_arguments`) that narrow `limits` to what the format admits.

        Raises:
            Refusal: the enum holds some tags of a facet and not others, or no tag at all.
        """
        arguments: dict[str, Any] = {}
        if self.min_items > limits.min_tags:
            arguments[MIN_TAGS] = self.min_items
        if self.max_items is not None and (limits.max_tags is None or self.max_items < limits.max_tags):
            arguments[MAX_TAGS] = self.max_items
        if self.enum is None:
            return arguments
        admitted = vocabulary.facet_names if limits.only_facets is None else limits.only_facets
        inside = {tag.facet for tag in vocabulary.tags if tag.tag in self.enum}
        missing = {tag.facet: tag.tag for tag in vocabulary.tags if tag.tag not in self.enum}
        if not inside:
            raise _refusal("an enum without any tag of the vocabulary", "expected tags of the vocabulary in it")
        for facet in sorted(inside & missing.keys() & set(admitted)):
            raise _refusal(
                f"an enum without {missing[facet]!r:.80}, a tag of the facet {facet!r:.80}",
                "expected all tags of a facet or none; complete the enum or leave it out",
            )
        open_facets = sorted(inside & set(admitted))
        if len(open_facets) < len(admitted):
            arguments[ONLY_FACETS] = open_facets
        return arguments

    def check(self, texts: Iterable[str]) -> None:
        """Return if these answers conform to the client's schema. Raises Refusal: one does not."""
        if self.schema is None:
            return
        # A registry of its own: jsonschema's default one fetches what a schema refers to from anywhere.
        validator = Draft202012Validator(self.schema, registry=Registry())
        for text in texts:
            for error in validator.iter_errors(json.loads(text)):
                message = f"the answer does not conform to the schema ({error.message:.200}) and is not sent"
                raise Refusal(500, "internal", message, param=_PARAM)


def read_format(response_format: Any) -> AnswerFormat:
    """Return what a request's `response_format` asks for.

    Raises:
        Refusal: it does not admit the tag answer.
    """
    if response_format is None:
        return AnswerFormat()
    if not isinstance(response_format, dict):
        raise Refusal(400, "invalid", f"{_PARAM}: expected an object", param=_PARAM)
    kind, schema = response_format.get("type"), response_format.get("schema")
    if kind == "json_schema":
        wrapped = response_format.get("json_schema")
        schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
        if schema is None:
            raise _refusal("json_schema without a schema")
    elif kind not in ("text", "json_object"):
        raise _refusal(f"the type {kind!r:.80}", "expected json_schema, json_object or text")
    return AnswerFormat() if schema is None else _SchemaReader(schema).read()


def _refusal(got: str, expected: str = _EXPECTED) -> Refusal:
    return Refusal(400, "invalid", f"{_PARAM}: got {got}; {expected}", param=_PARAM)


class _SchemaReader:
    """Reads one client's schema, with its references."""

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, dict):
            raise _refusal(f"{schema!r:.80} for a schema")
        # An address of its own would say nothing here: only references within the schema are followed.
        self._schema = {name: value for name, value in schema.items() if name != "$id"}
        resource: Resource[Any] = DRAFT202012.create_resource(self._schema)
        self._resolver = Registry().with_resource("", resource).resolver()

    def read(self) -> AnswerFormat:
        """Return the format. Raises Refusal: the schema does not admit the tag answer."""
        root = self._plain(self._schema, "object", "the schema")
        properties, required = root.get("properties"), root.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise _refusal("an object without properties")
        # A property with a default is not required, but may be the only one.
        names = required or [*properties]
        if len(names) != 1 or not isinstance(names[0], str) or names[0] not in properties:
            raise _refusal(f"an object whose properties are {names!r:.200}")
        [name] = names
        if well_formed(name) != name:
            raise _refusal("a property whose name is no well-formed Unicode")
        where = f"the property {name!r:.80}"
        array = self._plain(properties[name], "array", where)
        items = self._plain(array.get("items"), "string", f"the items of {where}")
        values = [items["const"]] if "const" in items else items.get("enum")
        if values is not None and not isinstance(values, list):
            raise _refusal(f"{where} with an enum that is no list")
        return AnswerFormat(
            name,
            _bound(array, "minItems", where) or 0,
            _bound(array, "maxItems", where),
            None if values is None else frozenset(value for value in values if isinstance(value, str)),
            self._schema,
        )

    def _plain(self, node: Any, kind: str, where: str) -> dict[str, Any]:
        """Return the schema of type `kind` at a node: references followed, null left aside."""
        for _ in range(_MOST_STEPS):
            if not isinstance(node, dict):
                raise _refusal(f"{where} as {node!r:.80}")
            step = next((name for name in ("$ref", "anyOf", "allOf") if name in node), None)
            read = _READ[kind] if step is None else {step}
            for name in node:
                if name in _CHECKED and name not in read:
                    raise _refusal(f"{where} with {name!r:.80}")
            if step is None:
                if not _is_of_type(node, kind):
                    raise _refusal(f"{where} with the type {node.get('type')!r:.80}")
                return node
            node = self._lookup(node[step], where) if step == "$ref" else _only_choice(node[step], where)
        raise _refusal(f"{where} with references that go in a circle")

    def _lookup(self, reference: Any, where: str) -> Any:
        try:
            return self._resolver.lookup(reference).contents
        except (Unresolvable, LookupError, ValueError, TypeError, AttributeError):
            raise _refusal(f"{where} with the reference {reference!r:.80}, which leads nowhere in it") from None


def _is_of_type(node: Mapping[str, Any], kind: str) -> bool:
    given = node.get("type")
    if given is None:
        return kind == "string" and ("enum" in node or "const" in node)
    return kind in given if isinstance(given, list) else bool(given == kind)


def _only_choice(choices: Any, where: str) -> Any:
    """Return the one of several schemas that is not null's."""
    others = [
        choice
        for choice in (choices if isinstance(choices, list) else ())
        if not (isinstance(choice, dict) and choice.get("type") == "null")
    ]
    if len(others) != 1:
        raise _refusal(f"{where} with {len(others)} alternatives")
    return others[0]


def _bound(array: Mapping[str, Any], keyword: str, where: str) -> int | None:
    value = array.get(keyword)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise _refusal(f"{where} with {keyword} {value!r:.40}", "expected a whole number from 0")
    return value
