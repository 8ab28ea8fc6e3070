"""The real server on the sample vocabulary and SmolLM2: clients, routes, keys, fuzz, dropped clients, load, end.

One server serves all tests, in any order; another one starts where the test that ends it is not the last.
`HANGTAG_FULL=1` takes the full numbers (10,000 fuzzed requests, 200 dropped clients) in place of the small ones.
"""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from fuzzed import random_request
from live_server import KEY, LiveServer, metric
from pydantic import Field, create_model

from hangtag import TagVocabulary, load_dataset
from hangtag.constraint import Limits, parse_answer
from hangtag.endpoint.openapi import ROUTES
from hangtag.endpoint.vocabularies import PromptOnlyEngine, load_tokenizer
from hangtag.loading import load_tagger
from hangtag.models import resolve_model
from hangtag.product import Product
from hangtag.sample import sample_folder
from hangtag.tagging import to_answer
from serve import server

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

_LARGEST_BODY = 8 << 20
IS_FULL = bool(os.environ.get("HANGTAG_FULL"))
AUTH = {"authorization": f"Bearer {KEY}"}
OTHER_KEY = "other-key-other-key"
VOCABULARY = Path(sample_folder()) / "vocabulary.json"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ask_endpoint.py"
TEXT = "Red canvas sneakers, vegan, for running"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(f"tests {KEY}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def running(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], LiveServer]]:
    """The server that all tests share; a new one where a test has ended it."""
    pytest.importorskip("vllm")
    small = tmp_path_factory.mktemp("small") / "small.txt"
    small.write_text("red\nblue\nshoes\n杯\n", encoding="utf-8")
    started: list[LiveServer] = []

    def server() -> LiveServer:
        if not started or started[-1].process.poll() is not None:
            started.append(LiveServer(
                "--vocabulary", f"sample={VOCABULARY}", "--vocabulary", f"small={small}", "--keys", str(keys),
                "--dtype", "float32", "--max-num-seqs", "16", "--max-in-flight", "24", "--timeout", "100",
                "--allow-own-formats",
            ))  # fmt: skip
        return started[-1]

    yield server
    if started:
        started[-1].stop()


@pytest.fixture
def live(running: Callable[[], LiveServer]) -> LiveServer:
    return running()


@pytest.fixture
def url(live: LiveServer) -> str:
    return live.wait_until_ready()


@pytest.fixture(scope="module")
def sample() -> TagVocabulary:
    return TagVocabulary.from_path(VOCABULARY)


def assert_healthy(url: str) -> None:
    assert httpx.get(f"{url}/health").status_code == 200
    response = httpx.post(f"{url}/v1/tag", json={"products": [TEXT]}, headers=AUTH, timeout=60)
    assert response.json()["taggings"][0]["status"] == "ok"


def wait_until_idle(url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "hangtag_products_in_flight")
        if not sum(metric(url, name) for name in names):
            return
        time.sleep(0.2)
    raise AssertionError("requests are still worked on")


class TestClients:
    def test_curl_as_the_ready_line_says(self, live: LiveServer, url: str, sample: TagVocabulary) -> None:
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        command = "".join(live.out).split("try\n")[1]
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, env=os.environ | {"HANGTAG_KEY": KEY}, check=True
        )
        content = json.loads(done.stdout)["choices"][0]["message"]["content"]
        assert parse_answer(content, sample).is_correct_set

    def test_openai_s_client(self, url: str, sample: TagVocabulary) -> None:
        import openai

        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        assert [model.id for model in client.models.list()] == ["hangtag", "hangtag-smollm2-135m"]
        messages: Any = [{"role": "user", "content": TEXT}]
        whole = client.chat.completions.create(model="hangtag", messages=messages, logprobs=True, top_logprobs=2)
        text = whole.choices[0].message.content or ""
        answer = parse_answer(text, sample)
        assert answer.is_correct_set
        assert text == to_answer(answer.tags)
        assert whole.choices[0].finish_reason == "stop"
        tokens = whole.choices[0].logprobs.content
        assert "".join(token.token for token in tokens) == text
        assert all(token.logprob <= 0 for token in tokens)
        stream = client.chat.completions.create(
            model="hangtag", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
        completion = client.completions.create(model="hangtag", prompt=[TEXT, "茶"], logprobs=1)
        assert completion.choices[0].text == text
        small = client.chat.completions.create(
            model="hangtag", messages=messages,
            extra_body={"vllm_xargs": {"hangtag": "small", "hangtag_min_tags": 2, "hangtag_max_tags": 2}},
        )  # fmt: skip
        assert len(json.loads(small.choices[0].message.content or "")["tags"]) == 2
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
        with pytest.raises(openai.NotFoundError, match="expected one of hangtag"):
            client.chat.completions.create(model="gpt-4", messages=messages)
        with pytest.raises(openai.BadRequestError, match="size"):
            client.chat.completions.create(
                model="hangtag", messages=messages, extra_body={"vllm_xargs": {"hangtag_only_facets": ["size"]}}
            )

    def test_the_example_script(
        self, url: str, sample: TagVocabulary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("HANGTAG_KEY", KEY)
        runpy.run_path(str(EXAMPLE))["main"](f"{url}/v1")
        plain, labels = capsys.readouterr().out.splitlines()
        assert parse_answer(plain, sample).is_correct_set
        assert parse_answer(to_answer(ast.literal_eval(labels)), sample, limits=Limits(max_tags=2)).is_correct_set

    def test_langchain_s_client(self, url: str, sample: TagVocabulary) -> None:
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="hangtag", max_retries=0)  # type: ignore[arg-type]
        whole = model.invoke(TEXT)
        assert parse_answer(str(whole.content), sample).is_correct_set
        assert "".join(str(chunk.content) for chunk in model.stream(TEXT)) == whole.content

    def test_models_of_pydantic_get_the_plain_answer_s_tags(self, url: str, sample: TagVocabulary) -> None:
        """`parse` of openai, whole and streamed, and langchain's structured output; then one facet as an enum."""
        import openai
        from langchain_openai import ChatOpenAI

        labels = create_model("Labels", labels=(list[str], ...))
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        messages: Any = [{"role": "user", "content": TEXT}]
        plain = client.chat.completions.create(model="hangtag", messages=messages)
        tags = json.loads(plain.choices[0].message.content or "")["tags"]
        assert tags
        parsed = client.chat.completions.parse(model="hangtag", messages=messages, response_format=labels)
        assert parsed.choices[0].message.parsed == labels(labels=tags)
        assert parsed.usage == plain.usage
        with client.chat.completions.stream(model="hangtag", messages=messages, response_format=labels) as stream:
            assert stream.get_final_completion().choices[0].message.parsed == labels(labels=tags)
        model = ChatOpenAI(base_url=f"{url}/v1", api_key=KEY, model="hangtag", max_retries=0)  # type: ignore[arg-type]
        assert model.with_structured_output(labels).invoke(TEXT) == labels(labels=tags)
        facet = sample.facet_names[0]
        names = tuple(tag.tag for tag in sample.tags if tag.facet == facet)
        one = create_model("One", tags=(Annotated[list[Literal[names]], Field(min_length=1, max_length=1)], ...))  # type: ignore[valid-type]
        found = client.chat.completions.parse(model="hangtag", messages=messages, response_format=one)
        [tag] = json.loads(found.choices[0].message.content or "")["tags"]
        assert tag in names

    def test_v1_tag_gives_what_offline_tagging_gives(self, url: str, sample: TagVocabulary) -> None:
        """The reference is transformers with the same prompts and limits."""
        products = load_dataset(sample_folder()).test[:4]
        rows = [product.model_dump(exclude={"tags"}) for product in products]
        response = httpx.post(f"{url}/v1/tag", json={"products": [*rows, {}]}, headers=AUTH, timeout=100)
        *taggings, failed = response.json()["taggings"]
        assert failed["status"] == "error"
        tagger = load_tagger(sample, "smollm2-135m", engine="transformers")
        for tagging, expected in zip(taggings, tagger.tag(products), strict=True):
            assert tagging["id"] == expected.id
            assert [tag["tag"] for tag in tagging["tags"]] == list(expected.names)
            for tag, other in zip(tagging["tags"], expected.tags, strict=True):
                assert tag["confidence"] == pytest.approx(other.confidence, abs=1e-3)

    def test_an_own_response_format_works_as_in_vllm(self, url: str) -> None:
        schema = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
        body = {
            "model": "hangtag", "max_tokens": 24, "temperature": 0,
            "messages": [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "42"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "size", "schema": schema}},
        }  # fmt: skip
        response = httpx.post(f"{url}/v1/chat/completions", json=body, headers=AUTH, timeout=60)
        assert response.json()["choices"][0]["message"]["content"].lstrip().startswith("{")

    def test_a_seed_cannot_end_the_engine(self, url: str) -> None:
        messages = [{"role": "user", "content": "x " * 900}]
        for body in ({}, {"response_format": {"type": "text"}, "max_tokens": 4}):
            body |= {"messages": messages, "seed": 1, "temperature": 1.0}
            response = httpx.post(f"{url}/v1/chat/completions", json=body, headers=AUTH)
            assert response.status_code == 400
        assert_healthy(url)


def test_no_product_text_becomes_a_control_token() -> None:
    """Every added token of the real tokenizer, as product text, leaves the prompt's control tokens as they are."""
    tokenizer = load_tokenizer(resolve_model("smollm2-135m"))
    engine = PromptOnlyEngine("m", tokenizer, 4096)
    tagger = load_tagger(TagVocabulary.from_json(["red"]), engine, limits=Limits(max_tags=1))
    added = set(tokenizer.get_added_vocab().values())
    assert len(added) > 10

    def control(text: str) -> list[int]:
        product = Product(id="1", title=text, description=text, attributes={text: text})
        [ids] = tagger.prompt_ids([product])
        assert not isinstance(ids, str)
        return [token for token in ids if token in added]

    for text in tokenizer.get_added_vocab():
        assert control(f"a{text}b") == control("ab"), text


class TestRoutes:
    def test_only_documented_routes_answer(self, url: str) -> None:
        """Every route that vLLM registers, for whatever task, with no key, a wrong one and the right one."""
        routes = vllm_routes()
        assert {"/invocations", "/tokenize", "/pause", "/v1/responses", "/metrics"} <= {path for _, path in routes}
        opened = set()
        with httpx.Client(base_url=url, timeout=60) as client:
            for method, path in sorted(routes | set(ROUTES)):
                concrete = re.sub(r"\{[^}]*\}", "x", path)
                statuses = [
                    client.request(method, concrete, json={}, headers=headers).status_code
                    for headers in ({}, {"authorization": "Bearer wrong-key-wrong-key"}, AUTH)
                ]
                if (method, path) == ("GET", "/health"):
                    assert statuses == [200, 200, 200]
                    opened.add((method, path))
                    continue
                assert statuses[:2] == [401, 401], (method, path)
                if statuses[2] not in (404, 405):
                    opened.add((method, path))
        assert opened == set(ROUTES)

    def test_sighup_reads_the_keys_again(self, live: LiveServer, url: str, keys: Path) -> None:
        def status(key: str) -> int:
            return httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}).status_code

        def reload(text: str, said: str) -> None:
            keys.write_text(text, encoding="utf-8")
            live.process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 20
            while said not in "".join(live.lines) and time.monotonic() < until:
                time.sleep(0.1)
            assert said in "".join(live.lines)
            time.sleep(0.5)

        assert status(OTHER_KEY) == 401
        reload(f"tests {KEY}\nother {OTHER_KEY}\n", "2 keys are in force")
        assert status(OTHER_KEY) == status(KEY) == 200
        reload("broken\n", "the keys stay as they are")
        assert status(OTHER_KEY) == 200
        reload(f"tests {KEY}\n", "1 keys are in force")
        assert status(OTHER_KEY) == 401


def vllm_routes() -> set[tuple[str, str]]:
    """Return (method, path) of all that the installed vLLM would register, for any kind of model."""
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    found: set[tuple[str, str]] = set()
    root_level = logging.getLogger().level
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        for task in ("generate", "render", "embed", "classify", "score", "transcription", "realtime"):
            try:
                app = build_app(arguments, (task,))  # type: ignore[arg-type]
            except (ImportError, AttributeError):
                # Some kinds want a model's configuration; their routes come with the others.
                continue
            finally:
                # The app silences the warnings of the whole process, which other tests listen for.
                logging.getLogger().setLevel(root_level)
            for route in app.routes:
                path = str(getattr(route, "path", ""))
                methods = getattr(route, "methods", None) or ("GET", "POST")
                found |= {(method, path) for method in methods if method != "HEAD"}
    return found


class TestAbuse:
    def test_fuzzed_requests_do_no_harm(self, live: LiveServer, url: str) -> None:
        draw = random.Random(7)
        num_requests = 10_000 if IS_FULL else 300

        async def run() -> list[int]:
            places = asyncio.Semaphore(16)
            async with httpx.AsyncClient(base_url=url, timeout=110, headers=AUTH) as client:

                async def one(request: dict[str, Any]) -> int:
                    async with places:
                        try:
                            response = await client.request(**request)
                        except httpx.TransportError as error:
                            if len(request.get("content", b"")) > _LARGEST_BODY:
                                # Refused while it was still being sent, the connection may end under the client.
                                return 413
                            raise AssertionError((repr(error), str(request)[:600], live.lines[-5:])) from None
                        # Under load a request may be told to wait; that it is well-formed is still checked.
                        assert response.status_code < 500, (response.text[:300], str(request)[:600])
                        return response.status_code

                return await asyncio.gather(*(one(random_request(draw)) for _ in range(num_requests)))

        statuses = asyncio.run(run())
        print({status: statuses.count(status) for status in sorted(set(statuses))})
        assert {200, 400, 404} <= set(statuses)
        wait_until_idle(url)
        assert_healthy(url)
        assert live.process.poll() is None

    def test_dropped_clients_leak_nothing_and_harm_nobody(self, url: str) -> None:
        num_clients = 200 if IS_FULL else 24
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}], "stream": True}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}),
            ("/v1/tag", {"products": [TEXT] * 4}),
        ]

        async def run() -> list[int]:
            async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=110) as staying:

                async def leave(number: int) -> None:
                    path, body = bodies[number % len(bodies)]
                    async with httpx.AsyncClient(base_url=url, headers=AUTH) as client:
                        wait = 0.02 + 0.3 * random.Random(number).random()
                        with pytest.raises((TimeoutError, httpx.HTTPError)):
                            async with asyncio.timeout(wait):
                                async with client.stream("POST", path, json=body) as response:
                                    async for _ in response.aiter_bytes():
                                        await asyncio.sleep(0.02)
                                raise TimeoutError

                async def stay() -> int:
                    while True:
                        response = await staying.post("/v1/tag", json={"products": [TEXT]})
                        if response.status_code != 429:
                            return response.status_code
                        await asyncio.sleep(0.3)

                stays = [asyncio.create_task(stay()) for _ in range(4)]
                for start in range(0, num_clients, 12):
                    await asyncio.gather(*(leave(number) for number in range(start, start + 12)))
                return await asyncio.gather(*stays)

        assert asyncio.run(run()) == [200] * 4
        wait_until_idle(url)
        assert_healthy(url)


def test_requests_are_logged_and_product_text_is_not(live: LiveServer, url: str) -> None:
    assert_healthy(url)
    time.sleep(0.5)
    said = "".join(live.lines)
    assert re.search(r"INFO POST /v1/tag 200 \d+ ms tests", said)
    for text in (TEXT, "HACKED", KEY, "DROP TABLE"):
        assert text not in said


class TestLoad:
    def test_overload_is_shed_and_leaves_no_trace(self, url: str) -> None:
        """Far more than may wait comes at once: a part is shed with a time to come back, the rest is answered."""
        num_at_once = 24 * (20 if IS_FULL else 4)

        async def one(client: httpx.AsyncClient) -> int:
            response = await client.post("/v1/tag", json={"products": [TEXT]})
            assert response.status_code != 429 or int(response.headers["retry-after"]) >= 1
            return response.status_code

        async def run() -> None:
            limits = httpx.Limits(max_connections=num_at_once)
            async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=110, limits=limits) as client:
                statuses = await asyncio.gather(*(one(client) for _ in range(num_at_once)))
                after = await asyncio.gather(*(one(client) for _ in range(16)))
            assert set(statuses) == {200, 429}
            assert statuses.count(200) >= 24
            assert set(after) == {200}

        asyncio.run(run())
        wait_until_idle(url)

    def test_sigterm_under_load_loses_no_accepted_request(self, live: LiveServer, url: str) -> None:
        async def run() -> list[int]:
            async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=110) as client:
                answered: list[int] = []

                async def one() -> None:
                    while True:
                        try:
                            response = await client.post("/v1/tag", json={"products": [TEXT] * 2})
                        except httpx.ConnectError:
                            return
                        except httpx.HTTPError as error:
                            # A connection that was idle may be closed before the request is read; after that
                            # an answer must come.
                            assert isinstance(error, httpx.RemoteProtocolError | httpx.ReadError), error
                            assert "without sending" in str(error) or not str(error)
                            return
                        answered.append(response.status_code)
                        if response.status_code == 503:
                            return

                tasks = [asyncio.create_task(one()) for _ in range(12)]
                await asyncio.sleep(2)
                in_flight = metric(url, "vllm:num_requests_running")
                live.process.send_signal(signal.SIGTERM)
                await asyncio.gather(*tasks)
                assert in_flight > 0
                return answered

        answered = asyncio.run(run())
        assert set(answered) <= {200, 503}
        assert answered.count(503) >= 10
        assert live.process.wait(60) == 0
        assert "not answered" not in "".join(live.lines)


class TestStarts:
    """What cannot start says so in one line."""

    @pytest.fixture(autouse=True)
    def _no_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VLLM_API_KEY", raising=False)

    def test_a_flag_that_vllm_does_not_know(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("vllm")
        arguments = ["--vocabulary", str(VOCABULARY), "--port", "0", "--no-such-flag"]
        assert server.main(arguments) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("serve.server: vLLM did not start: ")
        assert "no-such-flag" in line

    def test_a_port_in_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert server.main(["--vocabulary", str(VOCABULARY), "--port", port]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert f"127.0.0.1:{port}: cannot listen there" in line

    def test_no_memory(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
        assert server.main(["--vocabulary", str(VOCABULARY), "--port", "0"]) == 1
        assert "GiB are needed" in capsys.readouterr().err.splitlines()[-1]
