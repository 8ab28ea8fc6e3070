"""The desk's pages: what they show, what they take, and whom they refuse."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from desk_reviewer import HOSTILE, Reviewer, queue_rows, write_rows

from hangtag import load_dataset
from hangtag.cli import main
from hangtag.desk.serving import listen
from hangtag.errors import DataError, RecipeError
from hangtag.sample import sample_folder

pytest.importorskip("starlette")


@pytest.fixture
def ada(out: Path, desk_of: Any) -> Reviewer:
    reviewer = Reviewer(desk_of(out).app)
    assert reviewer.login("ada").headers["location"] == "/"
    return reviewer


class Tags(HTMLParser):
    """Collects a page's elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_a_page_shows_the_product_with_evidence_tags_and_near_misses(ada: Reviewer) -> None:
    ada.decide(ada.page())
    page = ada.page()
    marks = dict(re.findall(r'<mark data-tags="([\d ]+)">([^<]*)</mark>', page))
    assert "Crimson" in page
    assert {"running shoes", "blue"} <= set(marks.values())
    boxes = re.findall(r'name="tag" value="([^"]*)"( checked)?', page)
    assert boxes[0] == ("red", " checked")
    assert {("shoes", " checked"), ("blue", ""), ("running shoes", "")} <= set(boxes)
    assert re.search(r'data-facet="colour" data-most="1"', page)
    assert "1 of 35" in page
    assert len(page.encode()) + sum(len(ada.page(f"/static/{name}")) for name in ("desk.css", "desk.js")) < 100_000


def test_a_hostile_title_is_text(ada: Reviewer) -> None:
    response = ada.ask("GET", "/")
    assert "<script>document" not in response.text
    assert "&lt;script&gt;" in response.text
    assert "{{7*7}}" in response.text
    elements = Tags(response.text).found
    assert [attributes["src"] for tag, attributes in elements if tag == "script"] == ["/static/desk.js"]
    assert not [tag for tag, _ in elements if tag == "img"]
    assert not [name for _, attributes in elements for name in attributes if name.startswith(("on", "style"))]
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert HOSTILE.split("<")[0] not in response.headers.values()


def test_no_page_or_file_names_another_host(ada: Reviewer) -> None:
    pages = [ada.page(), ada.page("/progress"), ada.page("/static/desk.css"), ada.page("/static/desk.js")]
    for page in pages:
        assert not re.findall(r"(?:src|href|action|url|import|fetch)\s*[=(]\s*[\"'`]?(?:https?:)?//", page)


def test_decisions_go_on_through_undo(ada: Reviewer, out: Path) -> None:
    first = ada.page()
    assert ada.decide(first).headers["location"] == "/?order=least"
    second = ada.page()
    assert ada.decide(second, tag=["blue", "running shoes"], comment="sole is blue").status_code == 303
    third = ada.page()
    back = ada.undo(third)
    assert back.headers["location"] == "/product/2?order=least"
    assert ada.page(back.headers["location"]) == ada.page()
    ada.decide(ada.page(), "none")
    ada.decide(ada.page(), "skip")
    rows = [json.loads(line) for line in ada.page("/export/jsonl").splitlines()]
    assert [(row["id"], row["decision"], row["new_tags"]) for row in rows] == [
        ("p0", "accept", ""),
        ("p1", "change", []),
        ("p2", "skip", ""),
    ]
    assert {row["reviewer"] for row in rows} == {"ada"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tag": ["red", "blue"]}, "2 tags of facet &#39;colour&#39;, which holds at most 1"),
        ({"tag": ["rod"]}, "did you mean &#39;red&#39;"),
        ({"tag": []}, "no tag is chosen"),
        ({"action": "drop"}, "neither save, none nor skip"),
    ],
)
def test_what_the_shop_forbids_is_not_kept(ada: Reviewer, fields: dict[str, Any], message: str) -> None:
    answer = ada.decide(ada.page(), **({"comment": "mine"} | fields))
    assert answer.status_code == 422
    assert message in answer.text
    assert ">mine</textarea>" in answer.text
    assert ada.page("/export/jsonl") == ""
    assert ada.decide(ada.page(), position="99").status_code == 404
    assert ada.decide(ada.page(), position="x").status_code == 404


def test_two_reviewers_get_different_products(out: Path, desk_of: Any) -> None:
    app = desk_of(out).app
    ada, ben = Reviewer(app), Reviewer(app)
    ada.login("ada")
    ben.login("ben")
    assert ada.page() == ada.page() != ben.page()
    for _ in range(3):
        ada.decide(ada.page())
        ben.decide(ben.page())
    rows = list(csv.DictReader(io.StringIO(ada.page("/export/csv"))))
    assert sorted(row["id"] for row in rows) == sorted({row["id"] for row in rows})
    assert [row["reviewer"] for row in rows] == ["ada", "ben"] * 3


def test_progress_says_how_good_and_how_alike(out: Path, desk_of: Any) -> None:
    app = desk_of(out, twice=1.0).app
    ada, ben = Reviewer(app), Reviewer(app)
    ada.login("ada")
    ben.login("ben")
    assert "not yet known" in ada.page("/progress")
    for number in range(4):
        ada.decide(ada.page("/?order=accepted"))
        ben.decide(ben.page("/?order=accepted"), **({"tag": ["blue"]} if number == 0 else {}))
    page = " ".join(re.sub(r"<[^>]+>", " ", ada.page("/progress")).split())
    assert "accepted without a look 4 1.000 [0.510, 1.000]" in page
    assert "two people decided: 3." in page or "two people decided: 4." in page
    assert "alpha: " in page
    assert "ada 4 2.5" in page


def test_tags_are_found_by_typing(ada: Reviewer) -> None:
    assert ada.ask("GET", "/tags?q=sho").json() == [
        {"tag": "shoes", "facet": "type", "most": 2},
        {"tag": "running shoes", "facet": "type", "most": 2},
    ]
    assert [tag["tag"] for tag in ada.ask("GET", "/tags?q=crim").json()] == ["red"]
    assert ada.ask("GET", "/tags?q=").json() == []


def test_strangers_are_sent_to_the_login(out: Path, desk_of: Any) -> None:
    app = desk_of(out, token="open sesame").app
    for path in ("/", "/product/1", "/progress", "/export/csv", "/tags?q=r"):
        assert Reviewer(app).ask("GET", path).headers["location"] == "/login"
    for path in ("/decide", "/undo"):
        assert Reviewer(app).ask("POST", path).headers["location"] == "/login"
    guest = Reviewer(app, host="desk.shop.test")
    assert guest.login("eve", "open").status_code == 403
    assert guest.login("\u202e", "open sesame").status_code == 422
    assert guest.login("x" * 41, "open sesame").status_code == 422
    response = guest.login("Eve Ö", "open sesame")
    assert response.status_code == 303
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Eve Ö" in guest.page()
    # A cookie of the same store under another token, or one with another name, opens nothing.
    assert _with_cookie(desk_of(out, token="new").app, guest).headers["location"] == "/login"
    guest._cookies = {name: "YmVu" + value[value.index(".") :] for name, value in guest._cookies.items()}
    assert guest.ask("GET", "/").headers["location"] == "/login"


def _with_cookie(app: Any, other: Reviewer) -> Any:
    stranger = Reviewer(app)
    stranger._cookies = dict(other._cookies)
    return stranger.ask("GET", "/")


def test_other_sites_cannot_send_forms(ada: Reviewer) -> None:
    page = ada.page()
    assert ada.decide(page, form_token="0" * 64).status_code == 403
    assert ada.decide(page, form_token="é").status_code == 403
    assert ada.decide(page, headers={"origin": "https://evil.test"}).status_code == 403
    assert ada.decide(page, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert ada.ask("POST", "/undo").status_code == 403
    assert ada.decide(page, comment="x" * 300_000).status_code == 413
    assert ada.page("/export/jsonl") == ""
    assert ada.decide(page, headers={"origin": "http://127.0.0.1:8321"}).status_code == 303
    assert ada.ask("GET", "/decide").status_code == 405


def test_without_a_token_only_names_of_this_machine_are_served(out: Path, desk_of: Any) -> None:
    app = desk_of(out).app
    for host in ("evil.test", "127.0.0.1.evil.test", "10.0.0.1:8321"):
        assert Reviewer(app, host).ask("GET", "/login").status_code == 421
    for host in ("localhost:8321", "[::1]:8321"):
        assert Reviewer(app, host).ask("GET", "/login").status_code == 200


def test_a_restart_keeps_logins_and_decisions(ada: Reviewer, out: Path, desk_of: Any) -> None:
    ada.decide(ada.page())
    again = Reviewer(desk_of(out).app)
    again._cookies = dict(ada._cookies)
    assert "1 of 35" in again.page()


@pytest.mark.parametrize("form", ["csv", "jsonl", "label-studio"])
def test_exports_come_back_as_labelled_data(ada: Reviewer, out: Path, tmp_path: Path, form: str) -> None:
    for number in range(8):
        page = ada.page()
        if number == 2:
            ada.decide(page, "skip")
        elif number == 3:
            ada.decide(page, "none")
        else:
            ada.decide(page, **({"tag": ["blue", "shoes", "running shoes"]} if number % 2 else {}))
    path = tmp_path / f"decisions.{'json' if form == 'label-studio' else form}"
    assert main(["review", "export", str(out), "--to", form, "--out", str(path)]) == 0
    assert path.read_bytes() == ada.ask("GET", f"/export/{form}").content
    vocabulary = str(out / "vocabulary.json")
    assert (
        main(["review", "import", str(path), "--out", str(tmp_path / "labels"), "--vocabulary", vocabulary]) == 0
    )
    data = load_dataset(tmp_path / "labels")
    got = {product.id: product.tags for product in (*data.train, *data.validation, *data.test)}
    assert sorted(got) == ["p0", "p1", "p3", "p4", "p5", "p6", "p7"]
    assert (got["p0"], got["p3"]) == (("red", "shoes"), ())
    assert set(got["p1"]) == {"blue", "shoes", "running shoes"}


def test_labels_are_reviewed_with_their_neighbours(desk_of: Any, tmp_path: Path) -> None:
    reviewer = Reviewer(desk_of(None, sample_folder(), store=tmp_path / "r.sqlite").app)
    reviewer.login()
    page = reviewer.page()
    assert "Nearest labelled products" in page
    assert reviewer.decide(page).status_code == 303


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("review.jsonl", "{", "no review queue"),
        ("review.jsonl", "{}", "row 1 is no row of a review queue"),
        ("review.csv", "id,title\n1,x\n", "row 1 is no row of a review queue"),
        ("other.csv", "", "no review.csv and no review.jsonl"),
    ],
)
def test_a_folder_without_a_queue_is_one_line(
    tmp_path: Path, shop_vocabulary: Any, desk_of: Any, name: str, text: str, message: str
) -> None:
    shop_vocabulary.save(tmp_path / "vocabulary.json")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        desk_of(tmp_path)


def test_options_are_refused_in_one_line(out: Path, desk_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match="lets other machines in: give --token"):
        listen("0.0.0.0", 0, token=None)
    with pytest.raises(RecipeError, match="expected a share"):
        desk_of(out, twice=2.0)
    with pytest.raises(RecipeError, match="nothing to review"):
        desk_of(None)
    assert main(["review", "export", str(out), "--out", str(out / "x.csv")]) == 2
    assert "no decisions" in capsys.readouterr().err


def test_a_changed_queue_keeps_what_was_decided(ada: Reviewer, out: Path, desk_of: Any) -> None:
    ada.decide(ada.page())
    write_rows(out / "review.jsonl", [*queue_rows(3), queue_rows(40)[39]])
    other = Reviewer(desk_of(out).app)
    other.login("ben")
    assert "1 of 9" in other.page()
