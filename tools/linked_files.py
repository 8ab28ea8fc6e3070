"""A hook of mkdocs: what a page links to outside docs/ comes into the site, under repository/.

Reports, tables and LOG.md stay where the programs write them, and links to them work on the site as they do in the
checkout. Pages that are taken in bring what they link to. A link to a file that is not there is left as it is, so
that mkdocs warns of it, which `--strict` makes an error.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS, TAKEN = "docs/", "repository/"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|/|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file of the repository that a page links to, directly or through another one."""
    waiting = [file.src_uri for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        text = (ROOT / _path(page)).read_text(encoding="utf-8")
        for path in {_target(page, link) for link in _LINK.findall(text)}:
            uri = _uri(path)
            is_here = not path.startswith((DOCS, "../")) and (ROOT / path).is_file()
            if is_here and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
                if uri.endswith(".md"):
                    waiting.append(uri)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the page's links to files of the repository at their places in the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        uri = _uri(_target(here, match[1]))
        return posixpath.relpath(uri, posixpath.dirname(here)) if files.get_file_from_path(uri) else match[1]

    return _LINK.sub(moved, markdown)


def _path(uri: str) -> str:
    """Return where a file of the site lies in the repository."""
    return uri.removeprefix(TAKEN) if uri.startswith(TAKEN) else DOCS + uri


def _uri(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    return path.removeprefix(DOCS) if path.startswith(DOCS) else TAKEN + path


def _target(page: str, link: str) -> str:
    """Return the path in the repository that a page's relative link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(_path(page)), link))
