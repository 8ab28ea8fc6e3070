"""The vocabulary of Debtags: stanzas `Facet: role` and `Tag: role::program`, each with a `Description:`.

The first line of a description is the name, the lines below it tell more. The tag (`role::program`) is the id.
"""

from __future__ import annotations

from collections.abc import Iterator

from hangtag.taxonomies.concepts import Concept, Taxonomy


def read_debtags(text: str) -> Taxonomy:
    """Return the tags; their facets have Debtags' own names."""
    taxonomy = Taxonomy()
    for line, fields in _stanzas(text):
        tag = fields.get("tag")
        if tag is None:
            if "facet" not in fields:
                taxonomy.pass_over("stanzas without `Tag` or `Facet`", f"line {line}")
            continue
        facet, _, rest = tag.partition("::")
        name, _, more = fields.get("description", "").partition("\n")
        taxonomy.add(Concept(tag, name or rest, id=tag, facet=facet, description=more, where=f"line {line}"))
    return taxonomy


def _stanzas(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield first line and fields of each stanza; names in small letters, lines that go on joined by breaks."""
    fields: dict[str, str] = {}
    start, name = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield start, fields
            fields, name = {}, ""
        elif line[0] in " \t":
            # A lone full stop stands for an empty line.
            if name and line.strip() != ".":
                fields[name] += "\n" + line.strip()
        else:
            start = start if fields else number
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
