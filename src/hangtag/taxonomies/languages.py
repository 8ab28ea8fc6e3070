"""Which of a concept's names is taken, where it has them in several languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

NO_LANGUAGE = ""


class LanguageChoice:
    """Chooses names in a wanted language and counts what else it had to take.

    In this order: the language itself; one of its regions (`en` takes `en-GB`), or for a region its language and
    then another region of it; a name without a language; the first other language in alphabetical order. Case does
    not count.
    """

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self._others: Counter[str] = Counter()

    def rank(self, language: str) -> tuple[int, str]:
        """Return the place of a language: the smallest is taken."""
        tag, wanted = language.lower().replace("_", "-"), self.wanted.lower().replace("_", "-")
        base = wanted.split("-")[0]
        if tag == wanted:
            return 0, tag
        if tag == base:
            return 1, tag
        if tag.split("-")[0] == base:
            return 2, tag
        return (3, tag) if tag == NO_LANGUAGE else (4, tag)

    def of(self, texts: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the texts of the best language that there is, and count it; empty for none."""
        if not texts:
            return []
        language = min(texts, key=self.rank)
        if self.rank(language)[0]:
            self._others[language or "no language"] += 1
        return list(texts[language])

    def matching(self, texts: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the texts of the wanted language, of its regions, and those without a language."""
        return [
            text
            for language in sorted(texts, key=self.rank)
            if self.rank(language)[0] < 4
            for text in texts[language]
        ]

    def note(self) -> list[str]:
        """Return a line on names that are in another language than the wanted one, if there are any."""
        if not self._others:
            return []
        shown = ", ".join(f"{language} {number}" for language, number in self._others.most_common())
        return [f"names that are not in {self.wanted!r}: {shown}"]


def with_notation(notation: str, text: str) -> str:
    """Return a description that begins with the notation.

    >>> with_notation("004.5", "Computers")
    '[004.5] Computers'
    """
    return f"[{notation.strip()}] {text}".strip() if notation.strip() else text
