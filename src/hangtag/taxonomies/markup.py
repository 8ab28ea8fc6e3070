"""XML of strangers: parsed without a document type, so that no entity can grow or reach outside."""

from __future__ import annotations

import contextlib
from typing import Any

from hangtag.errors import MissingExtra, VocabularyError


def parse_xml(data: bytes, source: str) -> Any:
    """Return the root element.

    Raises:
        VocabularyError: it is no XML, or it has a document type.
        MissingExtra: lxml is not installed.
    """
    try:
        from lxml import etree
    except ImportError:
        raise MissingExtra("lxml", "files") from None
    refuse_document_type(data, source)
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, remove_comments=True)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise VocabularyError(f"{source}: not XML ({' '.join(str(error).split())})") from None


def refuse_document_type(data: bytes, source: str) -> None:
    """Refuse XML with a `<!DOCTYPE`; parses only up to its first element.

    Raises:
        VocabularyError: it has one.
    """
    from xml.parsers import expat

    found = []
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = lambda name, *_: found.append(name)

    def stop(*_: Any) -> None:
        raise StopIteration

    parser.StartElementHandler = stop
    parser.EntityDeclHandler = stop
    # What is no XML, or of an unknown encoding, is told by the parser that follows.
    with contextlib.suppress(StopIteration, expat.ExpatError, LookupError):
        parser.Parse(data, True)
    if found:
        raise VocabularyError(
            f"{source}: XML with a document type (<!DOCTYPE {found[0]}>), which can declare entities; "
            "remove it, or save the file without one"
        )
