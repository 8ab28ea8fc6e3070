"""Label Studio's labelling configuration: `<Taxonomy>` and `<Choices>` with their `<Choice>` elements.

A control's name becomes a facet; `choice="single"` (the default) allows one tag of it, `required="true"` asks for
one. A choice's alias is what annotations carry, so it is the tag's id.
"""

from __future__ import annotations

from typing import Any

from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.taxonomies.markup import parse_xml
from hangtag.vocabulary import FacetLimits


def read_label_studio(data: bytes, source: str) -> Taxonomy:
    """Return the choices of all controls.

    Raises:
        VocabularyError: it is no XML, or has a document type.
    """
    taxonomy = Taxonomy()
    root = parse_xml(data, source)
    for control in root.iter("Taxonomy", "Choices"):
        facet = control.get("name", "")
        if control.get("apiUrl") or control.get("value"):
            taxonomy.pass_over("controls that take their choices from elsewhere", f"{facet!r}")
        _walk(control, facet, [], taxonomy)
        is_single = control.tag == "Choices" and control.get("choice", "single") != "multiple"
        least = int(control.get("required", "false").lower() == "true")
        taxonomy.facets[facet] = FacetLimits(min=least, max=1 if is_single else None)
    return taxonomy


def _walk(element: Any, facet: str, above: list[str], taxonomy: Taxonomy) -> None:
    for choice in element.iterchildren("Choice"):
        label = choice.get("value", "")
        path = [*above, label]
        taxonomy.add(
            Concept(
                "\0".join([facet, *path]),
                label,
                id=choice.get("alias") or None,
                facet=facet,
                parents=["\0".join([facet, *above])] if above else [],
                description=choice.get("hint", ""),
                where=f"line {choice.sourceline}",
            )
        )
        _walk(choice, facet, path, taxonomy)
