"""The scripts in examples/ and the quickstart print what they say they print."""

from __future__ import annotations

import ast
import functools
import json
import re
import runpy
import shlex
from pathlib import Path

import httpx
import openai
import pytest
from fake_vllm import Shop

from hangtag import TagVocabulary
from hangtag.cli import main

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


def printed(name: str) -> list[str]:
    """Return the output that a script's docstring shows, after its last line that ends in a colon."""
    shown = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))) or ""
    return [line.strip() for line in shown.rpartition(":\n\n")[2].splitlines()]


@pytest.mark.parametrize("name", ["tag_catalogue.py", "score_tagging.py"])
def test_a_script_prints_what_it_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == printed(name)


class _Direct(httpx.BaseTransport):
    """Hands requests to the endpoint without a socket."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = dict(request.headers)
        answer = self._shop.ask(request.method, request.url.path, headers=headers, content=request.read())
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def test_the_endpoint_is_asked(
    vocabulary: TagVocabulary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = httpx.Client(transport=_Direct(Shop(vocabulary)))
    monkeypatch.setattr(openai, "OpenAI", functools.partial(openai.OpenAI, http_client=client, max_retries=0))
    runpy.run_path(str(EXAMPLES / "ask_endpoint.py"))["main"]("http://shop.test/v1")
    plain, labels = capsys.readouterr().out.splitlines()
    assert {*json.loads(plain)["tags"]} <= {tag.tag for tag in vocabulary.tags}
    assert len(ast.literal_eval(labels)) <= 2
    assert [line[:1] for line in printed("ask_endpoint.py")] == ["{", "["]


@pytest.mark.model
def test_products_are_tagged(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "tag_products.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    form = re.compile(r"(K-20\d) \(ok\): [a-z]+ [01]\.\d\d")
    assert [form.match(line)[1] for line in lines] == ["K-201", "K-202", "K-203"]  # type: ignore[index]
    assert all(form.match(line) for line in printed("tag_products.py"))


def test_the_quickstart_shows_what_its_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "out").mkdir()
    (tmp_path / "examples").symlink_to(EXAMPLES)
    build, lexical = (
        next(line for line in QUICKSTART.splitlines() if ".venv/bin/hangtag" in line and mark in line)
        for mark in ("vocabulary build", "--baseline lexical")
    )
    for command in (build, lexical):
        assert main(shlex.split(command)[1:]) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line[0] not in "┏┡├└┃"]
        assert len(lines) >= 5
        assert [line for line in lines if line not in QUICKSTART] == []


def test_the_quickstart_shows_the_shop_s_files() -> None:
    blocks = re.findall(r"(?:^    .*\n)+", QUICKSTART, re.MULTILINE)
    for name, head in (("products.csv", "sku,name,text,colour\nK-101"), ("tags.csv", "tag,facet,aliases")):
        lines = (EXAMPLES / "shop" / name).read_text(encoding="utf-8").splitlines()
        [shown] = [block for block in blocks if re.sub("^    ", "", block, flags=re.M).startswith(head)]
        assert {line.strip() for line in shown.splitlines()} <= {*lines}
