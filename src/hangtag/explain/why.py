"""Why a tagger gave the tags of a tagging: which explainers there are for it, and their answers as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hangtag.baselines.linear import LinearTagger
from hangtag.explain.linear import LinearExplainer
from hangtag.explain.spans import Explainer, Span
from hangtag.explain.words import WordExplainer
from hangtag.product import Product
from hangtag.tagging import Tagger, Tagging

SHOWN = 5
"""Spans of a tag that `why` gives."""


def explainer_for(tagger: Tagger) -> Explainer:
    """Return what explains a tagger: its own weights where it is linear, else the words that name its tags."""
    return LinearExplainer(tagger) if isinstance(tagger, LinearTagger) else WordExplainer(tagger.vocabulary)


def why(explainer: Explainer, product: Product, tagging: Tagging) -> dict[str, tuple[Span, ...]]:
    """Return the spans that speak most for, or against, each tag of a tagging: at most `SHOWN`, largest first."""
    spans = explainer.explain(product, tagging.names)
    most = {name: sorted(found, key=lambda span: -abs(span.contribution))[:SHOWN] for name, found in spans.items()}
    return {name: tuple(sorted(found, key=lambda span: -span.contribution)) for name, found in most.items()}


def plain(spans: dict[str, tuple[Span, ...]]) -> dict[str, list[dict[str, Any]]]:
    """Return the same as JSON takes it."""
    return {name: [asdict(span) for span in found] for name, found in spans.items()}
