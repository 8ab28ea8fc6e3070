"""From a product to the messages that a chat model reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jinja2
import jinja2.sandbox

from hangtag.errors import RecipeError
from hangtag.product import Product
from hangtag.tagging import to_answer
from hangtag.vocabulary import FacetLimits, TagVocabulary

PROMPTS = Path(__file__).with_name("prompts")
"""The templates that come with the package; hangtag is installed as files, never as an archive."""
_DELIMITER = re.compile(r"<(?=\s*/?\s*product\s*>)", re.IGNORECASE)


class TextTokenizer(Protocol):
    """What a prompt needs of a tokenizer in order to keep to a number of tokens."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        ...


class NearestExamples(Protocol):
    """Finds the labelled products that are nearest to a product."""

    def __call__(self, products: Sequence[Product], k: int) -> list[list[Product]]:
        """Return, for each product, at most k examples, nearest first."""
        ...


class NearestTags(Protocol):
    """Finds the tags that are nearest to a product's text."""

    def __call__(self, products: Sequence[Product], k: int) -> list[list[str]]:
        """Return, for each product, at most k tags, nearest first."""
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a prompt in tokens of the model that reads it.

    Longer fields of a product are cut; a vocabulary whose listing is longer than `vocabulary` is not listed:
    each product then gets a shortlist of `shortlist` tags (a number of tags, not of tokens; 0: no shortlist).
    """

    title: int = 64
    description: int = 256
    attributes: int = 128
    vocabulary: int = 1536
    shortlist: int = 60


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for one product, in the form of chat templates; `is_cut` says that text of it was left out."""

    messages: tuple[dict[str, str], ...]
    is_cut: bool = False


class PromptTemplate:
    """A Jinja file with the blocks `system` and `user`; undefined variables raise."""

    def __init__(self, path: str | Path) -> None:
        """Compile the template. Raises RecipeError: it is missing, malformed or lacks a block."""
        self.path = Path(path)
        try:
            self.source = self.path.read_text(encoding="utf-8")
            environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
            self._template = environment.from_string(self.source)
        except OSError as error:
            raise RecipeError(
                f"{path}: {error.strerror or error}; expected a prompt template (see prompts/)"
            ) from None
        except jinja2.TemplateSyntaxError as error:
            raise RecipeError(f"{path}:{error.lineno}: {error.message}") from None
        missing = {"system", "user"} - self._template.blocks.keys()
        if missing:
            raise RecipeError(f"{path}: no block {min(missing)!r}; a template needs the blocks system and user")

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file's text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def render(self, block: str, **variables: object) -> str:
        """Return a block's text without white space around it. Raises RecipeError: a variable is undefined."""
        context = self._template.new_context(variables)
        try:
            return "".join(self._template.blocks[block](context)).strip()
        except jinja2.UndefinedError as error:
            raise RecipeError(f"{self.path}: block {block}: {error.message}") from None


class Prompter:
    """Writes the messages for products: rules and vocabulary first, then examples, then the product.

    What all products share stands first, so that an engine with prefix caching computes it once. Product text
    is data: it stands between <product> and </product>, and these two words are taken out of it.
    """

    def __init__(
        self,
        vocabulary: TagVocabulary,
        tokenizer: TextTokenizer,
        *,
        template: str | Path | None = None,
        shots: int = 0,
        nearest_examples: NearestExamples | None = None,
        nearest_tags: NearestTags | None = None,
        budget: Budget | None = None,
    ) -> None:
        """Prepare prompts with `shots` examples each, chosen by `nearest_examples`.

        `template` None takes the zero- or few-shot template of the package. A vocabulary longer than the
        budget is listed as a shortlist by `nearest_tags`, or not at all where that is None.
        """
        if shots and nearest_examples is None:
            raise RecipeError(f"{shots} shots need labelled examples; give some, or take 0 shots")
        self.vocabulary = vocabulary
        self.shots = shots
        self.budget = budget or Budget()
        self.template = PromptTemplate(template or default_template(shots))
        self._tokenizer = tokenizer
        self._nearest_examples = nearest_examples
        facets = [
            {"name": facet, "rule": _rule(vocabulary.facets[facet]), "tags": vocabulary.in_facet(facet)}
            for facet in vocabulary.facet_names
        ]
        listing = self.template.render("system", facets=facets)
        is_listed = len(tokenizer.encode([listing])[0]) <= self.budget.vocabulary
        self._system = listing if is_listed else self.template.render("system", facets=[])
        self._nearest_tags = None if is_listed else nearest_tags

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over template, shared text, number of shots and budget: what decides a prompt beside
        the product and the examples."""
        parts = (self.template.fingerprint, self._system, str(self.shots), repr(self.budget))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def prompts(self, products: Sequence[Product], *, shots: int | None = None) -> list[ChatPrompt]:
        """Return the messages for each product, in order; `shots` may lower the number of examples."""
        num_shots = self.shots if shots is None else shots
        examples = self._nearest_examples(products, num_shots) if self._nearest_examples and num_shots else None
        shortlists = self._nearest_tags(products, self.budget.shortlist) if self._nearest_tags else None
        prompts = []
        for number, product in enumerate(products):
            messages = [{"role": "system", "content": self._system}] if self._system else []
            # The nearest example stands last, next to the product.
            for example in reversed(examples[number] if examples else []):
                answer = to_answer(self.vocabulary.in_order(t for t in example.tags or () if t in self.vocabulary))
                messages.append({"role": "user", "content": self._user(example, None)[0]})
                messages.append({"role": "assistant", "content": answer})
            user, is_cut = self._user(product, shortlists[number] if shortlists else None)
            messages.append({"role": "user", "content": user})
            prompts.append(ChatPrompt(tuple(messages), is_cut))
        return prompts

    def _user(self, product: Product, shortlist: Sequence[str] | None) -> tuple[str, bool]:
        title, title_cut = self._cut(product.title, self.budget.title)
        description, description_cut = self._cut(product.description, self.budget.description)
        attributes: dict[str, str] = {}
        left, attributes_cut = self.budget.attributes, False
        for name, value in product.attributes.items():
            text, is_cut = self._cut(f"{name}\n{value}", left)
            left -= len(self._tokenizer.encode([text])[0])
            attributes_cut |= is_cut
            if "\n" in text:
                name, _, value = text.partition("\n")
                attributes[_as_data(name)] = _as_data(value)
        shown = {"title": _as_data(title), "description": _as_data(description), "attributes": attributes}
        text = self.template.render("user", product=shown, shortlist=list(shortlist or ()))
        return text, title_cut or description_cut or attributes_cut

    def _cut(self, text: str, num_tokens: int) -> tuple[str, bool]:
        # A token is at least one byte: a text this short cannot be too long.
        if len(text.encode()) <= num_tokens:
            return text, False
        # Tokenising 100 kB only to throw it away is slow; no token of a real text averages 16 characters.
        head = text[: max(0, num_tokens) * 16]
        ids = self._tokenizer.encode([head])[0]
        if len(ids) <= num_tokens and len(head) == len(text):
            return text, False
        return self._tokenizer.decode(ids[: max(0, num_tokens)]).rstrip("\ufffd").strip(), True


def default_template(shots: int) -> Path:
    """Return the package's template for prompts with that many examples."""
    return PROMPTS / ("few_shot_v1.jinja" if shots else "zero_shot_v1.jinja")


def _as_data(text: str) -> str:
    return _DELIMITER.sub("", text)


def _rule(limits: FacetLimits) -> str:
    if limits.is_exclusive:
        return "exactly one" if limits.min == 1 else "at most one"
    if limits.max is None:
        return f"at least {limits.min}" if limits.min else "any number"
    return f"{limits.min} to {limits.max}" if limits.min else f"at most {limits.max}"
