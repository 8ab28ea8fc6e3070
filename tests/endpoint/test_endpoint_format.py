"""Requests with a `response_format`: which get the tag answer, in which form, and what the others are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import openai
import pytest
from fake_vllm import Shop
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model
from referencing.exceptions import Unresolvable

from hangtag import TagVocabulary
from hangtag.endpoint.answer_format import AnswerFormat, read_format
from hangtag.endpoint.asgi import Refusal

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
STRINGS = {"type": "array", "items": {"type": "string"}}
ALL = ["red", "blue", "shoes", "running shoes", "waterproof"]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Labels(BaseModel):
    labels: list[str]


class Coloured(BaseModel):
    """The colours."""

    colours: Annotated[list[Colour], Field(description="its colours", min_length=1)]


class Loose(BaseModel):
    model_config = ConfigDict(title="Loose")
    tags: list[str] | None
    note: str = ""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tags: set[Literal["red", "blue", "shoes", "running shoes", "waterproof", "unknown"]] = Field(max_length=2)


class Defaulted(BaseModel):
    tags: list[str] = Field(default_factory=list)


class Wrapped(RootModel[Labels]):
    pass


@pytest.fixture
def shop(vocabulary: TagVocabulary) -> Shop:
    return Shop(vocabulary)


def of(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def one(array: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"tags": array}, "required": ["tags"], **more}


def chat(**options: Any) -> dict[str, Any]:
    return {"model": "hangtag", "messages": [{"role": "user", "content": "Red shoes"}], **options}


def told(shop: Shop, **options: Any) -> str:
    """Return why a chat is refused: in OpenAI's form, before vLLM is asked."""
    response = shop.post(CHAT, chat(**options))
    assert response.status_code == 400, response.text
    document = response.json()["error"]
    assert document["type"] == "invalid_request_error"
    assert document["param"] == next(iter(options))
    assert shop.vllm.bodies == []
    return str(document["message"])


@pytest.mark.parametrize("own", [{"type": "text"}, {"type": "json_object"}, of(one(STRINGS)), None])
@pytest.mark.parametrize("stream", [False, True])
def test_the_plain_answer_does_not_change(shop: Shop, own: Any, stream: bool) -> None:
    options = {"stream": stream, "stream_options": {"include_usage": True}} if stream else {}
    plain = shop.post(CHAT, chat(**options))
    assert shop.post(CHAT, chat(response_format=own, **options)).content == plain.content
    assert shop.vllm.bodies[0] == shop.vllm.bodies[1]


SCHEMAS = [
    (Labels.model_json_schema(), "labels", 0, None, None),
    (Coloured.model_json_schema(), "colours", 1, None, {"red", "blue"}),
    (Loose.model_json_schema(), "tags", 0, None, None),
    (Strict.model_json_schema(), "tags", 0, 2, {*ALL, "unknown"}),
    (Defaulted.model_json_schema(), "tags", 0, None, None),
    (Wrapped.model_json_schema(), "labels", 0, None, None),
    (one(STRINGS | {"minItems": 2, "maxItems": 3, "uniqueItems": True}), "tags", 2, 3, None),
    (one(STRINGS, additionalProperties=False), "tags", 0, None, None),
    (one({"type": ["array", "null"], "items": {"type": "string", "enum": ALL}}), "tags", 0, None, {*ALL}),
    (one({"type": "array", "items": {"const": "red"}}), "tags", 0, None, {"red"}),
    (one({"allOf": [{"$ref": "#/$defs/a~1b"}]}, **{"$defs": {"a/b": STRINGS}}), "tags", 0, None, None),
    (one(STRINGS, **{"$id": "http://127.0.0.1:1/x", "x-order": 1, "examples": [{}]}), "tags", 0, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "name", "least", "most", "enum"), SCHEMAS)
def test_schemas_that_admit_tags_are_read(
    schema: dict[str, Any], name: str, least: int, most: int | None, enum: set[str] | None
) -> None:
    found = read_format(of(schema))
    assert (found.name, found.min_items, found.max_items) == (name, least, most)
    assert found.enum == enum
    assert read_format({"type": "json_object", "schema": schema}) == found


@pytest.mark.parametrize(("schema", "name"), [row[:2] for row in SCHEMAS if row[4] != {"red"}])
def test_answers_are_tags_in_the_client_s_form(
    shop: Shop, vocabulary: TagVocabulary, schema: dict[str, Any], name: str
) -> None:
    for text in ("Red shoes", "Blue", "Waterproof"):
        body = chat(response_format=of(schema)) | {"messages": [{"role": "user", "content": text}]}
        document = shop.post(CHAT, body).json()
        content = document["choices"][0]["message"]["content"]
        jsonschema.validate(json.loads(content), schema)
        assert content == json.dumps({name: json.loads(content)[name]}, separators=(",", ":"))
        assert set(json.loads(content)[name]) <= set(vocabulary.names)
        events = shop.post(CHAT, body | {"stream": True, "stream_options": {"include_usage": True}}).text
        chunks = [json.loads(line[6:]) for line in events.split("\n\n") if line.startswith("data: {")]
        assert "".join(each["choices"][0]["delta"]["content"] for each in chunks[:-1]) == content
        assert chunks[-1]["usage"] == document["usage"] == {
            "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
        }  # fmt: skip
        texts = shop.post(TEXT, {"prompt": [text, text], "response_format": of(schema)}).json()["choices"]
        assert [choice["text"] for choice in texts] == [content, texts[1]["text"]]


def test_the_prompt_is_the_plain_one(shop: Shop) -> None:
    shop.post(CHAT, chat())
    shop.post(CHAT, chat(response_format=of(Labels.model_json_schema())))
    assert shop.vllm.bodies[0] == shop.vllm.bodies[1]


@pytest.mark.parametrize(
    ("array", "arguments", "limits"),
    [
        ({"minItems": 2}, {}, {"hangtag_min_tags": 2}),
        ({"minItems": 1}, {"hangtag_min_tags": 2}, {"hangtag_min_tags": 2}),
        ({"minItems": 2}, {"hangtag_min_tags": 1}, {"hangtag_min_tags": 2}),
        ({"maxItems": 2}, {"hangtag_max_tags": 3}, {"hangtag_max_tags": 2}),
        ({"maxItems": 3}, {"hangtag_max_tags": 2}, {"hangtag_max_tags": 2}),
        ({"maxItems": 99}, {}, {}),
        ({"items": {"enum": ALL}}, {}, {}),
        ({"items": {"enum": ["red", "blue", 7]}}, {}, {"hangtag_only_facets": ["colour"]}),
        ({"items": {"enum": ["red", "blue", "waterproof"]}}, {}, {"hangtag_only_facets": ["colour", "feature"]}),
        (
            {"items": {"enum": ["red", "blue", "waterproof"]}},
            {"hangtag_only_facets": ["type", "colour"]},
            {"hangtag_only_facets": ["colour"]},
        ),
        # The enum has a part of `type` only, but no tag of it is asked for.
        (
            {"items": {"enum": ["red", "blue", "shoes"]}},
            {"hangtag_only_facets": ["colour"]},
            {"hangtag_only_facets": ["colour"]},
        ),
    ],
)
def test_the_schema_s_bounds_become_limits(
    shop: Shop, array: dict[str, Any], arguments: dict[str, Any], limits: dict[str, Any]
) -> None:
    shop.post(CHAT, chat())
    plain = shop.vllm.bodies[0]["vllm_xargs"]
    del plain["hangtag_prefix"]
    response = shop.post(CHAT, chat(response_format=of(one(STRINGS | array)), vllm_xargs=arguments))
    assert response.status_code == 200, response.text
    sent = shop.vllm.bodies[1]["vllm_xargs"]
    del sent["hangtag_prefix"]
    assert sent == plain | limits


@pytest.mark.parametrize(
    ("own", "got"),
    [
        ({}, "the type None; expected json_schema"),
        ({"type": ["x"]}, "the type ['x']"),
        ({"type": "json_schema"}, "json_schema without a schema"),
        ({"type": "json_schema", "json_schema": "x"}, "json_schema without a schema"),
        (of([]), "[] for a schema"),
        (of({}), "the schema with the type None"),
        (of({"type": "integer"}), "the schema with the type 'integer'"),
        (of({"type": "object"}), "an object without properties"),
        (of({"type": "object", "properties": {}}), "an object whose properties are []"),
        (of({"type": "object", "properties": {"a": STRINGS, "b": STRINGS}}), "properties are ['a', 'b']"),
        (of(one(STRINGS) | {"required": ["tags", "note"]}), "whose properties are ['tags', 'note']"),
        (of(one(STRINGS) | {"required": ["labels"]}), "whose properties are ['labels']"),
        (of(one(STRINGS) | {"required": [["tags"]]}), "whose properties are [['tags']]"),
        (of(one(STRINGS) | {"required": "tags"}), "an object without properties"),
        (of(one(STRINGS, minProperties=2)), "the schema with 'minProperties'"),
        (of(one({"type": "string"})), "the property 'tags' with the type 'string'"),
        (of(one({"type": "array"})), "the items of the property 'tags' as None"),
        (of(one({"type": "array", "items": {"type": "object"}})), "with the type 'object'"),
        (of(one({"type": "array", "items": {"enum": "red"}})), "with an enum that is no list"),
        (of(one({"type": "array", "items": {"type": "string", "pattern": "(a+)+$"}})), "with 'pattern'"),
        (of(one(STRINGS | {"contains": {"const": "red"}})), "the property 'tags' with 'contains'"),
        (of(one(STRINGS | {"minItems": -1})), "minItems -1; expected a whole number"),
        (of(one(STRINGS | {"maxItems": True})), "maxItems True"),
        (of(one({"anyOf": [STRINGS, {"type": "string"}]})), "the property 'tags' with 2 alternatives"),
        (of(one({"anyOf": 1})), "with 0 alternatives"),
        (of(one({"anyOf": [STRINGS], "maxItems": 1})), "with 'maxItems'"),
        (of({"$ref": "#"}), "references that go in a circle"),
        (of(one({"$ref": "#/$defs/gone"})), "'#/$defs/gone', which leads nowhere"),
        (of(one({"$ref": "#/required/x"})), "which leads nowhere"),
        (of(one({"$ref": 7})), "the reference 7, which"),
        (of(one({"$ref": "http://127.0.0.1:1/schema"})), "which leads nowhere"),
        (of(one({"$ref": "#/$defs/a", "$id": "http://127.0.0.1:1/"})), "with '$id'"),
        (of({"type": "object", "properties": {"\ud800": STRINGS}}), "no well-formed Unicode"),
        (of(one({"type": "array", "items": {"enum": ["gone"]}})), "an enum without any tag"),
        (
            of(one({"type": "array", "items": {"enum": ["red", "waterproof"]}})),
            "an enum without 'blue', a tag of the facet 'colour'; expected all tags of a facet or none",
        ),
        (of(one(STRINGS | {"minItems": 99})), "no set of tags conforms to it: "),
        (of(one(STRINGS | {"minItems": 2, "maxItems": 1})), "no set of tags conforms to it: max_tags"),
    ],
)  # fmt: skip
def test_other_formats_are_refused_with_what_to_do(shop: Shop, own: Any, got: str) -> None:
    if "\\ud800" in json.dumps(own):
        # httpx refuses to write a lone surrogate, which JSON can escape.
        with pytest.raises(Refusal, match=got):
            read_format(own)
        return
    message = told(shop, response_format=own)
    assert message.startswith("response_format: ")
    assert got in message
    if got.startswith(("the schema", "the property", "an object")):
        assert "expected an object with one required property, an array of strings (the tags); change" in message
        assert message.endswith("leave response_format out, or start the server with --allow-own-formats")


def test_an_answer_that_breaks_the_schema_is_not_sent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are read but not heeded: no client sees what its schema forbids."""
    monkeypatch.setattr(AnswerFormat, "narrow", lambda *_: {"hangtag_max_tags": 0})
    response = shop.post(CHAT, chat(response_format=of(one(STRINGS | {"minItems": 1}))))
    assert response.status_code == 500
    assert "does not conform to the schema" in response.json()["error"]["message"]


def test_checking_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema's unread parts may refer to anywhere; were such a reference followed, it would end at once."""
    fetched: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", fetched.append)
    elsewhere = {"$ref": "http://127.0.0.1:1/schema"}
    read_format(of(one(STRINGS) | {"properties": {"tags": STRINGS, "note": elsewhere}})).check(
        ['{"tags":["red"]}']
    )
    with pytest.raises(Unresolvable):
        AnswerFormat(schema=elsewhere).check(["{}"])
    assert fetched == []


def with_client(shop: Shop, use: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with shop.client() as http:
            return await use(http)

    return asyncio.run(run())


def test_openai_s_parse_gets_tags(shop: Shop) -> None:
    plain = json.loads(shop.post(CHAT, chat()).json()["choices"][0]["message"]["content"])["tags"]
    assert plain

    async def use(http: Any) -> Any:
        client = openai.AsyncOpenAI(base_url="http://shop.test/v1", api_key="x", http_client=http, max_retries=0)
        body: Any = chat()
        parsed = await client.chat.completions.parse(**body, response_format=Labels)
        async with client.chat.completions.stream(**body, response_format=Labels) as stream:
            streamed = await stream.get_final_completion()
        with pytest.raises(openai.BadRequestError, match="whose properties are"):
            pair = create_model("Pair", tags=(list[str], ...), size=(int, ...))
            await client.chat.completions.parse(**body, response_format=pair)
        return [each.choices[0].message.parsed for each in (parsed, streamed)]

    assert with_client(shop, use) == [Labels(labels=plain)] * 2


def test_langchain_s_structured_output_gets_tags(shop: Shop) -> None:
    async def use(http: Any) -> Any:
        model = ChatOpenAI(
            base_url="http://shop.test/v1", api_key="x", model="hangtag", max_retries=0, http_async_client=http
        )
        found = [
            await model.with_structured_output(Labels).ainvoke("Red shoes"),
            await model.with_structured_output(Loose, method="json_mode").ainvoke("Red shoes"),
        ]
        with pytest.raises(
            openai.BadRequestError,
            match='not open at this server; it calls no functions.* LangChain: method="json_schema"',
        ):
            await model.with_structured_output(Labels, method="function_calling").ainvoke("Red shoes")
        return found

    labels, tags = with_client(shop, use)
    assert labels.labels == tags.tags
    assert labels.labels
