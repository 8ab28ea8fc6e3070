"""The desk as people use it: a real Chromium, by keyboard, through kills, at two widths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk_browser import BROWSER, NARROW, WIDE, LiveDesk, chromium, login

pytest.importorskip("starlette")
pytest.importorskip("playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium (apt-get install chromium)"),
    # Playwright leaves its own loop and pipes to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def desk(out: Path) -> Iterator[LiveDesk]:
    desk = LiveDesk(out)
    yield desk
    if desk.process.poll() is None:
        desk.close()


def press(page: Any, *keys: str) -> None:
    """Press keys, the last of which opens the next product."""
    for key in keys[:-1]:
        page.keyboard.press(key)
    with page.expect_navigation():
        page.keyboard.press(keys[-1])
    page.wait_for_selector("#decide, .single")


def decisions(page: Any) -> list[dict[str, Any]]:
    lines = page.request.get("/export/jsonl").text().splitlines()
    return [json.loads(line) for line in lines]


def shown(page: Any) -> str:
    return str(page.inner_text(".id")).split(" ")[0]


def test_twenty_products_by_keyboard_through_a_kill(browser: Any, desk: LiveDesk) -> None:
    page = login(browser, desk, "ada")
    ids = []
    for number in range(20):
        ids.append(shown(page))
        if number == 10:
            # Between two clicks: the page stays open, the server is gone and comes back.
            desk.kill()
            desk.start()
        if number % 4 == 0:
            press(page, "Enter")
        elif number % 4 == 1:
            press(page, "1", "Enter")
        elif number % 4 == 2:
            press(page, "0")
        else:
            press(page, "c", *"why", "Escape", "n")
    found = decisions(page)
    assert [row["id"] for row in found] == ids == [f"p{number}" for number in range(20)]
    assert [row["decision"] for row in found] == ["accept", "change", "change", "skip"] * 5
    assert [row["new_tags"] for row in found[:4]] == ["", ["shoes"], [], ""]
    assert {row["comment"] for row in found[3::4]} == {"why"}
    assert (page.foreign, page.errors) == ([], [])


def test_undo_by_key_brings_the_product_back(browser: Any, desk: LiveDesk) -> None:
    page = login(browser, desk, "ada")
    press(page, "Enter")
    press(page, "0")
    press(page, "u")
    assert shown(page) == "p1"
    press(page, "Enter")
    assert [(row["id"], row["decision"]) for row in decisions(page)] == [("p0", "accept"), ("p1", "accept")]


def test_limits_are_kept_as_one_types(browser: Any, desk: LiveDesk) -> None:
    page = login(browser, desk, "ada")
    press(page, "Enter")
    checked = "() => [...document.querySelectorAll('input:checked')].map(box => box.value)"
    # A facet of one: the new tag takes the place of the old one.
    page.keyboard.press("/")
    page.keyboard.type("blu", delay=20)
    page.wait_for_selector("#found li")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert sorted(page.evaluate(checked)) == ["blue", "shoes"]
    assert page.is_hidden("#found")
    page.keyboard.press("/")
    page.keyboard.type("waterp", delay=20)
    page.wait_for_selector("#found li")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    press(page, "Enter")
    assert set(decisions(page)[1]["new_tags"]) == {"blue", "shoes", "waterproof"}


def test_a_hostile_product_runs_nothing(browser: Any, desk: LiveDesk) -> None:
    page = login(browser, desk, "ada")
    assert "<script>document.title='hit'</script>" in page.inner_text("h1")
    assert page.title() != "hit"
    page.hover("h1")
    press(page, "Enter")
    assert (page.foreign, page.errors) == ([], [])


def test_two_reviewers_share_the_queue(browser: Any, desk: LiveDesk) -> None:
    ada, ben = login(browser, desk, "ada"), login(browser, desk, "ben")
    for _ in range(5):
        assert shown(ada) != shown(ben)
        press(ada, "Enter")
        press(ben, "Enter")
    rows = decisions(ada)
    assert sorted(row["id"] for row in rows) == sorted(f"p{number}" for number in range(10))
    assert [sum(row["reviewer"] == name for row in rows) for name in ("ada", "ben")] == [5, 5]


@pytest.mark.parametrize("viewport", [NARROW, WIDE])
def test_nothing_is_cut_off(browser: Any, desk: LiveDesk, viewport: dict[str, int]) -> None:
    page = login(browser, desk, "ada", viewport)
    for path in ("/", "/progress", "/login"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.goto("/")
    for button in page.query_selector_all(".actions button"):
        box = button.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= viewport["width"]


def test_every_control_has_a_name(browser: Any, desk: LiveDesk) -> None:
    """The rules of accessibility checkers that matter most here, without one of them."""
    page = login(browser, desk, "ada")
    for path in ("/", "/progress", "/login"):
        page.goto(path)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, meter')]
            .filter(one => !(one.labels && one.labels.length) && !one.textContent.trim()
                && !one.getAttribute('aria-label')).map(one => one.outerHTML)"""
        )
        assert nameless == []
        assert page.evaluate("document.documentElement.lang") == "en"
        assert page.evaluate("document.querySelectorAll('h1').length") == 1
        assert page.evaluate("document.querySelectorAll('main').length") == 1
