"""SKOS, read from Turtle, RDF/XML, N-Triples or JSON-LD through rdflib.

`prefLabel` is the name, `altLabel` and `hiddenLabel` are aliases, `broader` and the reverse of `narrower` are
parents, `notation`, `definition` and `scopeNote` make the description. The URI is the id. What `owl:deprecated`
marks is left out. Where concepts are in several schemes, a scheme is a facet.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from hangtag.errors import MissingExtra, VocabularyError
from hangtag.recognition import Format
from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.taxonomies.languages import NO_LANGUAGE, LanguageChoice, with_notation
from hangtag.taxonomies.markup import refuse_document_type

TAG_URI, NAME_URI = "urn:hangtag:tag:", "urn:hangtag:name:"
"""What an export puts before ids that are no addresses, and before names of tags without an id."""
FACET_URI, POSITION_URI = "urn:hangtag:facet:", "urn:hangtag:position"
"""What an export puts before the names of facets, and the property that holds a tag's place in the order."""

_PARSERS: dict[Format, str] = {"turtle": "turtle", "rdf-xml": "xml", "n-triples": "nt", "json-ld": "json-ld"}
_TEXTS = ("prefLabel", "altLabel", "hiddenLabel", "definition", "scopeNote", "notation")
Texts = dict[str, list[str]]


def read_skos(data: bytes, form: Format, choice: LanguageChoice, source: str) -> Taxonomy:
    """Return the concepts, ordered by address, or as they stood where hangtag exported them.

    Raises:
        VocabularyError: it cannot be parsed, holds no concept, or would reach outside.
        MissingExtra: rdflib is not installed.
    """
    try:
        from rdflib import URIRef
        from rdflib.namespace import DCTERMS, OWL, RDF, SKOS
    except ImportError:
        raise MissingExtra("rdflib", "files") from None
    graph = _parse(data, form, source)
    # One pass for each property: asking concept by concept takes three times as long.
    text = {name: _texts(graph, SKOS[name]) for name in _TEXTS}
    kinds = {kind: {*graph.subjects(RDF.type, SKOS[kind])} for kind in ("Concept", "ConceptScheme", "Collection")}
    found = kinds["Concept"] | ({*text["prefLabel"]} - kinds["ConceptScheme"] - kinds["Collection"])
    if not found:
        raise VocabularyError(f"{source}: no skos:Concept and no skos:prefLabel in it; expected SKOS")
    pairs = [*graph.subject_objects(SKOS.broader), *((c, p) for p, c in graph.subject_objects(SKOS.narrower))]
    parents: dict[Any, set[str]] = defaultdict(set)
    for child, parent in pairs:
        parents[child].add(str(parent))
    deprecated = {node for node, value in graph.subject_objects(OWL.deprecated) if str(value) in ("true", "1")}
    facet_of = _facets(graph.subject_objects(SKOS.inScheme), found, text["prefLabel"], choice)
    positions = {node: int(str(place)) for node, place in graph.subject_objects(URIRef(POSITION_URI))}
    own_ids = {node: str(value) for node, value in graph.subject_objects(DCTERMS.identifier)}
    taxonomy = Taxonomy(parent_order="by address")
    for node in sorted(found, key=lambda node: (positions.get(node, len(found)), str(node))):
        uri = str(node)
        if node in deprecated:
            taxonomy.pass_over("deprecated concepts", uri)
            continue
        concept = _concept(uri, {name: of_all.get(node, {}) for name, of_all in text.items()}, choice)
        concept.id = own_ids.get(node) if uri.startswith((TAG_URI, NAME_URI)) else uri
        concept.facet, concept.parents = facet_of.get(node, ""), sorted(parents[node])
        taxonomy.add(concept)
    return taxonomy


def _concept(uri: str, text: dict[str, Texts], choice: LanguageChoice) -> Concept:
    name, *more = choice.of(text["prefLabel"]) or [""]
    aliases = [*choice.matching(text["altLabel"]), *choice.matching(text["hiddenLabel"])]
    description = " ".join([*choice.matching(text["definition"]), *choice.matching(text["scopeNote"])])
    notation = " ".join(value for values in text["notation"].values() for value in values)
    return Concept(
        uri,
        name or notation,
        aliases=[*more, *aliases],
        description=with_notation(notation if name else "", description),
        labels={language: values[0] for language, values in sorted(text["prefLabel"].items()) if language},
        where=uri,
    )


def _parse(data: bytes, form: Format, source: str) -> Any:
    from rdflib import Graph

    if form == "rdf-xml":
        refuse_document_type(data, source)
    if form == "json-ld":
        _refuse_remote_contexts(data, source)
    graph = Graph(bind_namespaces="none")
    try:
        with warnings.catch_warnings():
            # rdflib 7's own parser of JSON-LD uses what rdflib has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            return graph.parse(data=data, format=_PARSERS[form])
    except Exception as error:  # rdflib's parsers share no exception
        reason = " ".join(" ".join(str(error).split("\n")[:2]).split())[:200]
        raise VocabularyError(f"{source}: not {form} ({reason or type(error).__name__})") from None


def _refuse_remote_contexts(data: bytes, source: str) -> None:
    """Refuse JSON-LD that rdflib would fetch something for. Raises VocabularyError: it would."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{source}: not JSON ({error})") from None
    for context in _contexts(document):
        for part in context if isinstance(context, list) else [context]:
            address = part.get("@import") if isinstance(part, dict) else part
            if isinstance(address, str):
                raise VocabularyError(
                    f"{source}: its @context is at {address}, which is not fetched; write it into the file"
                )


def _contexts(document: Any) -> Iterator[Any]:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "@context" in value:
                yield value["@context"]
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _texts(graph: Any, predicate: Any) -> dict[Any, Texts]:
    """Return the literals of a property by subject and language, each list sorted."""
    found: dict[Any, Texts] = {}
    for subject, value in graph.subject_objects(predicate):
        language = getattr(value, "language", None) or NO_LANGUAGE
        found.setdefault(subject, {}).setdefault(language, []).append(str(value))
    for texts in found.values():
        for same in texts.values():
            same.sort()
    return found


def _facets(
    members: Iterable[tuple[Any, Any]], concepts: set[Any], names: dict[Any, Texts], choice: LanguageChoice
) -> dict[Any, str]:
    """Return each concept's facet: its scheme's name, where there are several schemes or hangtag wrote them."""
    schemes: dict[Any, list[Any]] = defaultdict(list)
    for concept, scheme in members:
        if concept in concepts:
            schemes[scheme].append(concept)
    own = [scheme for scheme in schemes if str(scheme).startswith(FACET_URI)]
    facets = sorted(own or (schemes if len(schemes) > 1 else ()), key=str, reverse=True)
    found: dict[Any, str] = {}
    for scheme in facets:
        texts = names.get(scheme)
        name = texts[min(texts, key=choice.rank)][0] if texts else str(scheme)
        found |= dict.fromkeys(schemes[scheme], name)
    return found
