"""How a report writes single values: numbers, p, verdicts, answers, colours of a heat map."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import markupsafe


def significant(value: float | None) -> str:
    """Return a number with three significant digits, whole numbers without exponent.

    >>> significant(0.01234), significant(12345.6), significant(None)
    ('0.0123', '12,346', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def p_value(p: float | None) -> str:
    """Return `p = 0.034`, or `p < 0.01` where resampling cannot tell more.

    >>> p_value(0.034), p_value(0.002)
    ('p = 0.034', 'p < 0.01')
    """
    if p is None:
        return ""
    return "p < 0.01" if p < 0.01 else f"p = {p:.2g}"


def verdict(difference: Mapping[str, float | None]) -> str:
    """Return "better", "worse" or "not told apart", by whether the interval of a difference holds 0."""
    if difference["low"] is None or difference["high"] is None:
        return "not told apart"
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "not told apart"


def answer_text(answer: Mapping[str, Any]) -> str:
    """Return what an arm answered for one product."""
    if answer["status"] != "ok":
        return "no answer that could be read" if answer["status"] == "unparsed" else "failed"
    if "tags" not in answer:
        return "(not shown)"
    return ", ".join(answer["tags"]) or "no tag"


def shade(value: float | None) -> str:
    """Return the CSS colours of a heat map's cell for a value in [0, 1]: darker is higher, text stays legible.

    The text is white where that contrasts more with the cell than near-black does.
    Source: WCAG 2.2, relative luminance and contrast ratio.
    """
    if value is None:
        return "background:#f4f5f7;color:#4a525c"
    low, high = (247, 251, 255), (8, 64, 129)
    mixed = [round(a + (b - a) * value) for a, b in zip(low, high, strict=True)]
    parts = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in mixed]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    is_dark = 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.058
    return f"background:rgb({mixed[0]},{mixed[1]},{mixed[2]});color:{'#fff' if is_dark else '#14181d'}"


def breakable(name: str) -> markupsafe.Markup:
    """Return an arm's name as HTML in which a line may break before a colon, an underscore or a hyphen."""
    return markupsafe.Markup(re.sub(r"(?=[:_-])", "<wbr>", str(markupsafe.escape(name))))
