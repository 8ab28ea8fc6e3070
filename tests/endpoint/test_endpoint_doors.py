"""What keeps the endpoint closed: routes, keys, rates, load, bodies, time, drain; and what it tells and logs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_vllm import EXTRA_ROUTES, Shop

from hangtag import TagVocabulary
from hangtag.endpoint.app import Endpoint, log_to_stderr
from hangtag.endpoint.asgi import Refusal
from hangtag.endpoint.control import DRAIN, Control, num_in_flight
from hangtag.endpoint.doors import KeyEntry, Keyring, Load, RateLimit, load_keys, read_key_file
from hangtag.endpoint.masking import mask_contacts, masker
from hangtag.endpoint.openapi import ROUTES
from hangtag.errors import MissingExtra, RecipeError

KEY = "a-long-enough-key"
AUTH = {"authorization": f"Bearer {KEY}"}
TAG = {"products": ["Red shoes"]}


def entry(name: str = "app", key: str = KEY, rate: float | None = None) -> KeyEntry:
    return KeyEntry(name=name, digest=hashlib.sha256(key.encode()).hexdigest(), rate=rate)


@pytest.fixture
def locked(vocabulary: TagVocabulary) -> Shop:
    return Shop(vocabulary, keys=[entry()])


class TestRoutes:
    def test_only_documented_routes_answer(self, locked: Shop) -> None:
        for path in (
            *EXTRA_ROUTES,
            "/",
            "/v1",
            "/v1/tag/",
            "//v1/tag",
            "/V1/tag",
            "/metrics/x",
            "/health/",
            "/v2",
        ):
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"):
                assert locked.ask(method, path, headers=AUTH).status_code == 404, (method, path)
        assert locked.vllm.paths == []
        for method, path in ROUTES:
            other = "POST" if method == "GET" else "GET"
            assert locked.ask(other, path, headers=AUTH).status_code == 405
            assert locked.ask("OPTIONS", path, headers=AUTH).status_code == 405

    def test_everything_but_health_needs_the_key(self, locked: Shop) -> None:
        assert locked.ask("GET", "/health").status_code == 200
        wrong = [
            "",
            "Bearer",
            "Bearer wrong-key-of-some-length",
            f"Basic {KEY}",
            KEY,
            f"bearer{KEY}",
        ]
        for method, path in [*ROUTES, ("GET", "/tokenize"), ("POST", "/nothing")]:
            if path == "/health":
                continue
            for value in wrong:
                response = locked.ask(method, path, headers={"authorization": value} if value else {}, json=TAG)
                assert response.status_code == 401, (path, value)
                assert response.headers["www-authenticate"] == "Bearer"
        assert set(locked.vllm.paths) == {"/health"}
        assert locked.sample("hangtag_rejected_requests_total", reason="key") > 10

    def test_the_right_key_opens_them(self, locked: Shop) -> None:
        for path in ("/metrics", "/docs", "/openapi.json", "/v1/models"):
            assert locked.ask("GET", path, headers=AUTH).status_code == 200
        assert locked.post("/v1/tag", TAG, **AUTH).status_code == 200
        assert locked.post("/v1/tag", TAG, authorization=f"bearer  {KEY} ").status_code == 200

    def test_headers_of_the_client_do_not_reach_vllm(self, vocabulary: TagVocabulary) -> None:
        seen: list[dict[bytes, bytes]] = []
        shop = Shop(vocabulary)
        inner = shop.vllm

        async def spy(scope: Any, receive: Any, send: Any) -> None:
            seen.append(dict(scope["headers"]))
            await inner(scope, receive, send)

        shop.app = Endpoint(spy, shop.serving)
        headers = {"x-data-parallel-rank": "3", "authorization": "Bearer x", "x-request-id": "7"}
        assert shop.post("/v1/tag", TAG, **headers).status_code == 200
        assert {b"content-type", b"content-length", b"host", b"x-request-id"} == set(seen[0])

    def test_a_path_prefix_of_the_app_is_taken_off(self, locked: Shop) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        scope = {"type": "http", "method": "GET", "path": "/x/tokenize", "root_path": "/x", "headers": []}
        asyncio.run(locked.app(scope, receive, send))
        assert sent[0]["status"] == 401
        scope["headers"] = [(b"authorization", f"Bearer {KEY}".encode())]
        asyncio.run(locked.app(scope, receive, send))
        assert [message["status"] for message in sent if "status" in message] == [401, 404]

    def test_websockets_are_closed(self, locked: Shop) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        asyncio.run(locked.app({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send))
        assert [message["type"] for message in sent] == ["websocket.close"]

    def test_the_description_names_every_route(self, locked: Shop) -> None:
        document = locked.ask("GET", "/openapi.json", headers=AUTH).json()
        assert {(m.upper(), path) for path, item in document["paths"].items() for m in item} == set(ROUTES)
        assert document["security"] == [{"key": []}]
        page = locked.ask("GET", "/docs", headers=AUTH)
        assert "<script" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert all(path in page.text for _, path in ROUTES)


class TestKeys:
    def test_a_file_names_clients_keys_and_rates(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"# keys\napp {KEY}\n\njob another-long-key-1 600 # nightly\n", encoding="utf-8")
        entries = read_key_file(path)
        assert [(one.name, one.rate) for one in entries] == [("app", None), ("job", 600)]
        assert KEY not in repr(entries)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no keys"),
            ("app", r"keys:1: expected NAME KEY"),
            ("app short", "at least 16"),
            ("app schlüssel-schlüssel", "ASCII"),
            (f"a/b {KEY}", "expected NAME KEY"),
            (f"app {KEY} fast", "products a minute"),
            (f"app {KEY} -1", "products a minute"),
            (f"app {KEY} nan", "products a minute"),
            (f"app {KEY}\napp other-key-other-key", "keys:2: the name or the key of app"),
            (f"app {KEY}\njob {KEY}", "twice"),
            (f"app {KEY} 1 2", "expected NAME KEY"),
        ],
    )
    def test_a_wrong_file_is_refused_without_showing_a_key(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "keys"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecipeError, match=message) as caught:
            read_key_file(path)
        assert KEY not in str(caught.value)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="No such file"):
            read_key_file(tmp_path / "keys")

    def test_every_key_is_compared_and_its_client_found(self) -> None:
        ring = Keyring([entry("a", "key-number-one-aa"), entry("b", "key-number-two-bb")])
        assert ring.identify(b"Bearer key-number-two-bb").name == "b"
        assert Keyring(None).identify(None).name == ""
        with pytest.raises(Refusal):
            Keyring([]).identify(b"Bearer key-number-two-bb")

    def test_new_keys_come_into_force_and_keep_what_was_used_up(self, tmp_path: Path) -> None:
        now = [0.0]
        ring = Keyring([entry(rate=60)], lambda: now[0])
        limit = ring.identify(f"Bearer {KEY}".encode()).limit
        assert limit is not None
        limit.take(61)
        control = Control(tmp_path, replace_keys=ring.replace, num_requests=lambda: 0)
        (tmp_path / "keys.json").write_text(
            json.dumps([entry(rate=60).model_dump(), entry("b", "bbb").model_dump()])
        )
        control.look()
        assert ring.identify(b"Bearer bbb").name == "b"
        assert ring.identify(f"Bearer {KEY}".encode()).limit is limit
        (tmp_path / "keys.json").write_text("broken, and longer")
        control.look()
        assert ring.identify(b"Bearer bbb").name == "b"
        with pytest.raises(RecipeError):
            load_keys(tmp_path / "keys.json")


class TestRates:
    def test_a_bucket_fills_by_the_minute_and_allows_a_debt(self) -> None:
        now = [0.0]
        limit = RateLimit(60, lambda: now[0])
        limit.take(10)
        limit.take(80)
        with pytest.raises(Refusal) as caught:
            limit.take(1)
        assert caught.value.status == 429
        assert caught.value.retry_after_s == 31
        now[0] = 31
        limit.take(1)
        with pytest.raises(Refusal):
            limit.take(1)

    def test_each_key_has_its_own(self, vocabulary: TagVocabulary) -> None:
        shop = Shop(vocabulary, keys=[entry(rate=2), entry("other", "other-key-other-key")])
        assert shop.post("/v1/tag", {"products": ["a", "b", "c"]}, **AUTH).status_code == 200
        response = shop.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}, **AUTH)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "rate"
        assert shop.post("/v1/tag", TAG, authorization="Bearer other-key-other-key").status_code == 200


class TestLoad:
    def test_one_place_admits_a_whole_call_and_the_wait_follows_the_pace(self) -> None:
        now = [0.0]
        load = Load(4, lambda: now[0])
        load.enter(3)
        load.enter(20)
        with pytest.raises(Refusal) as caught:
            load.enter(1)
        assert caught.value.retry_after_s == 1
        for now[0] in (1.0, 2.0):
            load.leave(1)
        with pytest.raises(Refusal) as caught:
            load.enter(1)
        assert 1 < (caught.value.retry_after_s or 0) <= 60

    def test_beyond_it_requests_get_429_and_the_others_their_answer(self, vocabulary: TagVocabulary) -> None:
        shop = Shop(vocabulary, delay_s=0.002, max_in_flight=3)

        async def run() -> list[httpx.Response]:
            async with shop.client() as client:
                return await asyncio.gather(*(client.post("/v1/tag", json=TAG) for _ in range(12)))

        statuses = [response.status_code for response in asyncio.run(run())]
        assert statuses.count(200) == 3
        assert statuses.count(429) == 9
        assert shop.serving.load.num_products == 0
        assert shop.sample("hangtag_rejected_requests_total", reason="load") == 9
        assert shop.post("/v1/tag", TAG).status_code == 200

    def test_a_large_call_works_on_a_few_products_at_once(self, vocabulary: TagVocabulary) -> None:
        shop = Shop(vocabulary, delay_s=0.0005, max_parallel=5)
        response = shop.post("/v1/tag", {"products": [f"Shoe {number}" for number in range(30)]})
        assert [tagging["id"] for tagging in response.json()["taggings"]] == [str(number) for number in range(30)]
        assert shop.vllm.most_running == 5


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 400),
            (b"{", 400),
            (b"[]", 400),
            (b"null", 400),
            (b"\x00" * 50, 400),
            (b'{"products": ["\xff"]}', 400),
            (b'{"products": [' * 50_000, 400),
            (b'{"products": ["x"], "threshold": NaN}', 400),
            (b'{"products": ["x"], "max_tags": ' + b"9" * 5000 + b"}", 400),
            (b'{"products": "x"}', 400),
            (b'{"products": ["x"], "max_tags": 1.5}', 400),
            (b'{"products": ["x"], "max_tags": "1"}', 400),
            (b'{"products": ["x"], "threshold": 2}', 400),
            (b'{"products": ["x"], "extra": 1}', 400),
            (b'{"products": ["x"], "\\ud800": 1}', 400),
            (b'{"products": ["x"], "vocabulary": "\\ud800"}', 400),
            (b'{"products": ["x"], "vocabulary": "nowhere"}', 400),
            (json.dumps({"products": ["x"] * 257}).encode(), 400),
            (b'{"products": ["' + b"x" * 2_000_000 + b'"]}', 413),
        ],
    )
    def test_a_wrong_body_is_refused(self, vocabulary: TagVocabulary, body: bytes, status: int) -> None:
        shop = Shop(vocabulary, max_body_bytes=1_000_000)
        response = shop.ask("POST", "/v1/tag", content=body, headers={"content-type": "application/json"})
        assert response.status_code == status
        assert response.json()["error"]["message"]
        assert shop.vllm.bodies == []
        assert shop.serving.num_requests == 0

    def test_a_body_without_length_is_counted_as_it_comes(self, vocabulary: TagVocabulary) -> None:
        shop = Shop(vocabulary, max_body_bytes=2000)

        async def parts() -> Any:
            for _ in range(10):
                yield b"x" * 500

        response = shop.ask("POST", "/v1/tag", content=parts(), headers={"content-type": "application/json"})
        assert response.status_code == 413
        for length in ("-1", "9" * 30, "1e3"):
            headers = {"content-type": "application/json", "content-length": length}
            assert shop.ask("POST", "/v1/tag", content=b"{}", headers=headers).status_code == 413

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    )
    def test_only_declared_json_is_read(self, vocabulary: TagVocabulary, kind: str) -> None:
        """A page of another site cannot make a browser send JSON without asking first."""
        response = Shop(vocabulary).ask("POST", "/v1/tag", content=b"{}", headers={"content-type": kind})
        assert response.status_code == 415


class Slow:
    """A request sent by hand: `gone` is set when its client goes away."""

    def __init__(self, shop: Shop, path: str, body: dict[str, Any]) -> None:
        self.gone = asyncio.Event()
        self.sent: list[Any] = []
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http", "method": "POST", "path": path, "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        self.task = asyncio.create_task(shop.app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


REQUESTS = [
    ("/v1/tag", TAG),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
]


class TestTime:
    @pytest.mark.parametrize(("path", "body"), REQUESTS)
    def test_a_client_that_goes_away_frees_the_engine(
        self, vocabulary: TagVocabulary, path: str, body: dict[str, Any]
    ) -> None:
        shop = Shop(vocabulary, delay_s=0.1)

        async def run() -> None:
            leaving, staying = Slow(shop, path, body), Slow(shop, path, body)
            async with asyncio.timeout(20):
                while shop.vllm.num_running < 2:
                    await asyncio.sleep(0.005)
            leaving.gone.set()
            await leaving.task
            assert shop.vllm.num_running == 1
            assert shop.vllm.num_cancelled == 1
            await staying.task
            assert staying.status == 200

        asyncio.run(run())
        assert shop.serving.num_requests == 0
        assert shop.serving.load.num_products == 0
        assert shop.sample("hangtag_rejected_requests_total", reason="disconnected") == 1

    @pytest.mark.parametrize(("path", "body"), REQUESTS)
    def test_what_takes_too_long_is_ended(
        self, vocabulary: TagVocabulary, path: str, body: dict[str, Any]
    ) -> None:
        shop = Shop(vocabulary, delay_s=0.4, timeout_s=0.5)
        response = shop.post(path, body)
        if body.get("stream"):
            assert '"code": "timeout"' in response.text
            assert response.text.endswith("data: [DONE]\n\n")
        else:
            assert response.status_code == 504
        assert shop.vllm.num_cancelled == 1
        assert shop.serving.load.num_products == 0

    def test_a_body_that_never_comes_is_given_up(self, vocabulary: TagVocabulary) -> None:
        shop = Shop(vocabulary, timeout_s=0.05)

        async def run() -> Slow:
            slow = Slow(shop, "/v1/tag", TAG)
            slow._body = None
            await slow.task
            return slow

        assert asyncio.run(run()).status == 504


class TestDrain:
    def test_what_is_there_is_served_and_what_comes_turned_away(
        self, vocabulary: TagVocabulary, tmp_path: Path
    ) -> None:
        shop = Shop(vocabulary, delay_s=0.05)
        serving = shop.serving
        serving.control = Control(tmp_path, replace_keys=lambda _: None, num_requests=lambda: serving.num_requests)

        async def run() -> None:
            there = Slow(shop, "/v1/tag", TAG)
            async with asyncio.timeout(20):
                while not shop.vllm.num_running:
                    await asyncio.sleep(0.001)
            assert num_in_flight(tmp_path) is None
            (tmp_path / DRAIN).touch()
            assert serving.control is not None
            serving.control.look()
            assert num_in_flight(tmp_path) == 1
            late = Slow(shop, "/v1/tag", TAG)
            await late.task
            assert late.status == 503
            assert (b"connection", b"close") in late.sent[0]["headers"]
            await there.task
            assert there.status == 200
            serving.control.look()
            assert num_in_flight(tmp_path) == 0

        asyncio.run(run())
        assert shop.ask("GET", "/health").status_code == 503

    def test_before_everything_is_loaded_nothing_answers(self, vocabulary: TagVocabulary) -> None:
        shop = Shop(vocabulary)
        shop.app = Endpoint(shop.vllm)
        for path in ("/health", "/v1/models"):
            assert shop.ask("GET", path).status_code == 503
        assert shop.vllm.paths == []

    def test_settings_that_cannot_be_read_stop_the_start(
        self, vocabulary: TagVocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hangtag.endpoint.app.log_to_stderr", lambda: None)
        for folder in (None, str(tmp_path)):
            if folder is None:
                monkeypatch.delenv("HANGTAG_ENDPOINT", raising=False)
            else:
                monkeypatch.setenv("HANGTAG_ENDPOINT", folder)
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            async def receive() -> Any:
                return {"type": "lifespan.startup"}

            asyncio.run(Endpoint(Shop(vocabulary).vllm)({"type": "lifespan"}, receive, send))
            assert sent[0]["type"] == "lifespan.startup.failed"
            assert "serve.server" in sent[0]["message"]

    def test_health_waits_for_the_warm_up(self, vocabulary: TagVocabulary, tmp_path: Path) -> None:
        shop = Shop(vocabulary)
        shop.serving.is_warm = False
        shop.serving.control = Control(tmp_path, replace_keys=lambda _: None, num_requests=lambda: 0)
        assert shop.ask("GET", "/health").status_code == 503
        messages = [{"type": "lifespan.startup"}]

        async def run() -> None:
            stop = asyncio.Event()

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                await stop.wait()
                return {"type": "lifespan.shutdown"}

            async def send(_: Any) -> None: ...

            life = asyncio.create_task(shop.app({"type": "lifespan"}, receive, send))
            async with shop.client() as client:
                while (await client.get("/health")).status_code != 200:
                    await asyncio.sleep(0.01)
            stop.set()
            await life

        asyncio.run(run())
        assert {body["vllm_xargs"]["hangtag"] for body in shop.vllm.bodies} == {"shop", "other"}
        assert shop.sample("hangtag_taggings_total", vocabulary="shop", status="ok") == 0


class TestLogs:
    TEXT = "Red shoes, mail jo.doe@shop.example, call +49 30 1234567"

    def ask_all(self, shop: Shop) -> None:
        assert shop.post("/v1/tag", {"products": [self.TEXT, {"id": self.TEXT}]}, **AUTH).status_code == 200
        messages = [{"role": "user", "content": self.TEXT}]
        assert shop.post("/v1/chat/completions", {"messages": messages}, **AUTH).status_code == 200
        assert shop.post("/v1/chat/completions", {"messages": messages, "n": 99}, **AUTH).status_code == 400
        assert shop.ask("GET", f"/{self.TEXT}", headers=AUTH).status_code == 404

    def test_product_text_and_keys_are_not_logged(self, locked: Shop, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self.ask_all(locked)
        own = [record.getMessage() for record in caplog.records if record.name.startswith("hangtag")]
        assert any("/v1/tag 200" in line and line.endswith(" app") for line in own)
        for line in own:
            assert "shoes" not in line
            assert KEY not in line

    def test_the_log_goes_to_stderr_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        logger = logging.getLogger("hangtag")
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "level", logging.NOTSET)
        for _ in range(2):
            log_to_stderr()
        assert len(logger.handlers) == 1
        assert logging.getLogger("hangtag.endpoint.app").isEnabledFor(logging.INFO)
        logger.setLevel(logging.NOTSET)

    def test_asked_for_it_is_masked(self, vocabulary: TagVocabulary, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.ask_all(Shop(vocabulary, keys=[entry()], log_products="masked"))
        lines = [record.getMessage() for record in caplog.records if "product" in record.getMessage()]
        assert any("Red shoes, mail [e-mail], call [phone]" in line for line in lines)
        assert not any("jo.doe" in line or "1234567" in line for line in lines)

    def test_an_error_of_ours_is_500_and_shows_no_text(
        self, vocabulary: TagVocabulary, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop = Shop(vocabulary)
        monkeypatch.setattr(shop.vocabularies, "choose", lambda _: 1 / 0)
        response = shop.post("/v1/tag", {"products": [self.TEXT]})
        assert response.status_code == 500
        assert "Zero" not in response.text
        assert "shoes" not in caplog.text
        assert shop.serving.load.num_products == 0

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            ("size 42, 100 cm x 200 cm, 1080p", "size 42, 100 cm x 200 cm, 1080p"),
            ("a.b+c@d-e.example.org!", "[e-mail]!"),
            ("tel 030/1234567", "tel [phone]"),
            ("(212) 555-0199 or 00441632960961", "[phone] or [phone]"),
        ],
    )
    def test_masks(self, text: str, masked: str) -> None:
        assert mask_contacts(text) == masked

    def test_presidio_is_named_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
        with pytest.raises(MissingExtra, match=r"hangtag\[presidio\]"):
            masker("presidio")
