"""Fuzzed requests against the endpoint without a model: never a 5xx, never a hang, nothing left behind.

`HANGTAG_FULL=1` sends 10,000 requests in place of 1,000, and schemathesis's own number of examples in place of 30.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest
import schemathesis
from fake_vllm import Shop
from fuzzed import random_request
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi import checks as openapi_checks

from hangtag import TagVocabulary
from hangtag.endpoint.openapi import openapi_document

IS_FULL = bool(os.environ.get("HANGTAG_FULL"))
ALLOWED = {200, 400, 404, 405, 413, 415}


@pytest.mark.parametrize("allow_own_formats", [False, True])
def test_random_requests_do_no_harm(vocabulary: TagVocabulary, allow_own_formats: bool) -> None:
    shop = Shop(vocabulary, max_in_flight=1000, allow_own_formats=allow_own_formats)
    draw = random.Random(1)
    statuses: dict[int, int] = {}

    async def run() -> None:
        async with shop.client() as client:
            for _ in range(10_000 if IS_FULL else 1_000):
                request = random_request(draw)
                response = await asyncio.wait_for(client.request(**request), 10)
                assert response.status_code in ALLOWED, (response.text[:300], str(request)[:600])
                statuses[response.status_code] = statuses.get(response.status_code, 0) + 1

    asyncio.run(run())
    # Most of what is sent is wrong in some way, but all kinds of answers must have been seen.
    assert set(statuses) == ALLOWED
    assert statuses[200] > 100
    assert shop.serving.num_requests == shop.serving.load.num_products == shop.vllm.num_running == 0
    assert shop.post("/v1/tag", {"products": ["Red"]}).json()["taggings"][0]["status"] == "ok"


CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]
OPERATION = schemathesis.openapi.from_dict(openapi_document(needs_key=False))["/v1/tag"]["POST"]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_schemathesis_finds_v1_tag_as_it_is_described(vocabulary: TagVocabulary, mode: Any) -> None:
    """What conforms to the description is answered or refused as described; what does not is refused."""
    shop = Shop(vocabulary, max_in_flight=1000)

    @settings(
        max_examples=500 if IS_FULL else 30, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(case=OPERATION.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        arguments = case.as_transport_kwargs(base_url="http://shop.test")
        options = {
            name: arguments[name] for name in ("json", "headers", "params") if arguments.get(name) is not None
        }
        if arguments.get("data") is not None:
            options["content"] = arguments["data"]
        response = shop.ask(arguments["method"], arguments["url"], **options)
        case.validate_response(response, checks=CHECKS)

    check()
