"""Evidence for an answer's tags from outside the model, as the decoder adds it to the model's logits.

A score in log-odds for each tag, and one for "no further tag", make a distribution over what may come next:
a tag has the share exp(score) among the tags still available and, where the answer may end, the end. The
decoder adds the logarithm of a token's share to the token's logit (log-linear pooling, a product of experts:
Genest and Zidek 1986; Hinton 2002). Where a tag has several tokens, a branch has the sum of the shares below it,
so that what is added along a path is the logarithm of the tag's own share.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hangtag.constraint.availability import Base, Choice
from hangtag.constraint.trie import Ints, TokenTrie
from hangtag.errors import ConstraintError

Floats = npt.NDArray[np.float64]

# Scores beyond are as good as certain; within, no share of a sum is lost to rounding.
MOST = 300.0
_BASES_KEPT = 64


class Evidence:
    """One product's scores. Immutable; the states of its answer share what was worked out from it."""

    def __init__(
        self, scores: Sequence[float] | npt.NDArray[np.floating], stop: float = 0.0, *, sharpness: float = 1.0
    ) -> None:
        """Keep `scores`, log-odds in the vocabulary's order, and `stop`, that of "no further tag".

        All of them are multiplied by `sharpness` where they meet the model's logits: cut to [-300, 300] then, and
        rounded to float32, as they are sent.

        Raises:
            ConstraintError: a score is no number.
        """
        values = np.asarray([*np.asarray(scores, np.float64), stop], np.float64)
        if np.isnan(values).any():
            raise ConstraintError("evidence: a score is NaN; expected log-odds")
        self._odds = values[:-1]
        self._values = (values * sharpness).clip(-MOST, MOST).astype(np.float32)
        self.scores: Floats = self._values[:-1].astype(np.float64)
        self.stop = float(self._values[-1])
        self._weights: dict[int, Floats] = {}
        self._bases: dict[int, tuple[Base, Floats]] = {}

    def __len__(self) -> int:
        """Return the number of tags."""
        return len(self.scores)

    def probability(self, position: int) -> float:
        """Return how probable the tag at this position of the vocabulary is by the evidence alone."""
        return float(1 / (1 + np.exp(-self._odds[position])))

    def to_text(self) -> str:
        """Return the scores as text for a request: base64 of float32, little-endian, `stop` last."""
        return base64.b64encode(self._values.astype("<f4").tobytes()).decode()

    @classmethod
    def from_text(cls, text: object, num_tags: int) -> Evidence:
        """Return what `to_text` wrote.

        Raises:
            ConstraintError: it is something else, or for another number of tags.
        """
        try:
            data = base64.b64decode(text, validate=True) if isinstance(text, str) else b"\0"
            values = np.frombuffer(data, "<f4")
        except (ValueError, binascii.Error):
            raise ConstraintError(f"evidence: got {text!r:.40}, expected base64 of float32 scores") from None
        if len(values) != num_tags + 1:
            raise ConstraintError(
                f"evidence: got {len(values)} scores, expected one for each of {num_tags} tags and one for the end"
            )
        return cls(values[:-1], float(values[-1]))

    def below_roots(self, choice: Choice) -> Floats:
        """Return the logarithm of the summed exp(score) below each of `choice.ids`, in their order."""
        trie, weights = choice.trie, self._of(choice.trie)
        sums = self._sums(choice.base)
        changed = choice.changed_roots()
        if changed:
            sums = sums.copy()
            for root in changed:
                sums[root] = weights[choice.below(int(trie.root_tokens[root]))].sum()
        log_sums: Floats = np.log(sums[trie.root_tokens.searchsorted(choice.ids)])
        return log_sums

    def below(self, trie: TokenTrie, ranks: Ints, bounds: npt.NDArray[np.intp]) -> tuple[Floats, float]:
        """Return the same for the ranks from each of `bounds` to the next, and for all of `ranks`."""
        weights = self._of(trie)[ranks]
        log_sums: Floats = np.log(np.add.reduceat(weights, bounds))
        return log_sums, float(np.log(weights.sum()))

    def _of(self, trie: TokenTrie) -> Floats:
        """Return exp(score) by rank."""
        weights = self._weights.get(id(trie))
        if weights is None:
            weights = self._weights[id(trie)] = np.exp(self.scores[trie.order])
        return weights

    def _sums(self, base: Base) -> Floats:
        """Return the summed exp(score) of what `base` leaves below each of the root's children."""
        kept = self._bases.get(id(base))
        # The base itself is kept beside: an id may come again after its object has gone.
        if kept is not None and kept[0] is base:
            return kept[1]
        trie = base.trie
        ranks = base.within(0, len(trie.order))
        sums: Floats = np.bincount(
            trie.root_of[ranks], weights=self._of(trie)[ranks], minlength=len(trie.root_tokens)
        ).astype(np.float64)
        while len(self._bases) >= _BASES_KEPT:
            self._bases.pop(next(iter(self._bases)))
        self._bases[id(base)] = (base, sums)
        return sums
