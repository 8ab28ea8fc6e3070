"""The site of docs/: every page is in the menu, every public name has its page, every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hangtag

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OTHER_HOST = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]+")


def pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]


def test_the_menu_lists_every_page_once() -> None:
    menu = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(menu) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_api_page_names_what_is_public() -> None:
    page = (DOCS / "api" / "hangtag.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\[`(\w+)`\]", page)) == hangtag.__all__


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the site's own settings and hook, one page in docs/ and a log beside it."""
    pytest.importorskip("material", reason="make docs installs it")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings |= {"nav": [{"Home": "index.md"}], "plugins": ["search"]}
    files = {
        "mkdocs.yml": yaml.safe_dump(settings),
        "tools/linked_files.py": (ROOT / "tools" / "linked_files.py").read_text(encoding="utf-8"),
        "docs/index.md": "# Home\n\n[The\nlog](../notes/log.md#first), [figures](../notes/figures.json)\n",
        "notes/log.md": "# Log\n\n## First\n\n[home](../docs/index.md#home), [plot](plots/a.svg)\n",
        "notes/figures.json": "{}",
        "notes/plots/a.svg": "<svg/>",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def build(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_what_pages_link_to_comes_into_the_site(checkout: Path) -> None:
    done = build(checkout)
    assert done.returncode == 0, done.stderr
    site = checkout / "build" / "site"
    home = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="repository/notes/log.html#first"' in home
    assert 'href="repository/notes/figures.json"' in home
    log = (site / "repository" / "notes" / "log.html").read_text(encoding="utf-8")
    assert 'href="../../index.html#home"' in log
    assert (site / "repository" / "notes" / "plots" / "a.svg").is_file()
    assert OTHER_HOST.findall(home + log) == []


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("docs/index.md", "../notes/lost.md"),
        ("docs/index.md", "lost.md"),
        ("docs/index.md", "../notes/log.md#lost"),
        ("notes/log.md", "lost.json"),
    ],
)
def test_a_dead_link_ends_the_build(checkout: Path, page: str, link: str) -> None:
    with (checkout / page).open("a", encoding="utf-8") as file:
        file.write(f"\n[dead]({link})\n")
    done = build(checkout)
    assert done.returncode == 1
    assert "lost" in done.stderr
