"""GS1 Global Product Classification in XML: segment, family, class, brick, and attributes with values.

`<segment code="50000000" text="Food/Beverage" definition="…" active="true">`, families, classes and bricks nested
in it, `<attType>` with `<attValue>` in a brick. An attribute becomes a facet, its values tags.
"""

from __future__ import annotations

from typing import Any

from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.taxonomies.markup import parse_xml

_LEVELS = ("segment", "family", "class", "brick")


def read_gpc(data: bytes, source: str) -> Taxonomy:
    """Return the tree of bricks and the values of attributes; ids are codes.

    A value is one tag however many bricks list it; inactive entries are left out.

    Raises:
        VocabularyError: it is no XML, or has a document type.
    """
    taxonomy = Taxonomy()
    _walk(parse_xml(data, source), [], taxonomy)
    return taxonomy


def _walk(element: Any, parents: list[str], taxonomy: Taxonomy) -> None:
    for child in element:
        name = str(child.tag).rpartition("}")[2]
        if name not in (*_LEVELS, "attType"):
            _walk(child, parents, taxonomy)
        elif child.get("active", "true").lower() == "false":
            taxonomy.pass_over("inactive entries", _where(child))
        elif name == "attType":
            _add_values(child, taxonomy)
        else:
            code = child.get("code", "")
            taxonomy.add(
                Concept(
                    code,
                    child.get("text", ""),
                    id=code or None,
                    parents=parents,
                    description=child.get("definition", ""),
                    where=_where(child),
                )
            )
            _walk(child, [code], taxonomy)


def _add_values(attribute: Any, taxonomy: Taxonomy) -> None:
    facet, kind = attribute.get("text", ""), attribute.get("code", "")
    for value in attribute:
        code = value.get("code", "")
        key = f"{kind}\0{code}"
        if value.get("active", "true").lower() == "false":
            taxonomy.pass_over("inactive entries", _where(value))
        elif key not in taxonomy.concepts:
            # Codes of values such as UNCLASSIFIED stand under many attributes.
            description = value.get("definition", "")
            concept = Concept(key, value.get("text", ""), f"{kind}/{code}", facet, description=description)
            concept.where = _where(value)
            taxonomy.add(concept)


def _where(element: Any) -> str:
    return f"line {element.sourceline}"
