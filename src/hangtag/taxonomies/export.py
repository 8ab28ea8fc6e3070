"""A vocabulary as SKOS (Turtle) or as a table of tags."""

from __future__ import annotations

import csv
import io
import re
from typing import Any, Literal, get_args
from urllib.parse import quote

from hangtag.errors import MissingExtra
from hangtag.recognition import CSV_COLUMNS
from hangtag.taxonomies.skos import FACET_URI, NAME_URI, POSITION_URI, TAG_URI
from hangtag.vocabulary import PATH_SEPARATOR, FacetLimits, Tag, TagVocabulary

Target = Literal["skos", "csv"]
TARGETS: tuple[Target, ...] = get_args(Target)
_LANGUAGE = re.compile(r"[A-Za-z]+(?:-[A-Za-z0-9]+)*")
_URI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|urn:)[^\s<>\"{}|\\^`]+")


def exported(vocabulary: TagVocabulary, target: Target) -> tuple[str, list[str]]:
    """Return a vocabulary's text in another format, and a line on each thing that has no place there.

    Raises:
        MissingExtra: SKOS without rdflib.
    """
    lost = []
    if any(limits != FacetLimits() for limits in vocabulary.facets.values()):
        lost.append("limits of facets")
    if target == "skos":
        if any(tag.count is not None for tag in vocabulary):
            lost.append("counts")
        if any(not _LANGUAGE.fullmatch(language) for tag in vocabulary for language in tag.labels):
            lost.append("names under what is no language tag")
    lines = [f"{', '.join(lost)} have no place in {target} and are left out"] if lost else []
    return (_skos(vocabulary) if target == "skos" else _csv(vocabulary)), lines


def _csv(vocabulary: TagVocabulary) -> str:
    languages = sorted({language for tag in vocabulary for language in tag.labels})
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*CSV_COLUMNS, *(f"label_{language}" for language in languages)])
    for tag in vocabulary:
        row = {
            "tag": tag.tag,
            "id": tag.id,
            "facet": tag.facet,
            "parent": tag.parent,
            "path": PATH_SEPARATOR.join(vocabulary.path(tag.tag)),
            "aliases": "|".join(alias.replace("|", r"\|") for alias in tag.aliases),
            "description": tag.description,
            "count": tag.count,
        }
        writer.writerow([row[name] for name in CSV_COLUMNS] + [tag.labels.get(language) for language in languages])
    return stream.getvalue()


def _skos(vocabulary: TagVocabulary) -> str:
    try:
        from rdflib import Graph, Literal, URIRef
        from rdflib.namespace import DCTERMS, RDF, SKOS
    except ImportError:
        raise MissingExtra("rdflib", "files") from None
    graph = Graph(bind_namespaces="none")
    graph.bind("skos", SKOS)
    graph.bind("dcterms", DCTERMS)
    nodes = {tag.tag: URIRef(_address(tag)) for tag in vocabulary}
    for facet in filter(None, vocabulary.facet_names):
        scheme = URIRef(FACET_URI + quote(facet, safe=""))
        graph.add((scheme, RDF.type, SKOS.ConceptScheme))
        graph.add((scheme, SKOS.prefLabel, Literal(facet)))
    for position, tag in enumerate(vocabulary):
        label = vocabulary.path(tag.tag)[-1]
        said: list[tuple[Any, Any]] = [(RDF.type, SKOS.Concept), (URIRef(POSITION_URI), Literal(position))]
        labels = {language: name for language, name in tag.labels.items() if _LANGUAGE.fullmatch(language)}
        said += [(SKOS.prefLabel, Literal(name, lang=language)) for language, name in labels.items()]
        if label not in labels.values():
            said.append((SKOS.prefLabel, Literal(label)))
        said += [(SKOS.altLabel, Literal(alias)) for alias in tag.aliases if alias.casefold() != label.casefold()]
        if tag.parent:
            said.append((SKOS.broader, nodes[tag.parent]))
        if tag.facet:
            said.append((SKOS.inScheme, URIRef(FACET_URI + quote(tag.facet, safe=""))))
        if tag.description:
            said.append((SKOS.definition, Literal(tag.description)))
        if tag.id is not None and not _URI.fullmatch(tag.id):
            said.append((DCTERMS.identifier, Literal(tag.id)))
        for predicate, value in said:
            graph.add((nodes[tag.tag], predicate, value))
    text: str = graph.serialize(format="turtle")
    return text


def _address(tag: Tag) -> str:
    if tag.id is None:
        return NAME_URI + quote(tag.tag, safe="")
    return tag.id if _URI.fullmatch(tag.id) else TAG_URI + quote(tag.id, safe="")
