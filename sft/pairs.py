"""From labelled products to instruction pairs: the prompt's tokens and the answer's, as decoding has them."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hangtag.catalogue.noise import map_texts, with_typos
from hangtag.constraint import TagConstraint
from hangtag.errors import RecipeError
from hangtag.language_model.chat_tokens import ChatTokens
from hangtag.language_model.examples import default_limits
from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
from hangtag.language_model.prompt import Prompter
from hangtag.language_model.run import AnswerSettings, compile_answers
from hangtag.product import Product
from hangtag.vocabulary import TagVocabulary
from sft.labelled import tag_counts
from sft.recipe import Augmentation, Order, TrainRecipe


@dataclass(frozen=True, slots=True)
class Pair:
    """One product to learn from: `prompt` and the whole `answer` in token ids, `tags` in the answer's order."""

    prompt: list[int]
    answer: list[int]
    tags: tuple[str, ...]
    is_cut: bool


def answer_settings(
    recipe: TrainRecipe, products: Sequence[Product], vocabulary: TagVocabulary, tokenizer: Any
) -> AnswerSettings:
    """Return how the run reads and answers: as many tags as training products hold, and the tokens for them."""
    limits = default_limits(vocabulary, products)
    constraint = compile_answers(tokenizer, vocabulary, recipe.answer)
    longest = sorted((len(constraint.encode([name])) for name in vocabulary.names), reverse=True)
    most = limits.max_tags or 1
    # No answer within the limits can be longer than its tags would be one by one.
    return AnswerSettings(
        answer=recipe.answer,
        max_tags=most,
        max_tokens=max(sum(longest[:most]), len(constraint.empty)) + 1,
        title=recipe.title,
        description=recipe.description,
        attributes=recipe.attributes,
    )


class TagOrder:
    """Brings a product's tags into the order in which its answer is written. See `TrainRecipe.order`."""

    def __init__(self, order: Order | list[str], vocabulary: TagVocabulary, counts: Counter[str]) -> None:
        """Prepare; `counts` says how many training products hold a tag.

        Raises:
            RecipeError: `order` lists a facet that the vocabulary has not.
        """
        self._is_random = order in ("random", "free")
        listed = order if isinstance(order, list) else []
        unknown = next((name for name in listed if name not in vocabulary.facet_names), None)
        if unknown is not None:
            known = ", ".join(vocabulary.facet_names)
            raise RecipeError(f"order: the vocabulary has no facet {unknown!r}; expected some of {known}")
        facets = {name: at for at, name in enumerate(dict.fromkeys([*listed, *vocabulary.facet_names]))}
        keys = {tag.tag: (facets[tag.facet], number) for number, tag in enumerate(vocabulary)}
        if order == "frequency":
            keys = {name: (-counts[name], number) for name, (_, number) in keys.items()}
        self._keys = keys

    def __call__(self, tags: Iterable[str], generator: random.Random) -> tuple[str, ...]:
        """Return `tags` in order; `generator` is used for random orders only."""
        ordered = sorted(tags, key=self._keys.__getitem__)
        if self._is_random:
            generator.shuffle(ordered)
        return tuple(ordered)


class PairMaker:
    """Makes instruction pairs; `num_over_limit` counts gold tags left out because no legal answer holds them."""

    def __init__(
        self,
        tokenizer: Any,
        vocabulary: TagVocabulary,
        settings: AnswerSettings,
        *,
        template: Path,
        order: TagOrder,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        """Bind the tokenizer, already extended where a tag is one token."""
        self.vocabulary, self.settings = vocabulary, settings
        self.constraint: TagConstraint = compile_answers(tokenizer, vocabulary, settings.answer)
        self.num_over_limit = 0
        self._prompter = Prompter(
            vocabulary, HFPieceTokenizer(tokenizer), template=template, budget=settings.budget
        )
        self._chat = ChatTokens(tokenizer)
        self._order, self._augmentation, self._seed = order, augmentation, seed

    def pairs(self, products: Sequence[Product], *, epoch: int | None = None) -> list[Pair]:
        """Return one pair a product, in order.

        `epoch` None makes them without augmentation. The same seed, epoch and product id give the same pair,
        whatever stands around it.
        """
        generators = [random.Random(f"{self._seed}\0{epoch}\0{product.id}") for product in products]
        if epoch is not None:
            products = [
                augment(product, self._augmentation, generator, self.vocabulary)
                for product, generator in zip(products, generators, strict=True)
            ]
        prompts = self._prompter.prompts(products)
        pairs = []
        for product, prompt, ids, generator in zip(
            products, prompts, self._chat.encode(prompts), generators, strict=True
        ):
            tags = self._order(self._within_limits(product.tags or ()), generator)
            pairs.append(Pair(ids, self.constraint.encode(tags), tags, prompt.is_cut))
        return pairs

    def _within_limits(self, tags: Iterable[str]) -> list[str]:
        held: Counter[str] = Counter()
        kept: list[str] = []
        for name in dict.fromkeys(tags):
            facet = self.vocabulary[name].facet
            most = self.vocabulary.facets[facet].max
            if (most is not None and held[facet] >= most) or len(kept) >= self.settings.max_tags:
                self.num_over_limit += 1
                continue
            held[facet] += 1
            kept.append(name)
        return kept


def augment(
    product: Product, augmentation: Augmentation, generator: random.Random, vocabulary: TagVocabulary
) -> Product:
    """Return the product with the changes that `generator` draws for it; id and tags stay."""
    if generator.random() < augmentation.synonyms:
        product = _with_synonyms(product, generator, vocabulary)
    if generator.random() < augmentation.drop_description and product.title:
        product = product.model_copy(update={"description": ""})
    if generator.random() < augmentation.drop_attributes:
        kept = {name: value for name, value in product.attributes.items() if generator.random() < 0.5}
        product = product.model_copy(update={"attributes": kept})
    if generator.random() < augmentation.typos:
        product = map_texts(product, lambda text: with_typos(text, generator))
    return product


def _with_synonyms(product: Product, generator: random.Random, vocabulary: TagVocabulary) -> Product:
    for name in product.tags or ():
        names = [name, *vocabulary[name].aliases]
        if len(names) > 1:
            # Word boundaries hold for scripts with spaces only; elsewhere a name is replaced where it stands.
            written = re.compile(
                "|".join(
                    rf"\b{re.escape(text)}\b" if text.isascii() else re.escape(text)
                    for text in sorted(names, key=len, reverse=True)
                ),
                re.IGNORECASE,
            )
            product = map_texts(product, partial(_renamed, written, names, generator))
    return product


def _renamed(written: re.Pattern[str], names: Sequence[str], generator: random.Random, text: str) -> str:
    return written.sub(lambda _: generator.choice(names), text)


def with_tail_repeated(products: Sequence[Product], threshold: float, seed: int) -> list[Product]:
    """Return the products, those with a rare tag more than once; see `TrainRecipe.tail_threshold`.

    A product stands sqrt(threshold / share of its rarest tag) times, at least once; the fraction is drawn.

    Source: repeat-factor sampling, Gupta et al. 2019 (LVIS), section 4.
    """
    if not threshold:
        return list(products)
    counts, generator = tag_counts(products), random.Random(seed)
    repeated: list[Product] = []
    for product in products:
        rarest = min((counts[name] for name in product.tags or ()), default=len(products))
        factor = max(1.0, (threshold * len(products) / rarest) ** 0.5)
        whole = int(factor)
        repeated += [product] * (whole + (generator.random() < factor - whole))
    return repeated
