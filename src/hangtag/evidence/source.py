"""A source of evidence, and the vocabulary's tree as sources look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary

Scores = npt.NDArray[np.float32]


class Source(Protocol):
    """Anything that scores every tag for a product; `columns` names its scores."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its scores."""
        ...

    def scores(self, products: Sequence[Product]) -> Scores:
        """Return one row a product, of shape (products, tags, columns), tags in the vocabulary's order."""
        ...


@dataclass(frozen=True)
class Tree:
    """Who stands above whom, by position: `parents` holds -1 for a tag without one."""

    parents: npt.NDArray[np.intp]
    descendants: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, vocabulary: TagVocabulary) -> Tree:
        """Return the tree of a vocabulary."""
        parents = [-1 if tag.parent is None else vocabulary.position(tag.parent) for tag in vocabulary]
        below: list[list[int]] = [[] for _ in parents]
        for position, tag in enumerate(vocabulary):
            for ancestor in vocabulary.ancestors(tag.tag):
                below[vocabulary.position(ancestor)].append(position)
        return cls(np.array(parents, np.intp), tuple(map(tuple, below)))

    def of_children(self, scores: Scores, *, empty: float = 0.0) -> Scores:
        """Return the largest score among each tag's descendants, `empty` where there is none; as `scores`."""
        best = np.full_like(scores, empty)
        for position, below in enumerate(self.descendants):
            if below:
                best[:, position] = scores[:, below].max(axis=1)
        return best

    def of_parents(self, scores: Scores, *, empty: float = 0.0) -> Scores:
        """Return the score of each tag's parent, `empty` where there is none; as `scores`."""
        found: Scores = np.where(self.parents < 0, np.float32(empty), scores[:, self.parents])
        return found
