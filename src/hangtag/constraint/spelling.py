"""How an answer is written in tokens: the opening, each tag, what stands between two tags, and the end.

Every piece is tokenised apart. The same pieces joined are what training learns and what decoding allows, so
the two cannot disagree about where one token ends and the next begins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hangtag.errors import ConstraintError
from hangtag.tagging import to_answer
from hangtag.vocabulary import TagVocabulary

OPEN, EMPTY, SEPARATOR, CLOSE = '{"tags":["', '{"tags":[]}', '","', '"]}'
# Spellings are checked by decoding this many tags in one answer: one call a tag would cost as much as
# tokenising them all.
_CHECKED_TOGETHER = 512


class PieceTokenizer(Protocol):
    """What the constraint needs of a tokenizer.

    `fingerprint` is the SHA-256 (hex) of the tokenizer's definition.
    """

    fingerprint: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, tokenised apart from the others, without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, the exact inverse of `encode`: no clean-up of spaces."""
        ...


@dataclass(frozen=True)
class Spelling:
    """The tokens of an answer's pieces; `first` and `later` are in the vocabulary's order.

    An answer is `empty`, or `open`, a tag of `first`, any number of (`separator`, a tag of `later`), `close`.
    `later` None means: as `first`. A tag has equally many tokens in both.
    """

    open: list[int]
    empty: list[int]
    separator: list[int]
    close: list[int]
    first: list[list[int]]
    later: list[list[int]] | None = None

    @classmethod
    def from_text(cls, vocabulary: TagVocabulary, tokenizer: PieceTokenizer) -> Spelling:
        """Return the spelling in the tokenizer's ordinary tokens. Cost: tokenising every tag once.

        Raises:
            ConstraintError: the tokenizer loses or adds characters; names the first such tag.
        """
        inner = [json.dumps(name, ensure_ascii=False)[1:-1] for name in vocabulary.names]
        opening, empty, separator, close = tokenizer.encode([OPEN, EMPTY, SEPARATOR, CLOSE])
        spelling = cls(opening, empty, separator, close, first=tokenizer.encode(inner))
        spelling._check_round_trip(vocabulary.names, tokenizer)
        return spelling

    @classmethod
    def from_tag_tokens(
        cls, *, open_id: int, close_id: int, first_ids: Sequence[int], later_ids: Sequence[int]
    ) -> Spelling:
        """Return the spelling in which every tag is one token.

        The tokens' texts are `{"tags":[`, `]}`, `"boots"` (`first_ids`) and `,"boots"` (`later_ids`), the last
        two in the vocabulary's order.
        """
        return cls(
            open=[open_id],
            empty=[open_id, close_id],
            separator=[],
            close=[close_id],
            first=[[token] for token in first_ids],
            later=[[token] for token in later_ids],
        )

    def answer(self, positions: Sequence[int]) -> list[int]:
        """Return the tokens of the whole answer with the tags at these vocabulary positions, in this order."""
        if not positions:
            return list(self.empty)
        later = self.first if self.later is None else self.later
        ids = [*self.open, *self.first[positions[0]]]
        for position in positions[1:]:
            ids += self.separator
            ids += later[position]
        return ids + self.close

    def _check_round_trip(self, names: Sequence[str], tokenizer: PieceTokenizer) -> None:
        if (text := tokenizer.decode(self.empty)) != EMPTY:
            raise ConstraintError(
                f"the tokenizer reads {EMPTY!r} back as {text!r}; it cannot spell JSON, choose another model"
            )
        for start in range(0, len(names), _CHECKED_TOGETHER):
            together = range(start, min(start + _CHECKED_TOGETHER, len(names)))
            if self._is_spelled(together, names, tokenizer):
                continue
            for position in together:
                if not self._is_spelled([position], names, tokenizer):
                    text = tokenizer.decode(self.answer([position]))
                    raise ConstraintError(
                        f"the tokenizer cannot spell the tag {names[position]!r}: it reads "
                        f"{to_answer([names[position]])!r} back as {text!r}; rename the tag or choose another "
                        "model"
                    )
            raise ConstraintError(
                f"the tokenizer reads the tags {names[together[0]]!r} to {names[together[-1]]!r} differently "
                "together than alone; choose another model"
            )

    def _is_spelled(self, positions: Sequence[int], names: Sequence[str], tokenizer: PieceTokenizer) -> bool:
        if not all(self.first[position] for position in positions):
            return False
        return tokenizer.decode(self.answer(positions)) == to_answer([names[n] for n in positions])
