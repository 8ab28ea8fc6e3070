"""Rows of a review queue, and a reviewer without a browser."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

HOSTILE = (
    "</mark><script>document.title='hit'</script><img src=x onerror=alert(1)>\" onmouseover=\"alert(2) {{7*7}}"
)


def queue_rows(number: int) -> list[dict[str, Any]]:
    """Return rows of a queue, the least sure first; the first has a hostile title."""
    rows = []
    for n in range(number):
        rows.append(
            {
                "id": f"p{n}",
                "confidence": n / 1000,
                "title": f"Crimson running shoes {n}" if n else f"Crimson {HOSTILE} shoes",
                "description": "A blue shoe, not waterproof.",
                "attributes": {"colour": "red", "site": "https://example.org/x"},
                "tags": ["red", "shoes"],
                "confidences": [n / 1000, 0.8],
                "status": "ok",
                "reason": None,
                "decision": "",
                "new_tags": "",
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Reviewer:
    """One person at a desk, through ASGI, with cookies."""

    def __init__(self, app: Any, host: str = "127.0.0.1:8321") -> None:
        self._app, self._host = app, host
        self._cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, *, headers: dict[str, str] | None = None, **form: Any) -> httpx.Response:
        """Send a request; follows no redirect. A form's field may be a list."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            url = f"http://{self._host}"
            async with httpx.AsyncClient(transport=transport, base_url=url, cookies=self._cookies) as client:
                content = urlencode(form, doseq=True).encode() if method == "POST" else None
                return await client.request(method, path, content=content, headers=headers)

        response = asyncio.run(send())
        self._cookies.update(response.cookies)
        return response

    def login(self, name: str = "ada", token: str = "") -> httpx.Response:
        return self.ask("POST", "/login", name=name, token=token)

    def page(self, path: str = "/") -> str:
        response = self.ask("GET", path)
        assert response.status_code == 200, response.status_code
        return response.text

    def decide(self, page: str, action: str = "save", **more: Any) -> httpx.Response:
        """Send what a page's form would, as it stands."""
        fields = dict(re.findall(r'name="(form_token|position|order|facet)" value="([^"]*)"', page))
        tags = re.findall(r'name="tag" value="([^"]*)" checked', page)
        return self.ask("POST", "/decide", **({**fields, "action": action, "tag": tags, "seconds": "2500"} | more))

    def undo(self, page: str) -> httpx.Response:
        [form_token] = set(re.findall(r'name="form_token" value="([^"]*)"', page))
        return self.ask("POST", "/undo", form_token=form_token, order="least")
