"""Product text for logs, with what may point to a person masked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from hangtag.errors import MissingExtra

_EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
# Seven digits and more, as phone numbers are written: a plus, brackets, and single separators between digits.
_PHONE = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d(?:[ ./()-]{0,2}\d){6,14}(?!\w)")
_SHOWN = 300


def mask_contacts(text: str) -> str:
    """Return `text` with e-mail addresses and phone numbers replaced.

    Examples:
        >>> mask_contacts("ask jo@shop.example or +49 (30) 123-4567, size 42")
        'ask [e-mail] or [phone], size 42'
    """
    return _PHONE.sub("[phone]", _EMAIL.sub("[e-mail]", text))


def masker(kind: Literal["masked", "presidio"]) -> Callable[[str], str]:
    """Return what masks a text before it is logged; it also cuts it to 300 characters.

    "presidio" finds names, addresses and more beside contacts, with Presidio's own models.

    Raises:
        MissingExtra: Presidio is not installed.
    """
    if kind == "masked":
        return lambda text: mask_contacts(text)[:_SHOWN]
    try:
        from presidio_analyzer import AnalyzerEngine
        from presidio_anonymizer import AnonymizerEngine
    except ImportError:
        raise MissingExtra("presidio", "presidio") from None
    analyzer, anonymizer = AnalyzerEngine(), AnonymizerEngine()

    def mask(text: str) -> str:
        text = mask_contacts(text)
        found = analyzer.analyze(text=text, language="en")
        masked: str = anonymizer.anonymize(text=text, analyzer_results=found).text
        return masked[:_SHOWN]

    return mask
