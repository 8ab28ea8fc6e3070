"""Spans from words: where a text names a tag, an alias, a stem of them, or a tag below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hangtag.baselines.lexical import word_spans, words_of
from hangtag.evidence.fusion import Fusion
from hangtag.evidence.lexical import Find, LexicalSource
from hangtag.evidence.loading import WEIGHTS
from hangtag.explain.spans import TITLE, Kind, Span, fields_of
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

# The scores that a find sets: anywhere, and in the title too.
_SETS: Mapping[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "name": (("found", "overlap"), ("in_title", "title_overlap")),
    "stem": (("stem", "overlap"), ("title_overlap",)),
    "denied": (("denied",), ()),
    "below": (("child",), ("child_in_title",)),
}


class WordExplainer:
    """Says which words name a tag; a contribution is what the scores that a find sets weigh.

    The weights are the default ones of evidence from words alone, whatever gave the tag.
    """

    def __init__(self, vocabulary: TagVocabulary) -> None:
        """Collect the terms of a vocabulary."""
        self._vocabulary = vocabulary
        self._source = LexicalSource(vocabulary)
        self._weights = Fusion.read(WEIGHTS / "lexical.json").weights

    def explain(self, product: Product, names: Sequence[str]) -> dict[str, tuple[Span, ...]]:
        """See `Explainer.explain`; a tag that no word names has no spans."""
        fields = fields_of(product)
        words = [_places(text) for _, text in fields]
        found: dict[str, dict[tuple[str, int, int], Span]] = {name: {} for name in names}
        for find in self._source.finds(product):
            places = words[find.field]
            if not places:
                continue
            field, text = fields[find.field]
            start, end = places[find.start][1], places[find.end - 1][2]
            for name, kind in self._tags(find):
                if name in found:
                    span = Span(field, start, end, text[start:end], self._weigh(kind, field), kind)
                    before = found[name].get((field, start, end))
                    if before is None or before.kind == "stem":
                        found[name][field, start, end] = span
        return {
            name: tuple(sorted(spans.values(), key=lambda span: -span.contribution))
            for name, spans in found.items()
        }

    def _tags(self, find: Find) -> list[tuple[str, Kind]]:
        kind: Kind = "stem" if find.column == "stem" else "denied" if find.column == "denied" else "name"
        above = self._vocabulary.ancestors(find.tag) if kind == "name" else ()
        return [(find.tag, kind), *((name, "below") for name in above)]

    def _weigh(self, kind: Kind, field: str) -> float:
        anywhere, in_title = _SETS[kind]
        columns = (*anywhere, *in_title) if field == TITLE else anywhere
        return round(sum(self._weights[f"lexical.{column}"] for column in columns), 4)


def _places(text: str) -> list[tuple[str, int, int]]:
    """Return where a text's words stand; none where they cannot be told, see `word_spans`."""
    places = word_spans(text)
    return places if [word for word, _, _ in places] == words_of(text) else []
