"""A vocabulary and a tokenizer compiled into the constraint that every engine decodes under."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hangtag.constraint.answer import Scored, confidences, segments, spell
from hangtag.constraint.automaton import Automaton, Rules, State
from hangtag.constraint.availability import Grouping
from hangtag.constraint.cache import read_flat, write_flat
from hangtag.constraint.evidence import Evidence, Floats
from hangtag.constraint.forest import Forest
from hangtag.constraint.limits import FacetIndex, FacetRules, Limits, ResolvedLimits
from hangtag.constraint.parents import ParentRules
from hangtag.constraint.spelling import PieceTokenizer, Spelling
from hangtag.constraint.trie import Ints, TokenTrie
from hangtag.errors import ConstraintError
from hangtag.home import hangtag_home
from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

# Raised whenever the arrays or their meaning change; files of another version are compiled again.
FORMAT_VERSION = 1
_NO_LIMITS = Limits()
_RULES_KEPT = 256
_log = logging.getLogger(__name__)

Cache = Path | str | None


class TagConstraint:
    """Which token may come next in an answer, for one vocabulary and one tokenizer; limits come per request.

    `open`, `empty`, `separator` and `close` are the tokens of the answer's pieces. `stop_token` is the last
    token of `close` if an answer holds it nowhere else (an engine may stop there), else None. `digest` names
    vocabulary, facet limits and tokenizer; `path` is the cached file, None if there is none. Several threads
    may share a constraint as long as each `State` stays with one.
    """

    def __init__(
        self, words: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]], path: Path | None = None
    ) -> None:
        """Keep compiled parts; made by `compile`, `from_spelling` and `load`."""
        self.path = path
        self.digest: str = words["digest"]
        self.open: list[int] = words["open"]
        self.empty: list[int] = words["empty"]
        self.separator: list[int] = words["separator"]
        self.close: list[int] = words["close"]
        self.stop_token: int | None = words["stop_token"]
        self._words = words
        self._arrays = arrays
        self._first = TokenTrie.from_arrays(arrays, "first.")
        self._later = TokenTrie.from_arrays(arrays, "later.") if "later.lo" in arrays else self._first
        self._facet_limits = {
            name: FacetLimits(min=least, max=most) for name, (least, most) in words["facets"].items()
        }
        facet_of = cast(Ints, arrays["facet_of"])
        lengths = self._later.lengths[self._later.rank]
        self._index = FacetIndex.build(tuple(words["facets"]), facet_of, lengths)
        self._by_facet = Grouping(self._first, facet_of, len(self._index.names))
        self._by_facet_later = (
            self._by_facet
            if self._later is self._first
            else Grouping(self._later, facet_of, len(self._index.names))
        )
        self._automaton = Automaton(self.open, self.empty, self.separator, self.close, self._first, self._later)
        self._rules: dict[tuple[object, ...], Rules] = {}
        self._forests: dict[int, Forest] = {}

    @classmethod
    def compile(
        cls, vocabulary: TagVocabulary, tokenizer: PieceTokenizer, *, cache: Cache | Literal["home"] = "home"
    ) -> TagConstraint:
        """Return the constraint over the tokenizer's ordinary tokens, from the cache if it is there.

        `cache` is a folder; "home" means `constraints` in hangtag's home, None neither reads nor writes one.

        Raises:
            ConstraintError: the tokenizer cannot spell a tag, or what it spells can be read in two ways.
        """
        digest = _digest(vocabulary, f"text {tokenizer.fingerprint}")
        return cls._cached(vocabulary, digest, lambda: Spelling.from_text(vocabulary, tokenizer), cache)

    @classmethod
    def from_spelling(
        cls, vocabulary: TagVocabulary, spelling: Spelling, *, cache: Cache | Literal["home"] = "home"
    ) -> TagConstraint:
        """Return the constraint over a given spelling, such as `Spelling.from_tag_tokens`.

        Raises:
            ConstraintError: the spelling can be read in two ways.
        """
        later = spelling.first if spelling.later is None else spelling.later
        if not len(vocabulary) == len(spelling.first) == len(later):
            raise ConstraintError(
                f"got {len(spelling.first)} first and {len(later)} later spellings for {len(vocabulary)} tags"
            )
        pieces = [spelling.open, spelling.empty, spelling.separator, spelling.close, spelling.first, later]
        digest = _digest(vocabulary, f"tokens {json.dumps(pieces)}")
        return cls._cached(vocabulary, digest, lambda: spelling, cache)

    @classmethod
    def load(cls, path_or_digest: Path | str) -> TagConstraint:
        """Return a cached constraint by its file, or by its digest from hangtag's home.

        Its `vocabulary` has names, facets, parents and facet limits, but no aliases, descriptions and counts.

        Raises:
            ConstraintError: the file is missing, damaged or of another version.
        """
        path = Path(path_or_digest)
        if isinstance(path_or_digest, str) and len(path_or_digest) == 64 and not path.exists():
            path = _path(_folder("home"), path_or_digest)
        words, arrays = read_flat(path)
        if words.get("format") != FORMAT_VERSION:
            raise ConstraintError(
                f"{path}: got format {words.get('format')}, expected {FORMAT_VERSION}; compile it again"
            )
        return cls(words, arrays, path)

    @classmethod
    def _cached(
        cls,
        vocabulary: TagVocabulary,
        digest: str,
        spell_tags: Callable[[], Spelling],
        cache: Cache | Literal["home"],
    ) -> TagConstraint:
        folder = _folder(cache)
        path = None if folder is None else _path(folder, digest)
        if path is not None and path.exists():
            try:
                constraint = cls.load(path)
                if constraint.digest == digest:
                    constraint.vocabulary = vocabulary
                    return constraint
                _log.warning("%s holds another constraint; compiling again", path)
            except ConstraintError as error:
                _log.warning("%s", error)
        words, arrays = _compiled(vocabulary, spell_tags(), digest)
        constraint = cls(words, arrays)
        constraint._automaton.check()
        constraint.vocabulary = vocabulary
        if path is not None:
            try:
                write_flat(path, words, arrays)
                constraint.path = path
            except OSError as error:
                _log.warning("%s: the constraint is not cached (%s)", path, error.strerror)
        return constraint

    @cached_property
    def names(self) -> list[str]:
        """The tags' names in the vocabulary's order."""
        return self._arrays["names"].tobytes().decode().split("\n")

    @cached_property
    def vocabulary(self) -> TagVocabulary:
        """The vocabulary; of a loaded constraint, what decoding needs of it."""
        names, facets = self.names, self._index.names
        parents = cast(Ints, self._arrays["parent_of"]).tolist()
        tags = [
            Tag(name, facet=facets[facet], parent=None if parent < 0 else names[parent])
            for name, facet, parent in zip(names, self._index.facet_of.tolist(), parents, strict=True)
        ]
        return TagVocabulary(tags, facets=self._facet_limits, source=f"constraint {self.digest[:12]}")

    def start(
        self,
        *,
        max_tokens: int | None = None,
        limits: Limits = _NO_LIMITS,
        prefix: Sequence[int] = (),
        evidence: Evidence | None = None,
    ) -> State:
        """Return the state of an answer that is begun with `prefix`, with the evidence that `bias` goes by.

        `max_tokens` counts every token after `prefix` up to the last of `close`, no end-of-text token.

        Raises:
            ConstraintError: no legal answer fits, `prefix` begins none, or the evidence is for other tags.
        """
        key = limits.key
        rules = self._rules.get(key)
        if rules is None:
            while len(self._rules) >= _RULES_KEPT:
                self._rules.pop(next(iter(self._rules)), None)
            rules = self._rules[key] = self._resolve(limits)
        state = self._automaton.start(rules, None if max_tokens is None else max_tokens + len(prefix))
        for token in prefix:
            self._automaton.advance(state, token)
        state.forget_prefix()
        return state if evidence is None else self.weighed(state, evidence)

    def weighed(self, state: State, evidence: Evidence) -> State:
        """Return a state that goes its own way from here, led by the evidence.

        Raises:
            ConstraintError: the evidence is for another number of tags.
        """
        if len(evidence) != len(self._index.facet_of):
            raise ConstraintError(f"evidence for {len(evidence)} tags, expected {len(self._index.facet_of)}")
        led = state.fork()
        led.weigh(evidence)
        return led

    def allowed(self, state: State) -> Ints:
        """Return the tokens that may come next, ascending; none for a finished answer. Do not write to it."""
        return self._automaton.allowed(state)

    def bias(self, state: State) -> Floats | None:
        """Return what the evidence adds to the logits of `allowed(state)`, in its order; None if nothing.

        They are natural logarithms of shares that sum to one.
        """
        return self._automaton.bias(state)

    def advance(self, state: State, token: int) -> None:
        """Write `token` into the answer.

        Raises:
            ConstraintError: the token is not allowed; the state is as before.
        """
        self._automaton.advance(state, token)

    def fork(self, state: State) -> State:
        """Return a state that goes its own way from here."""
        return state.fork()

    def forced(self, state: State) -> list[int]:
        """Return the tokens from here on that have no alternative, maybe none."""
        return self._automaton.forced(state)

    def encode(self, tags: Sequence[str]) -> list[int]:
        """Return the tokens of the whole answer with `tags` in this order, as decoding allows them.

        Raises:
            ConstraintError: a tag is unknown or repeated. Limits are not checked.
        """
        for name in tags:
            if name not in self.vocabulary:
                raise ConstraintError(f"tag {name!r} is not in the vocabulary of {len(self.vocabulary)} tags")
        positions = [self.vocabulary.position(name) for name in tags]
        self._check_distinct(positions)
        return spell(self._automaton, positions)

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Return the tags that the tokens of a whole answer spell.

        Raises:
            ConstraintError: the tokens are no whole answer, or a tag is repeated. Limits are not checked.
        """
        positions = [part.position for part in segments(self._automaton, ids)[:-1]]
        self._check_distinct(positions)
        return [self.names[position] for position in positions]

    def score(self, ids: Sequence[int], logprobs: Sequence[float], *, prefix: Sequence[int] = ()) -> Scored:
        """Return the tags with their confidences.

        `prefix` + `ids` is a whole answer; `logprobs` has, for each of `ids`, the natural logarithm of its
        probability among the tokens that were allowed. A tag's confidence is the product over its own tokens and
        those that lead to it (the opening, or the separator: the decision to go on). Where a tag begins another,
        the decision to end it is part of what follows: the next tag's confidence, or `stop`.

        Raises:
            ConstraintError: not a whole answer, or not one logarithm a token.
        """
        if len(ids) != len(logprobs):
            raise ConstraintError(
                f"got {len(logprobs)} log-probabilities for {len(ids)} tokens; expected one each"
            )
        found = segments(self._automaton, [*prefix, *ids])
        *scores, stop = confidences(found, [*[0.0] * len(prefix), *logprobs])
        positions = tuple(part.position for part in found[:-1])
        self._check_distinct(positions)
        return Scored(tuple(self.names[p] for p in positions), positions, tuple(scores), stop)

    def _check_distinct(self, positions: Sequence[int]) -> None:
        if len(set(positions)) < len(positions):
            position = Counter(positions).most_common(1)[0][0]
            raise ConstraintError(f"tag {self.names[position]!r} is repeated; an answer is a set")

    def _resolve(self, limits: Limits) -> Rules:
        resolved = ResolvedLimits.of(limits, self._facet_limits, self._index.sizes)
        costs = {"join_cost": len(self.separator), "end_cost": len(self.close)}
        parent_of = cast(Ints, self._arrays["parent_of"])
        if not limits.with_parents or (parent_of < 0).all():
            return FacetRules(resolved, self._index, self._by_facet, self._by_facet_later, **costs)
        only = limits.only_facets
        skipped = sum(1 << f for f, name in enumerate(self._index.names) if only is not None and name not in only)
        forest = self._forests.get(skipped)
        if forest is None:
            forest = Forest(parent_of, self._index, skipped, self._first, self._later)
            self._forests[skipped] = forest
        return ParentRules(resolved, self._index, forest, **costs)


def _compiled(
    vocabulary: TagVocabulary, spelling: Spelling, digest: str
) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return the words and arrays of the compiled constraint."""
    first = TokenTrie.build(spelling.first, vocabulary.names)
    arrays = first.to_arrays("first.")
    if spelling.later is not None:
        later = TokenTrie.build(spelling.later, vocabulary.names)
        unlike = np.flatnonzero(first.lengths[first.rank] != later.lengths[later.rank])
        if unlike.size:
            raise ConstraintError(
                f"tag {vocabulary.names[int(unlike[0])]!r} has a longer spelling as first or as later tag; "
                "expected equally many tokens"
            )
        arrays |= later.to_arrays("later.")
    facets = {name: number for number, name in enumerate(vocabulary.facet_names)}
    position_of: dict[str | None, int] = {None: -1}
    position_of.update((name, number) for number, name in enumerate(vocabulary.names))
    arrays["facet_of"] = np.array([facets[tag.facet] for tag in vocabulary.tags], np.int32)
    arrays["parent_of"] = np.array([position_of[tag.parent] for tag in vocabulary.tags], np.int32)
    arrays["names"] = np.frombuffer("\n".join(vocabulary.names).encode(), np.uint8)
    words = {
        "format": FORMAT_VERSION,
        "digest": digest,
        "open": [*spelling.open],
        "empty": [*spelling.empty],
        "separator": [*spelling.separator],
        "close": [*spelling.close],
        "stop_token": _stop_token(spelling, arrays),
        "facets": {name: [limit.min, limit.max] for name, limit in vocabulary.facets.items()},
    }
    return words, arrays


def _stop_token(spelling: Spelling, arrays: Mapping[str, NDArray[np.generic]]) -> int | None:
    """Return the last token of `close` if it can stand nowhere else than at an answer's end."""
    last = spelling.close[-1]
    pieces = [*spelling.open, *spelling.separator, *spelling.close[:-1], *spelling.empty[:-1]]
    in_tags = any((arrays[name] == last).any() for name in ("first.tokens", "later.tokens") if name in arrays)
    return None if last in pieces or in_tags else last


def _digest(vocabulary: TagVocabulary, spelling: str) -> str:
    """Return the SHA-256 (hex) over what a compiled constraint depends on."""
    facets = {name: [limit.min, limit.max] for name, limit in vocabulary.facets.items()}
    parts = [f"hangtag-constraint {FORMAT_VERSION} {spelling}", json.dumps(facets)]
    # Names hold no control characters, so lines keep them apart.
    parts += ["\n".join(vocabulary.names), "\n".join(tag.facet for tag in vocabulary.tags)]
    parts.append("\n".join(tag.parent or "" for tag in vocabulary.tags))
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _folder(cache: Cache | Literal["home"]) -> Path | None:
    if cache == "home":
        return hangtag_home() / "constraints"
    return None if cache is None else Path(cache)


def _path(folder: Path | None, digest: str) -> Path:
    assert folder is not None
    return folder / f"{digest}.constraint"
