"""Hugging Face tokenizers as the constraint needs them: every piece apart, and exactly reversible."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from hangtag.errors import ConstraintError

# Written before a piece where a tokenizer would otherwise put a space before it; tried in this order.
_ANCHORS = ("\n", "0", "=")


class HFPieceTokenizer:
    """A fast tokenizer of transformers (anything with `backend_tokenizer`) as a `PieceTokenizer`.

    Text that looks like a special token stays text. SentencePiece-like tokenizers put a space before every
    text; there a piece is tokenised behind an anchor whose tokens are taken off again.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Keep the definition of `tokenizer`, which may be changed afterwards.

        Raises:
            ConstraintError: the tokenizer has no fast implementation.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConstraintError(
                f"{type(tokenizer).__name__} is no fast tokenizer; expected one with `backend_tokenizer` "
                "(AutoTokenizer with use_fast=True)"
            )
        self._shared = backend
        self._definition: str = backend.to_str()
        # Truncation and padding stand before the added tokens and change with every call of the tokenizer.
        spelling = self._definition[self._definition.index('"added_tokens"') :]
        self.fingerprint = hashlib.sha256(spelling.encode()).hexdigest()
        added = backend.get_added_tokens_decoder().values()
        self._special = tuple(token.content for token in added if token.special)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids, tokenised apart from the others, without special tokens.

        Raises:
            ConstraintError: the tokenizer joins a text with whatever stands before it.
        """
        if not self._adds_space:
            return self._encode(list(texts))
        encoded: list[list[int] | None] = [None] * len(texts)
        for anchor in _ANCHORS:
            missing = [number for number, ids in enumerate(encoded) if ids is None]
            [lead, *behind] = self._encode([anchor, *(anchor + texts[number] for number in missing)])
            for number, ids in zip(missing, behind, strict=True):
                if ids[: len(lead)] == lead:
                    encoded[number] = ids[len(lead) :]
        if None in encoded:
            raise ConstraintError(
                f"the tokenizer cannot spell {texts[encoded.index(None)]!r} apart from what stands before it; "
                "choose another model"
            )
        return [ids for ids in encoded if ids is not None]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without clean-up of spaces."""
        if not self._adds_space:
            return self._decode(ids)
        anchor = _ANCHORS[0]
        text = self._decode([*self._encode([anchor])[0], *ids])
        return text[text.index(anchor) + len(anchor) :] if anchor in text else text

    @cached_property
    def _own(self) -> Any:
        # A tokenizer of our own: the settings below would change what the engine reads from prompts.
        backend = type(self._shared).from_str(self._definition)
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        return backend

    @cached_property
    def _adds_space(self) -> bool:
        one, other = self._encode(["a", "b"])
        return self._decode([*one, *other]) != "ab"

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # Copying a tokenizer takes a tenth of a second and more; most texts do not ask for it.
        is_plain = self._shared.truncation is None and self._shared.padding is None
        is_plain = is_plain and not any(special in text for special in self._special for text in texts)
        backend = self._shared if is_plain else self._own
        return [piece.ids for piece in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._shared.decode(list(ids), skip_special_tokens=False)
        return text
