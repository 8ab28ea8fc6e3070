"""The HTTP tagger against servers made of a function, and against the endpoint."""

import asyncio
import json
import threading
from collections import Counter
from itertools import count

import httpx
import pytest
from fake_vllm import Shop

from hangtag.constraint import Limits
from hangtag.errors import EngineError
from hangtag.product import Product
from hangtag.remote.http_client import NUM_ATTEMPTS, PRODUCTS_A_CALL, HttpTagger
from hangtag.vocabulary import FacetLimits, TagVocabulary

VOCABULARY = TagVocabulary.from_json(
    [{"tag": "red", "facet": "colour"}, {"tag": "blue", "facet": "colour"}, "shoes", "boots"]
).with_limits({"colour": FacetLimits(max=1)})
PRODUCTS = [Product(id=f"p{number}", title=f"red shoes {number}") for number in range(5)]


def answer(text, **extra):
    usage = {"prompt_tokens": 50, "completion_tokens": 7}
    return httpx.Response(200, json={"choices": [{"message": {"content": text}}], "usage": usage, **extra})


def tagger(server, *, knows_tag=False, **options):
    """A tagger before `server`, which knows no route /v1/tag unless said otherwise."""
    waits = []

    def answering(request):
        if request.url.path == "/v1/tag" and not knows_tag:
            return httpx.Response(404)
        return server(request)

    held = HttpTagger(
        VOCABULARY,
        url="http://shop.test/v1/",
        model="m",
        transport=httpx.MockTransport(answering),
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


@pytest.mark.parametrize(
    ("limits", "texts"),
    [
        (Limits(min_tags=2), ['{"tags":["red"]}', '{"tags":["red","shoes"]}']),
        (Limits(facets={"colour": FacetLimits(min=1)}), ['{"tags":["shoes"]}', '{"tags":["shoes","blue"]}']),
    ],
)
def test_the_limits_of_a_request_hold_where_the_server_knows_none(limits, texts):
    for text, status in zip(texts, ("unparsed", "ok"), strict=True):
        held, _ = tagger(lambda _, text=text: answer(text), limits=limits)
        assert held.tag(PRODUCTS[:1])[0].status == status


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
    with pytest.raises(EngineError, match=f"{status} .*no such model.*check"):
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


def test_a_constraint_at_a_vllm_with_the_plug_in_is_asked_for_by_name():
    seen = []

    def server(request):
        seen.append(json.loads(request.content))
        return answer('{"tags":["red"]}')

    held, _ = tagger(server, constraint="shop", limits=Limits(max_tags=3))
    assert held.tag(PRODUCTS[:1])[0].names == ("red",)
    assert seen[0]["vllm_xargs"] == {"hangtag": "shop", "hangtag_max_tags": 3}
    assert "response_format" not in seen[0]


def test_an_overloaded_server_is_waited_for_longer_than_a_failing_one():
    left = [NUM_ATTEMPTS * 3]

    def server(request):
        left[0] -= 1
        return httpx.Response(429) if left[0] > 0 else answer('{"tags":["red"]}')

    held, waits = tagger(server, concurrency=1)
    assert held.tag(PRODUCTS[:1])[0].names == ("red",)
    assert len(waits) == NUM_ATTEMPTS * 3 - 1
    held, waits = tagger(lambda request: httpx.Response(429, headers={"retry-after": "50"}), concurrency=1)
    with pytest.raises(EngineError, match="no room for"):
        held.tag(PRODUCTS[:1])
    assert 600 > sum(waits) > 400


def test_waits_are_spread_at_random():
    waits = set()
    for _ in range(20):
        held, these = tagger(lambda request: httpx.Response(503), concurrency=1)
        with pytest.raises(EngineError):
            held.tag(PRODUCTS[:1])
        waits.add(these[0])
    assert len(waits) > 15
    assert all(0.25 <= wait <= 0.75 for wait in waits)


def test_the_catalogue_is_read_only_a_little_ahead_and_the_threads_work_at_once():
    read, running, most = [], [0], [0]
    lock, number_of_request = threading.Lock(), count()
    both = threading.Barrier(2, timeout=20)

    def products():
        for number in range(1000):
            read.append(number)
            yield Product(id=str(number), title="red")

    def server(request):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if next(number_of_request) < 2:  # later ones may be alone
            both.wait()
        with lock:
            running[0] -= 1
        return answer('{"tags":["red"]}')

    stream = tagger(server, concurrency=2)[0].stream(products())
    assert [next(stream).id for _ in range(3)] == ["0", "1", "2"]
    assert len(read) <= 64
    stream.close()
    assert most[0] == 2


class Endpoint:
    """hangtag's endpoint without a model, with failures on the way: `trouble` by the number of the request."""

    def __init__(self, trouble=None, **options):
        self.shop = Shop(VOCABULARY, **options)
        self.trouble = trouble or {}
        self.num_requests = 0
        self.given = Counter()

    async def handle(self, request):
        self.num_requests += 1
        problem = self.trouble.get(self.num_requests)
        if isinstance(problem, Exception):
            if "after" in str(problem):
                await self.forward(request)
            raise problem
        if problem is not None:
            return httpx.Response(problem, headers={"retry-after": "0"})
        return await self.forward(request)

    async def forward(self, request):
        async with self.shop.client() as client:
            response = await client.request(
                request.method, str(request.url), content=request.content, headers=dict(request.headers)
            )
            return httpx.Response(response.status_code, content=response.content, headers=response.headers)

    def tagger(self, **options):
        waits = []
        held = HttpTagger(
            VOCABULARY,
            url="http://shop.test/v1",
            model="hangtag",
            transport=httpx.MockTransport(lambda request: asyncio.run(self.handle(request))),
            async_transport=httpx.MockTransport(self.handle),
            sleep=waits.append,
            **options,
        )
        return held, waits


MANY = [Product(id=f"p{number}", title=f"red shoes {number}") for number in range(5 * PRODUCTS_A_CALL + 3)]
TROUBLE = {
    1: 503,
    2: httpx.ReadTimeout("slow"),
    4: 429,
    5: httpx.ReadError("after the answer was made"),
    7: 500,
    8: httpx.ConnectError("refused"),
    9: httpx.RemoteProtocolError("after the answer was made"),
}


@pytest.mark.parametrize("trouble", [{}, TROUBLE])
def test_the_endpoint_is_asked_through_v1_tag_and_every_product_gets_one_tagging(trouble):
    endpoint = Endpoint(trouble)
    held, waits = endpoint.tagger(concurrency=3)
    taggings = held.tag(MANY)
    assert held.is_endpoint
    assert [tagging.id for tagging in taggings] == [product.id for product in MANY]
    assert all(tagging.status == "ok" for tagging in taggings)
    assert all(tag.confidence is not None for tagging in taggings for tag in tagging.tags)
    assert len(waits) == len(trouble)
    quiet, _ = Endpoint().tagger()
    assert [tagging.tags for tagging in quiet.tag(MANY)] == [tagging.tags for tagging in taggings]


def test_an_endpoint_that_answers_out_of_order_mislabels_nothing():
    endpoint = Endpoint()

    async def shuffled(request):
        response = await endpoint.handle(request)
        document = response.json()
        document["taggings"].reverse()
        return httpx.Response(response.status_code, json=document)

    endpoint_tagger, _ = endpoint.tagger()
    endpoint_tagger._client = httpx.Client(
        transport=httpx.MockTransport(lambda request: asyncio.run(shuffled(request)))
    )
    with pytest.raises(EngineError, match="got a tagging of 'p1', expected that of 'p0'"):
        endpoint_tagger.tag(MANY[:2])


def test_an_endpoint_may_clean_ids():
    held, _ = Endpoint().tagger()
    products = [Product(id=given, title="red shoes") for given in (" a  b ", "", "\t")]
    assert [tagging.id for tagging in held.tag(products)] == [product.id for product in products]


def test_event_loops_get_the_same():
    held, _ = Endpoint().tagger(concurrency=3)
    expected = held.tag(MANY)
    again, _ = Endpoint({4: 429, 5: httpx.ReadError("x")}).tagger(concurrency=3)
    assert asyncio.run(again.atag(MANY)) == expected

    async def some():
        found = []
        async for tagging in again.astream(iter(MANY)):
            found.append(tagging)
            if len(found) == 20:
                break
        return found

    assert asyncio.run(some()) == expected[:20]


def test_limits_and_vocabulary_are_asked_of_the_endpoint():
    held, _ = Endpoint().tagger(limits=Limits(1, 1, only_facets=frozenset({"colour"})))
    for tagging in held.tag(MANY[:5]):
        assert [tag.facet for tag in tagging.tags] == ["colour"]
    facets = {"colour": FacetLimits(min=2, max=2), "": FacetLimits(max=0)}
    held, _ = Endpoint().tagger(limits=Limits(facets=facets, with_parents=True))
    for tagging in held.tag(MANY[:5]):
        assert [tag.facet for tag in tagging.tags] == ["colour", "colour"]
    held, _ = Endpoint().tagger(served_vocabulary="other")
    with pytest.raises(EngineError, match="tags with the vocabulary"):
        held.tag(MANY[:5])
    held, _ = Endpoint().tagger(served_vocabulary="nowhere")
    assert "expected one of shop, other" in held.tag(MANY[:1])[0].reason


def test_free_text_is_never_asked_of_the_route():
    seen = []

    def server(request):
        seen.append(request.url.path)
        return answer('{"tags":["red"]}')

    tagger(server, knows_tag=True, constrained=False)[0].tag(PRODUCTS[:1])
    assert seen == ["/v1/chat/completions"]


def test_a_wrong_key_at_the_endpoint_is_told():
    held, waits = tagger(lambda request: httpx.Response(401), knows_tag=True)
    with pytest.raises(EngineError, match="401.*check the key"):
        held.tag(PRODUCTS)
    assert waits == []
