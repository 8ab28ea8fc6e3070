"""From names and files to a ready tagger."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hangtag.calibration import Calibration
from hangtag.catalog import load_labelled
from hangtag.constraint import Limits, TagConstraint
from hangtag.errors import DataError
from hangtag.manifest import RunFiles, RunManifest, load_run
from hangtag.product import Product
from hangtag.prompt import Budget, Prompter
from hangtag.tagging import Tagger
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from hangtag.nearest import NearestTexts
    from hangtag.taggers.generative import Decoding, Engine, GenerativeTagger

EngineName = Literal["vllm", "transformers"]
BaselineName = Literal["majority", "lexical", "linear", "nearest"]
DEFAULT_MODEL = "smollm2-135m"
DEFAULT_SHOTS = 4
DEFAULT_MAX_TAGS = 8
MAX_TOKENS = 256
"""Of a whole answer of a prompted model."""


def load_engine(model: str = DEFAULT_MODEL, engine: EngineName = "vllm", *, dtype: str | None = None) -> Engine:
    """Return a loaded language model; `dtype` None takes the faster one on this machine.

    Raises:
        ModelError: the model is not to be had.
        MissingExtra: the engine is not installed.
    """
    if engine == "vllm":
        from hangtag.taggers.vllm_offline import VllmEngine

        return VllmEngine(model, dtype=dtype)
    from hangtag.taggers.transformers_local import TransformersEngine

    return TransformersEngine(model, dtype=dtype)


def load_baseline(
    name: BaselineName, train: Sequence[Product], validation: Sequence[Product], vocabulary: TagVocabulary
) -> Tagger:
    """Return a tagger without a language model, fitted on `train`, its thresholds tuned on `validation`.

    Raises:
        MissingExtra: its library is not installed.
    """
    if name == "majority":
        from hangtag.taggers.majority import MajorityTagger

        return MajorityTagger.fit(train, vocabulary)
    if name == "lexical":
        from hangtag.taggers.lexical import LexicalTagger

        return LexicalTagger(vocabulary)
    if name == "linear":
        from hangtag.taggers.linear import LinearTagger

        return LinearTagger.fit(train, validation, vocabulary)
    from hangtag.taggers.nearest import NearestTagger

    return NearestTagger.fit(train, validation, vocabulary)


def split_examples(examples: Sequence[Product]) -> tuple[list[Product], list[Product]]:
    """Return labelled products as training and validation: one in five is for validation, at least one.

    Which ones is decided by hashes of their texts: their order in the file counts nothing.
    """
    ranked = sorted(examples, key=lambda product: hashlib.sha256(product.text.encode()).digest())
    num_held = max(1, len(ranked) // 5)
    return ranked[num_held:], ranked[:num_held]


def default_limits(
    vocabulary: TagVocabulary,
    examples: Sequence[Product] = (),
    *,
    min_tags: int = 0,
    max_tags: int | None = None,
    with_parents: bool = False,
) -> Limits:
    """Return limits of an answer; `max_tags` None allows as many tags as the largest example holds, 8 without
    examples, and never fewer than the facets' minima need."""
    if max_tags is None:
        most = max((len(example.tags or ()) for example in examples), default=DEFAULT_MAX_TAGS)
        max_tags = max(most, min_tags, sum(limit.min for limit in vocabulary.facets.values()), 1)
    return Limits(min_tags=min_tags, max_tags=max_tags, with_parents=with_parents)


def default_shots(examples: Sequence[Product]) -> int:
    """Return the number of examples in a prompt where nobody says one."""
    return min(DEFAULT_SHOTS, len(examples))


def check_examples(examples: Sequence[Product], vocabulary: TagVocabulary) -> None:
    """Refuse labelled products whose tags are not in the vocabulary. Raises DataError: names the first one."""
    for example in examples:
        unknown = [tag for tag in example.tags or () if tag not in vocabulary]
        if unknown:
            raise DataError(f"example {example.id!r} has the tag {unknown[0]!r}, which is not in the vocabulary")


def load_tagger(
    vocabulary: TagVocabulary | str | Path,
    model: str | Engine = DEFAULT_MODEL,
    *,
    examples: Sequence[Product] | str | Path = (),
    shots: int | None = None,
    limits: Limits | None = None,
    template: str | Path | None = None,
    budget: Budget | None = None,
    engine: EngineName = "vllm",
    decoding: Decoding = "set",
    max_tokens: int = MAX_TOKENS,
) -> GenerativeTagger:
    """Return a tagger that prompts a language model with zero or a few examples.

    `vocabulary` and `examples` (labelled products) may be files. `shots` None takes 4 where there are examples.
    `limits` None takes `default_limits`. `max_tokens` is for a whole answer.

    Raises:
        HangtagError: a file, the model, the engine, the template or the limits are refused.
    """
    from hangtag.taggers.generative import GenerativeTagger
    from hangtag.taggers.piece_tokenizer import HFPieceTokenizer

    if not isinstance(vocabulary, TagVocabulary):
        vocabulary = TagVocabulary.from_path(vocabulary)
    labelled = load_labelled(examples) if isinstance(examples, str | Path) else tuple(examples)
    check_examples(labelled, vocabulary)
    if shots is None:
        shots = default_shots(labelled)
    limits = limits or default_limits(vocabulary, labelled)
    loaded = load_engine(model, engine) if isinstance(model, str) else model
    tokenizer = HFPieceTokenizer(loaded.tokenizer)
    budget = budget or Budget()
    prompter = Prompter(
        vocabulary,
        tokenizer,
        template=template,
        shots=shots,
        nearest_examples=NearestLabelled(labelled) if shots and labelled else None,
        nearest_tags=NearestVocabulary(vocabulary) if budget.shortlist else None,
        budget=budget,
    )
    return GenerativeTagger(
        loaded,
        prompter,
        constraint=TagConstraint.compile(vocabulary, tokenizer),
        decoding=decoding,
        limits=limits,
        max_tokens=max_tokens,
    )


class AnswerSettings(BaseModel):
    """How a fine-tuned model reads a product and writes its answer; a part of the run's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Literal["tag_tokens", "text"]
    """One token a tag (`hangtag.tag_tokens`), or the tokenizer's ordinary tokens."""
    min_tags: int = Field(default=0, ge=0)
    max_tags: int = Field(ge=1)
    max_tokens: int = Field(ge=2)
    """Tokens of a whole answer."""
    title: int
    """Tokens of a title; the rest is cut. `description` and `attributes` likewise."""
    description: int
    attributes: int

    @property
    def limits(self) -> Limits:
        """The limits of an answer."""
        return Limits(min_tags=self.min_tags, max_tags=self.max_tags)

    @property
    def budget(self) -> Budget:
        """The limits of a prompt, which lists no vocabulary."""
        return Budget(
            title=self.title,
            description=self.description,
            attributes=self.attributes,
            vocabulary=0,
            shortlist=0,
        )


def compile_answers(tokenizer: Any, vocabulary: TagVocabulary, answer: str) -> TagConstraint:
    """Return the constraint of a fine-tuned model's answers; see `AnswerSettings.answer`.

    Raises:
        ConstraintError: the tokenizer was not extended for this vocabulary, or cannot spell a tag.
    """
    if answer == "tag_tokens":
        from hangtag.tag_tokens import TagTokens

        return TagConstraint.from_spelling(
            vocabulary, TagTokens.read(tokenizer.get_vocab(), vocabulary).spelling()
        )
    from hangtag.taggers.piece_tokenizer import HFPieceTokenizer

    return TagConstraint.compile(vocabulary, HFPieceTokenizer(tokenizer))


def fine_tuned_tagger(
    engine: Engine,
    vocabulary: TagVocabulary,
    settings: AnswerSettings,
    *,
    template: str | Path,
    decoding: Decoding = "set",
    limits: Limits | None = None,
    calibration: Calibration | None = None,
) -> GenerativeTagger:
    """Return a tagger over a fine-tuned model: the same prompt, spelling and limits as in its training.

    `limits` None takes those of the training.
    """
    from hangtag.taggers.generative import GenerativeTagger
    from hangtag.taggers.piece_tokenizer import HFPieceTokenizer

    prompter = Prompter(vocabulary, HFPieceTokenizer(engine.tokenizer), template=template, budget=settings.budget)
    return GenerativeTagger(
        engine,
        prompter,
        constraint=compile_answers(engine.tokenizer, vocabulary, settings.answer),
        decoding=decoding,
        limits=limits or settings.limits,
        max_tokens=settings.max_tokens,
        calibration=calibration,
    )


def load_run_tagger(
    run: FineTunedRun | str | Path,
    *,
    engine: EngineName = "vllm",
    weights: str = "model",
    decoding: Decoding = "set",
    limits: Limits | None = None,
) -> GenerativeTagger:
    """Return the tagger that a run of `sft.train` made, with calibrated confidences.

    `weights` is the folder in the run that `sft.export` wrote: `model`, or `model-int8`.

    Raises:
        DataError: the run is not complete, not exported, or not of a language model.
        ModelError: the engine cannot load the weights.
    """
    trained = run if isinstance(run, FineTunedRun) else read_run(run)
    # What is wrong with the run is said before an engine is loaded.
    folder, _ = trained.exported(weights)
    loaded = load_engine(str(folder), engine)
    loaded.name = trained.name
    return run_tagger(trained, loaded, decoding=decoding, limits=limits)


def run_tagger(
    trained: FineTunedRun, engine: Engine, *, decoding: Decoding = "set", limits: Limits | None = None
) -> GenerativeTagger:
    """Return the tagger of a run over an engine that has its weights; see `load_run_tagger`.

    Raises:
        DataError: its calibration is damaged.
    """
    files = trained.files
    return fine_tuned_tagger(
        engine,
        trained.vocabulary,
        trained.answers,
        template=files.prompt,
        decoding=decoding,
        limits=limits,
        calibration=Calibration.load(files.calibration) if files.calibration.is_file() else None,
    )


@dataclass(frozen=True, slots=True)
class FineTunedRun:
    """A completed run directory of `sft.train`: its manifest, its vocabulary, and how it answers."""

    folder: Path
    manifest: RunManifest
    vocabulary: TagVocabulary
    answers: AnswerSettings

    @property
    def name(self) -> str:
        """What taggings call its model."""
        return self.folder.resolve().name

    @property
    def files(self) -> RunFiles:
        """Its files."""
        return RunFiles(self.folder)

    def exported(self, weights: str) -> tuple[Path, str]:
        """Return the folder of exported weights, `model` or `model-int8`, and their SHA-256.

        Raises:
            DataError: they are not there.
        """
        export = self.manifest.details.get("export", {})
        digest = (export if weights == "model" else export.get("int8", {})).get("sha256")
        if digest is None or not (self.folder / weights / "config.json").is_file():
            how = "" if weights == "model" else " --quantize int8"
            raise DataError(
                f"{self.folder}: no {weights}/; export the run first: "
                f"python -m sft.export --run {self.folder}{how}"
            )
        return self.folder / weights, digest


def read_run(run: str | Path) -> FineTunedRun:
    """Return what a fine-tuned run directory says of itself.

    Raises:
        DataError: the run is not complete, or not of a language model.
    """
    manifest, vocabulary = load_run(run)
    try:
        answers = AnswerSettings.model_validate(manifest.details["answers"])
        return FineTunedRun(Path(run), manifest, vocabulary, answers)
    except (KeyError, ValidationError):
        raise DataError(
            f"{run}: a run of kind {manifest.kind!r} by {manifest.program}; expected one of sft.train"
        ) from None


class NearestLabelled:
    """The labelled products whose text is nearest; embedded at the first call."""

    def __init__(self, examples: Sequence[Product]) -> None:
        from hangtag.nearest import NearestTexts, default_encoder

        self._examples = examples
        texts = [example.text for example in examples]
        self._index = NearestTexts(default_encoder(texts), texts)

    def __call__(self, products: Sequence[Product], k: int) -> list[list[Product]]:
        """See `hangtag.prompt.NearestExamples`."""
        best, _ = self._index.query([product.text for product in products], k)
        return [[self._examples[position] for position in row] for row in best]


class NearestVocabulary:
    """The tags whose name, aliases and description are nearest; embedded at the first call."""

    def __init__(self, vocabulary: TagVocabulary) -> None:
        self._vocabulary = vocabulary
        self._index: NearestTexts | None = None

    def __call__(self, products: Sequence[Product], k: int) -> list[list[str]]:
        """See `hangtag.prompt.NearestTags`."""
        from hangtag.nearest import NearestTexts, default_encoder

        if self._index is None:
            texts = [", ".join([tag.tag, *tag.aliases, tag.description]).rstrip(", ") for tag in self._vocabulary]
            self._index = NearestTexts(default_encoder(texts), texts)
        best, _ = self._index.query([product.text for product in products], k)
        return [[self._vocabulary.names[position] for position in row] for row in best]
