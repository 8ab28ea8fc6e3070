"""From concepts to a vocabulary: one parent each, no cycle, unique names, clean aliases; changes are said."""

from __future__ import annotations

from collections.abc import Sequence

from hangtag.errors import VocabularyError
from hangtag.product import normalise_text
from hangtag.taxonomies.concepts import Concept, Taxonomy
from hangtag.taxonomies.unique_names import folded, unique_names
from hangtag.vocabulary import PATH_SEPARATOR, Tag, TagVocabulary


def to_vocabulary(taxonomy: Taxonomy, source: str) -> tuple[TagVocabulary, list[str]]:
    """Return the vocabulary of a taxonomy's concepts, in their order, and a line on each thing that was changed.

    Raises:
        VocabularyError: no concept is left.
    """
    lines = list(taxonomy.notes)
    concepts = _named(taxonomy)
    if not concepts:
        raise VocabularyError(f"{source}: no tag in it; {'; '.join(_passed_over(taxonomy)) or 'it is empty'}")
    lines += _passed_over(taxonomy)
    lines += _drop_repeated_ids(concepts)
    parent_of, said = _one_parent(concepts, taxonomy.parent_order)
    lines += said + _break_cycles(concepts, parent_of)
    lines += _tell_same_paths_apart(concepts, parent_of)
    paths = [_path(concept, concepts, parent_of) for concept in concepts.values()]
    names = unique_names(paths)
    longer = [name for name, path in zip(names, paths, strict=True) if name != path[-1]]
    if longer:
        lines.append(f"names that occur twice, told apart by their paths: {len(longer)} (such as {longer[0]!r})")
    name_of = dict(zip(concepts, names, strict=True))
    taken = {name.casefold() for name in names}
    tags = [
        _tag(concept, name_of[key], name_of.get(parent_of.get(key, "")), taken)
        for key, concept in concepts.items()
    ]
    held = {tag.facet for tag in tags}
    facets = {name: limits for name, limits in taxonomy.facets.items() if name in held}
    return TagVocabulary(tags, facets=facets, source=source), lines


def _tag(concept: Concept, name: str, parent: str | None, taken: set[str]) -> Tag:
    aliases: dict[str, str] = {}
    if name != concept.label and concept.label.casefold() not in taken:
        # The plain name of one that grew is what a text says.
        aliases[concept.label.casefold()] = concept.label
    for alias in map(normalise_text, concept.aliases):
        if alias and alias.casefold() not in (name.casefold(), concept.label.casefold()):
            aliases.setdefault(alias.casefold(), alias)
    return Tag(
        tag=name,
        facet=concept.facet,
        parent=parent,
        aliases=tuple(aliases.values()),
        description=normalise_text(concept.description),
        count=concept.count,
        id=concept.id,
        labels={language: normalise_text(label) for language, label in concept.labels.items() if label.strip()},
    )


def _named(taxonomy: Taxonomy) -> dict[str, Concept]:
    for concept in taxonomy:
        concept.label = normalise_text(concept.label)
        if not concept.label:
            taxonomy.pass_over("entries without a name", concept.where)
    return {concept.key: concept for concept in taxonomy if concept.label}


def _passed_over(taxonomy: Taxonomy) -> list[str]:
    return [
        f"left out: {reason}: {len(places)} (first: {places[0]})"
        for reason, places in taxonomy.passed_over.items()
    ]


def _drop_repeated_ids(concepts: dict[str, Concept]) -> list[str]:
    holders: dict[str, Concept] = {}
    repeated = []
    for concept in concepts.values():
        if concept.id is not None and holders.setdefault(concept.id, concept) is not concept:
            repeated.append(concept)
    if not repeated:
        return []
    first = repeated[0]
    line = f"tags with the id of another, which they lose: {len(repeated)} (first: {first.id!r}, {first.where})"
    for concept in repeated:
        concept.id = None
    return [line]


def _one_parent(concepts: dict[str, Concept], order: str) -> tuple[dict[str, str], list[str]]:
    """Return the first known parent of each concept that has one, and what was left out."""
    parent_of: dict[str, str] = {}
    several, unknown = [], []
    for key, concept in concepts.items():
        known = [parent for parent in dict.fromkeys(concept.parents) if parent in concepts]
        unknown += [parent for parent in concept.parents if parent not in concepts]
        if known:
            parent_of[key] = known[0]
        if len(known) > 1:
            several.append(len(known) - 1)
    lines = []
    if several:
        lines.append(
            f"tags with more than one parent: {len(several)}; the first is kept ({order}), "
            f"the others ({sum(several)}) are left out"
        )
    if unknown:
        lines.append(f"parents that are not among the tags, left out: {len(unknown)} (first: {unknown[0]})")
    return parent_of, lines


def _break_cycles(concepts: dict[str, Concept], parent_of: dict[str, str]) -> list[str]:
    """Take the parent from one concept of each cycle, the first in order; return a line on it."""
    broken: list[Sequence[str]] = []
    done: set[str] = set()
    order = {key: number for number, key in enumerate(concepts)}
    for start in concepts:
        chain: dict[str, None] = {}
        key: str | None = start
        while key is not None and key not in done and key not in chain:
            chain[key] = None
            key = parent_of.get(key)
        if key is not None and key in chain:
            cycle = list(chain)[list(chain).index(key) :]
            first = min(cycle, key=order.__getitem__)
            place = cycle.index(first)
            broken.append([*cycle[place:], *cycle[:place], first])
            del parent_of[first]
        done.update(chain)
    if not broken:
        return []
    loop = " -> ".join(concepts[key].label for key in broken[0])
    return [f"cycles of parents, broken at their first tag: {len(broken)} (first: {loop})"]


def _tell_same_paths_apart(concepts: dict[str, Concept], parent_of: dict[str, str]) -> list[str]:
    """Add id or number to the name of each concept whose whole path an earlier one has; return a line on it."""
    depths = {key: len(_path(concept, concepts, parent_of)) for key, concept in concepts.items()}
    taken: set[str] = set()
    renamed = []
    # Parents first: what stands below one that was renamed has a path of its own.
    for concept in sorted(concepts.values(), key=lambda concept: depths[concept.key]):
        label, number = concept.label, 1
        while (path := folded(PATH_SEPARATOR.join(_path(concept, concepts, parent_of)))) in taken:
            number += 1
            concept.label = f"{label} ({_short(concept.id) if concept.id and number == 2 else number})"
        taken.add(path)
        if concept.label != label:
            renamed.append(concept.label)
    if not renamed:
        return []
    line = f"names that occur twice on one path, told apart by an id or a number: {len(renamed)}"
    return [f"{line} (first: {renamed[0]!r})"]


def _short(id: str) -> str:
    """Return the last part of an id: what stands after a URI's last slash or hash."""
    return id.rstrip("/#").replace("#", "/").rsplit("/", 1)[-1]


def _path(concept: Concept, concepts: dict[str, Concept], parent_of: dict[str, str]) -> tuple[str, ...]:
    labels = [concept.label]
    key = parent_of.get(concept.key)
    while key is not None:
        labels.append(concepts[key].label)
        key = parent_of.get(key)
    return (*([concept.facet] if concept.facet else []), *reversed(labels))
