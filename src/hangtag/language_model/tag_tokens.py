"""One token a tag: a tokenizer extended so that a tag is written, and ranked against all others, in one step.

The new tokens' texts concatenate to the JSON answer: `{"tags":[` · `"boots"` · `,"shoes"` · `]}`. They enter the
tokenizer's own vocabulary without a merge that leads to them, not its list of added tokens. So no text is ever
read as one of them, in whatever server tokenises it, while they are written as exactly their text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hangtag.constraint import PieceTokenizer, Spelling
from hangtag.errors import ConstraintError
from hangtag.vocabulary import TagVocabulary

OPEN, CLOSE = '{"tags":[', "]}"


@dataclass(frozen=True, slots=True)
class TagTokens:
    """The ids of the answer's tokens; `first` and `later` are in the vocabulary's order.

    A tag has two spellings, `"boots"` and `,"boots"`. Both mean the same and share one embedding row.
    """

    open: int
    close: int
    first: tuple[int, ...]
    later: tuple[int, ...]

    @classmethod
    def read(cls, ids: Mapping[str, int], vocabulary: TagVocabulary) -> TagTokens:
        """Return the tokens as they stand in an extended tokenizer; `ids` is its `get_vocab()`.

        Raises:
            ConstraintError: the tokenizer was not extended for this vocabulary; names the first tag it lacks.
        """

        def token(text: str) -> int:
            found = ids.get(_written(text))
            if found is None:
                raise ConstraintError(
                    f"the tokenizer has no token {text!r}: it was not extended for this vocabulary; give the "
                    "vocabulary that the run was trained on"
                )
            return found

        first, later = _tag_texts(vocabulary)
        return cls(token(OPEN), token(CLOSE), tuple(map(token, first)), tuple(map(token, later)))

    def spelling(self) -> Spelling:
        """Return the spelling that a constraint is compiled from."""
        return Spelling.from_tag_tokens(
            open_id=self.open, close_id=self.close, first_ids=self.first, later_ids=self.later
        )


@dataclass(frozen=True, slots=True)
class Extension:
    """An extended tokenizer: the text of its `tokenizer.json`, the ids, and how many rows a model needs for it.

    `new_ids` are the ids that the tokenizer did not have before.
    """

    definition: str
    tokens: TagTokens
    num_rows: int
    new_ids: frozenset[int]


def extend_tokenizer(definition: str, vocabulary: TagVocabulary) -> Extension:
    """Return the tokenizer with a token for the opening, for each tag and for the close.

    `definition` is the text of a `tokenizer.json`. A token that the tokenizer has already (many know `]}`) is used
    as it is; tokens of an earlier extension are kept, so that a grown vocabulary only adds.

    Raises:
        ConstraintError: the tokenizer is no byte-level BPE.
    """
    document: dict[str, Any] = json.loads(definition)
    model = document["model"]
    if model.get("type") != "BPE" or not _has_byte_level(document.get("decoder")):
        raise ConstraintError(
            f"one token a tag needs a byte-level BPE tokenizer, got {model.get('type')}; "
            "set `answer: text` in the recipe or choose another model"
        )
    ids: dict[str, int] = model["vocab"]
    added = [token["id"] for token in document.get("added_tokens") or ()]
    free = max([*ids.values(), *added]) + 1
    new_ids = []
    first, later = _tag_texts(vocabulary)
    for text in (OPEN, CLOSE, *first, *later):
        written = _written(text)
        if written not in ids:
            ids[written] = free
            new_ids.append(free)
            free += 1
    return Extension(
        json.dumps(document, ensure_ascii=False), TagTokens.read(ids, vocabulary), free, frozenset(new_ids)
    )


def check_unreachable(tokenizer: PieceTokenizer, extension: Extension, vocabulary: TagVocabulary) -> None:
    """Return if `tokenizer`, the extended one, reads no text as a new token and writes each as its text.

    Raises:
        ConstraintError: it does; names the text.
    """
    first, later = _tag_texts(vocabulary)
    texts = [OPEN, CLOSE, *first, *later]
    tokens = extension.tokens
    ids = [tokens.open, tokens.close, *tokens.first, *tokens.later]
    for text, token, read in zip(texts, ids, tokenizer.encode(texts), strict=True):
        if not extension.new_ids.isdisjoint(read):
            raise ConstraintError(
                f"a product's text {text!r} would be read as the token of a tag; set `answer: text` in the recipe"
            )
        if tokenizer.decode([token]) != text:
            raise ConstraintError(
                f"the tokenizer writes the token {text!r} as {tokenizer.decode([token])!r}; set `answer: text` in "
                "the recipe"
            )


def ordinary_tokens(tokenizer: PieceTokenizer, vocabulary: TagVocabulary) -> tuple[list[int], ...]:
    """Return the ordinary tokens that spell the opening, the close and each tag: where its row starts from."""
    inner = [json.dumps(name, ensure_ascii=False)[1:-1] for name in vocabulary.names]
    return tuple(tokenizer.encode([OPEN, CLOSE, *inner]))


def _tag_texts(vocabulary: TagVocabulary) -> tuple[Sequence[str], Sequence[str]]:
    quoted = [json.dumps(name, ensure_ascii=False) for name in vocabulary.names]
    return quoted, [f",{text}" for text in quoted]


def _has_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    return decoder.get("type") == "ByteLevel" or any(map(_has_byte_level, decoder.get("decoders") or ()))


def _written(text: str) -> str:
    """Return `text` as a byte-level tokenizer keeps it: one printable character a byte."""
    alphabet = _alphabet()
    return "".join(alphabet[byte] for byte in text.encode())


@cache
def _alphabet() -> tuple[str, ...]:
    """Return the character of each byte. Source: `bytes_to_unicode` of GPT-2's encoder."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    shifted = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(shifted)) for byte in range(256))
