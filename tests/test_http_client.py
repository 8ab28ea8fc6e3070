"""The HTTP tagger against a server made of a function."""

import json

import httpx
import pytest

from hangtag.errors import EngineError
from hangtag.product import Product
from hangtag.taggers.http_client import NUM_ATTEMPTS, HttpTagger
from hangtag.vocabulary import FacetLimits, TagVocabulary

VOCABULARY = TagVocabulary.from_json(
    [{"tag": "red", "facet": "colour"}, {"tag": "blue", "facet": "colour"}, "shoes", "boots"]
).with_limits({"colour": FacetLimits(max=1)})
PRODUCTS = [Product(id=f"p{number}", title=f"red shoes {number}") for number in range(5)]


def answer(text, **extra):
    usage = {"prompt_tokens": 50, "completion_tokens": 7}
    return httpx.Response(200, json={"choices": [{"message": {"content": text}}], "usage": usage, **extra})


def tagger(server, **options):
    waits = []
    held = HttpTagger(
        VOCABULARY,
        url="http://shop.test/v1/",
        model="m",
        transport=httpx.MockTransport(server),
        sleep=waits.append,
        **options,
    )
    return held, waits


def test_answers_come_in_order_and_are_checked():
    texts = {
        "0": '{"tags":["red","shoes"]}',
        "1": '{"tags":["red","blue","shoes","shoes","hat"]}',
        "2": "I think it is red",
        "3": '{"tags":[]}',
        "4": None,
    }

    def server(request):
        content = json.loads(request.content)["messages"][-1]["content"]
        return answer(next(text for number, text in texts.items() if f"red shoes {number}" in content))

    held, _ = tagger(server, concurrency=3)
    taggings = held.tag(PRODUCTS)
    assert [tagging.id for tagging in taggings] == [f"p{number}" for number in range(5)]
    assert taggings[0].names == ("red", "shoes")
    assert taggings[0].violations == {}
    assert taggings[1].names == ("red", "shoes")
    assert taggings[1].violations == {"unknown": 1, "repeated": 1, "over_limit": 1}
    assert [tagging.status for tagging in taggings] == ["ok", "ok", "unparsed", "ok", "unparsed"]
    assert held.usage.prompt_tokens == 250
    assert held.usage.output_tokens == 35


def test_requests_carry_model_key_and_schema():
    seen = []

    def server(request):
        seen.append((request.url.path, request.headers, json.loads(request.content)))
        return answer('{"tags":[]}')

    tagger(server, key="secret")[0].tag(PRODUCTS[:1])
    path, headers, body = seen[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert body["model"] == "m"
    assert body["temperature"] == 0
    assert "shoes" in json.dumps(body["response_format"]["json_schema"]["schema"])
    tagger(server, constrained=False)[0].tag(PRODUCTS[:1])
    assert "response_format" not in seen[1][2]
    assert "authorization" not in seen[1][1]


def test_a_server_that_refuses_schemas_is_asked_without():
    def server(request):
        if "response_format" in json.loads(request.content):
            return httpx.Response(400, text="response_format of type json_schema is not supported")
        return answer('{"tags":["red"]}')

    held, waits = tagger(server)
    assert [tagging.names for tagging in held.tag(PRODUCTS)] == [("red",)] * 5
    assert not held.takes_schema
    assert waits == []


@pytest.mark.parametrize("failure", [429, 500, 503, httpx.ReadTimeout("slow"), httpx.ConnectError("refused")])
def test_passing_failures_are_tried_again_with_growing_waits(failure):
    left = [3]

    def server(request):
        if left[0]:
            left[0] -= 1
            if isinstance(failure, Exception):
                raise failure
            return httpx.Response(failure, headers={"retry-after": "7"})
        return answer('{"tags":["red"]}')

    held, waits = tagger(server)
    assert held.tag(PRODUCTS[:1])[0].names == ("red",)
    assert len(waits) == 3
    if isinstance(failure, int):
        assert min(waits) >= 7
    else:
        assert waits[2] > waits[0] / 3


def test_a_dead_endpoint_is_one_clear_error():
    calls = []

    def server(request):
        calls.append(1)
        raise httpx.ConnectError("connection refused")

    with pytest.raises(
        EngineError, match=r"http://shop.test/v1/chat/completions: failed 6 times .*refused.*running"
    ):
        tagger(server)[0].tag(PRODUCTS[:1])
    assert len(calls) == NUM_ATTEMPTS


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_not_tried_again(status):
    held, waits = tagger(lambda request: httpx.Response(status, text="no such model"))
    with pytest.raises(EngineError, match=f"{status} for model 'm'.*check address, model and key"):
        held.tag(PRODUCTS)
    assert waits == []


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx.Response(400, text="context length exceeded"), "400 context length"),
        (httpx.Response(200, text="<html>"), "not a chat completion"),
        (httpx.Response(200, json={"choices": []}), "not a chat completion"),
        (httpx.Response(200, json=[]), "not a chat completion"),
    ],
)
def test_a_bad_response_is_the_error_of_its_product(response, reason):
    tagging = tagger(lambda request: response, constrained=False)[0].tag(PRODUCTS[:1])[0]
    assert tagging.status == "error"
    assert reason in tagging.reason
