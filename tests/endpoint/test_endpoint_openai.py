"""Chat and text completions through the endpoint, in front of a vLLM that has no model."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fake_vllm import Shop

from hangtag import Product, TagVocabulary
from hangtag.constraint import parse_answer
from hangtag.language_model.generative import GenerativeTagger
from hangtag.tagging import to_answer

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def shop(vocabulary: TagVocabulary) -> Shop:
    return Shop(vocabulary)


def chat(content: Any = "Red shoes", **options: Any) -> dict[str, Any]:
    return {"model": "hangtag", "messages": [{"role": "user", "content": content}], **options}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def error(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    document = response.json()["error"]
    assert set(document) == {"message", "type", "param", "code"}
    return str(document["message"])


def test_a_chat_is_answered_with_the_whole_compact_json(shop: Shop, vocabulary: TagVocabulary) -> None:
    response = shop.post(CHAT, chat())
    document = response.json()
    assert response.status_code == 200
    assert document["object"] == "chat.completion"
    assert document["model"] == "hangtag"
    [choice] = document["choices"]
    assert choice["finish_reason"] == "stop"
    text = choice["message"]["content"]
    answer = parse_answer(text, vocabulary)
    assert answer.is_correct_set
    assert text == to_answer(answer.tags)
    assert shop.sample("hangtag_taggings_total", vocabulary="shop", status="ok") == 1


def test_the_prompt_is_the_offline_tagger_s_token_for_token(shop: Shop) -> None:
    rows: list[Any] = [
        "Red shoes",
        "  spaces\n around \u00a0",
        '{"title": "Red", "description": "Shoe", "attributes": {"size": "42"}}',
        "<|end|> is text, and so is </product>",
        '{"title": "an <|end|>", "attributes": {"<|end|>": "<|end|>"}}',
        "{no json}",
    ]
    products = [
        Product(id="0", title="Red shoes"),
        Product.from_row({"title": rows[1]}, default_id="0"),
        Product.from_row(json.loads(rows[2]), default_id="0"),
        Product(id="0", title=rows[3]),
        Product.from_row(json.loads(rows[4]), default_id="0"),
        Product(id="0", title="{no json}"),
    ]
    tagger: GenerativeTagger = shop.vocabularies.default.tagger
    for row, product in zip(rows, products, strict=True):
        [offline] = tagger.prompt_ids([product])
        for path, body in ((CHAT, chat(row)), (TEXT, {"prompt": row}), ("/v1/tag", {"products": [row]})):
            assert shop.post(path, body).status_code == 200
            [sent] = shop.vllm.bodies[-1]["prompt"]
            assert sent == offline
            assert 256 not in sent
            assert shop.vllm.bodies[-1]["vllm_xargs"]["hangtag_prefix"] == len(tagger.plan.prefix)
            assert shop.vllm.bodies[-1]["temperature"] == 0


def test_a_stream_gives_the_same_text_tag_by_tag(shop: Shop) -> None:
    whole = shop.post(CHAT, chat()).json()["choices"][0]["message"]["content"]
    found = events(shop.post(CHAT, chat(stream=True, stream_options={"include_usage": True})))
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"]["content"] for event in found[:-1]) == whole
    assert [event["choices"][0]["finish_reason"] for event in found[:-1]][-1] == "stop"
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 3
    assert len(found) > 3
    assert all(event["object"] == "chat.completion.chunk" for event in found)


def test_completions_take_several_prompts_and_choices(shop: Shop, vocabulary: TagVocabulary) -> None:
    body = {"prompt": ["Red", "Blue shoes"], "n": 2, "temperature": 1.0, "seed": None}
    choices = shop.post(TEXT, body).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert all(parse_answer(choice["text"], vocabulary).is_correct_set for choice in choices)
    streamed = [""] * 4
    for event in events(shop.post(TEXT, body | {"stream": True})):
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == [choice["text"] for choice in choices]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_cover_every_token_and_begin_with_the_certain_prefix(shop: Shop, stream: bool) -> None:
    response = shop.post(CHAT, chat(logprobs=True, top_logprobs=2, stream=stream))
    if stream:
        deltas = [event["choices"][0] for event in events(response)]
        tokens = [token for choice in deltas for token in (choice.get("logprobs") or {}).get("content", [])]
        text = "".join(choice["delta"]["content"] for choice in deltas)
    else:
        choice = response.json()["choices"][0]
        tokens, text = choice["logprobs"]["content"], choice["message"]["content"]
    assert "".join(token["token"] for token in tokens) == text
    assert tokens[0]["logprob"] == 0.0
    assert any(token["logprob"] == -0.25 for token in tokens)
    assert all(token["top_logprobs"] for token in tokens)
    assert bytes(tokens[0]["bytes"]).decode() == tokens[0]["token"]


def test_text_logprobs_have_offsets(shop: Shop) -> None:
    choice = shop.post(TEXT, {"prompt": "Red", "logprobs": 1}).json()["choices"][0]
    for offset, token in zip(choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token


def test_options_choose_limits_facets_and_vocabulary(shop: Shop, vocabulary: TagVocabulary) -> None:
    def tags(**arguments: Any) -> list[str]:
        content = shop.post(CHAT, chat(vllm_xargs=arguments)).json()["choices"][0]["message"]["content"]
        found: list[str] = json.loads(content)["tags"]
        return found

    assert tags(hangtag_max_tags=0) == []
    assert len(tags(hangtag_min_tags=2, hangtag_max_tags=2)) == 2
    for tag in tags(hangtag_only_facets=["colour"], hangtag_min_tags=1):
        assert vocabulary[tag].facet == "colour"
    assert set(tags(hangtag="other", hangtag_min_tags=3)) <= {"tea", "cup", "böhm", "杯"}
    assert shop.vllm.bodies[-1]["vllm_xargs"]["hangtag"] == "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gpt-4"}, "expected one of hangtag"),
        ({"messages": []}, "expected one, of role user"),
        ({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}, "got 2 messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "role user"),
        ({"messages": [{"role": "user", "content": None}]}, "as text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "as text"),
        ({"messages": [{"role": "user", "content": " "}]}, "both empty"),
        ({"messages": [{"role": "user", "content": '{"titel": "x"}'}]}, "both empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "Unicode"),
        ({"max_tokens": 3}, "no legal answer"),
        ({"max_tokens": 0}, "expected 1"),
        ({"n": 9}, "expected 1 to 8"),
        ({"n": True}, "expected 1 to 8"),
        ({"top_logprobs": 2}, "logprobs: true"),
        ({"logprobs": 1}, "true or false"),
        ({"stream": "yes"}, "true or false"),
        ({"seed": 1, "temperature": 0.5}, "seed"),
        ({"min_tokens": 5}, "min_tokens: not open"),
        ({"prompt_logprobs": 5}, "not open"),
        ({"tools": [{"type": "function"}]}, "tools: not open at this server; it calls no functions: ask for JSON"),
        ({"tool_choice": {"type": "function"}}, "tool_choice: not open at this server; it calls no functions"),
        ({"functions": [{"name": "x"}]}, "response_format of type json_schema"),
        ({"structured_outputs": {"json": {}}}, "--allow-own-formats"),
        ({"kv_transfer_params": {"a": 1}}, "not open"),
        ({"stop": ["red"]}, "stop: not open"),
        ({"vllm_xargs": [1]}, "expected an object"),
        ({"vllm_xargs": {"hangtag_prefix": 2}}, "set by the server"),
        ({"vllm_xargs": {"hangtag": "/etc/passwd"}}, "expected one of shop, other"),
        ({"vllm_xargs": {"hangtag": "0" * 64}}, "expected one of shop, other"),
        ({"vllm_xargs": {"hangtag": ["shop"]}}, "expected one of shop, other"),
        ({"vllm_xargs": {"hangtag_maxtags": 2}}, "did you mean hangtag_max_tags"),
        ({"vllm_xargs": {"other": 2}}, "unknown argument"),
        ({"vllm_xargs": {"hangtag_min_tags": 99}}, "max_tags"),
        ({"vllm_xargs": {"hangtag_only_facets": ["size"]}}, "size"),
    ],
)
def test_a_wrong_request_is_told_what_was_expected(shop: Shop, options: dict[str, Any], message: str) -> None:
    status = 404 if "model" in options else 400
    # httpx refuses to write a lone surrogate, which JSON can escape.
    body = json.dumps(chat() | options)
    response = shop.ask("POST", CHAT, content=body, headers={"content-type": "application/json"})
    assert message in error(response, status)
    assert shop.vllm.bodies == []


def test_what_clients_send_besides_is_harmless(shop: Shop) -> None:
    body = chat(
        [{"type": "text", "text": "Red"}, {"type": "text", "text": "shoes"}],
        user="u", store=False, metadata={"a": "b"}, stop=None, tools=[], tool_choice="auto", seed=7,
        frequency_penalty=0, logit_bias={}, max_completion_tokens=200,
    )  # fmt: skip
    assert shop.post(CHAT, body).status_code == 200
    # A seed changes no greedy answer, but vLLM's CPU engine can die of one.
    assert "seed" not in shop.vllm.bodies[-1]


SIZE = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "size", "schema": SIZE}}


class TestOwnFormat:
    """What a server does that was started with `--allow-own-formats`."""

    @pytest.fixture
    def shop(self, vocabulary: TagVocabulary) -> Shop:
        return Shop(vocabulary, allow_own_formats=True)

    @pytest.mark.parametrize(
        "own",
        [
            {"response_format": {"type": "text"}},
            {"response_format": {"type": "structural_tag"}},
            {"structured_outputs": {"regex": "a"}},
        ],
    )
    def test_all_but_the_tags_form_goes_to_vllm(self, shop: Shop, own: dict[str, Any]) -> None:
        assert shop.post(CHAT, chat(**own)).json() == {"object": "raw", "asked": chat(**own)}

    def test_a_form_of_tags_gets_tags(self, shop: Shop) -> None:
        plain = shop.post(CHAT, chat()).json()
        assert shop.post(CHAT, chat(response_format={"type": "json_object"})).json() == plain

    def test_it_goes_to_vllm_as_it_is(self, shop: Shop) -> None:
        body = chat(response_format=FORMAT, temperature=0.5, max_tokens=9)
        body["messages"].insert(0, {"role": "system", "content": "answer in JSON"})
        document = shop.post(CHAT, body).json()
        assert document == {"object": "raw", "asked": body}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seed": 1}, "seed"),
            ({"n": 1000}, "expected 1 to 8"),
            ({"min_tokens": 2}, "not open"),
            ({"prompt_logprobs": 1}, "not open"),
            ({"top_logprobs": 500, "logprobs": True}, "0 to 20"),
            ({"vllm_xargs": {"hangtag": "shop"}}, "exclude"),
            ({"model": "x"}, "expected one of"),
            ({"user": "\ud800"}, "Unicode"),
        ],
    )
    def test_what_would_harm_is_refused(self, shop: Shop, options: dict[str, Any], message: str) -> None:
        body = json.dumps(chat(response_format=FORMAT) | options)
        response = shop.ask("POST", CHAT, content=body, headers={"content-type": "application/json"})
        assert message in error(response, 404 if "model" in options else 400)
        assert shop.vllm.bodies == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stream_options": [1, "2"]}, "stream_options: expected an object"),
            ({"structured_outputs": [1, "2"]}, "structured_outputs: expected an object"),
            ({"logit_bias": "x"}, "logit_bias: expected an object"),
            ({"messages": {"role": "user"}}, "messages: expected a list"),
            ({"messages": [{"role": "x", "content": "y"}]}, "messages: expected a role"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "expected the product as text"),
        ],
    )
    def test_what_vllm_would_stumble_over_is_refused(
        self, shop: Shop, options: dict[str, Any], message: str
    ) -> None:
        assert message in error(shop.post(CHAT, chat(response_format=FORMAT) | options))
        assert not shop.vllm.bodies

    @pytest.mark.parametrize(("is_dead", "status"), [(False, 400), (True, 503)])
    def test_an_error_of_vllm_is_the_request_s_while_the_engine_is_well(
        self, shop: Shop, is_dead: bool, status: int
    ) -> None:
        shop.vllm.failure, shop.vllm.is_dead = (
            (500, {"error": {"message": "RecursionError at /usr/secret"}}),
            is_dead,
        )
        message = error(shop.post(CHAT, chat(response_format=FORMAT)), status)
        assert "fail" in message
        assert "secret" not in message


class TestFailures:
    def test_vllm_s_refusal_reaches_the_client(self, shop: Shop) -> None:
        shop.vllm.failure = (400, {"error": {"message": "temperature must be at most 2"}})
        for stream in (False, True):
            assert "temperature must be" in error(shop.post(CHAT, chat(stream=stream)))

    def test_a_dead_engine_is_503_without_its_traceback(self, shop: Shop) -> None:
        shop.vllm.failure = (500, {"error": {"message": "EngineDeadError at /usr/lib/secret"}})
        response = shop.post(CHAT, chat())
        assert error(response, 503) == "the engine failed; try again"
        assert response.headers["retry-after"] == "5"

    def test_an_answer_that_is_cut_off_is_an_error_not_an_answer(self, shop: Shop) -> None:
        shop.vllm.cut_after = 2
        assert "cut off" in error(shop.post(CHAT, chat()), 503)
        found = events(shop.post(CHAT, chat(stream=True)))
        assert found[-1]["error"]["code"] == "cut"

    def test_a_prompt_that_does_not_fit_is_told(self, shop: Shop) -> None:
        shop.vocabularies.default.tagger.engine.max_model_len = 400
        assert "room" in error(shop.post(CHAT, chat()))
