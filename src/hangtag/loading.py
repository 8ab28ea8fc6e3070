"""From names and files to a ready tagger."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hangtag.catalogue.labelled import load_labelled
from hangtag.constraint import Limits, TagConstraint
from hangtag.evidence.fusion import Fusion
from hangtag.evidence.loading import default_fusion, load_evidence
from hangtag.language_model.calibration import Calibration
from hangtag.language_model.examples import NearestLabelled, check_examples, default_limits, default_shots
from hangtag.language_model.prompt import Budget, Prompter
from hangtag.language_model.run import AnswerSettings, FineTunedRun, compile_answers, read_run
from hangtag.language_model.shortlist import NearestVocabulary
from hangtag.product import Product
from hangtag.tagging import Tagger
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from hangtag.language_model.generative import Decoding, Engine, GenerativeTagger

EngineName = Literal["vllm", "transformers"]
BaselineName = Literal["majority", "lexical", "evidence", "linear", "nearest"]
DEFAULT_MODEL = "smollm2-135m"
MAX_TOKENS = 256
"""Of a whole answer of a prompted model."""


def load_engine(model: str = DEFAULT_MODEL, engine: EngineName = "vllm", *, dtype: str | None = None) -> Engine:
    """Return a loaded language model; `dtype` None takes the faster one on this machine.

    Raises:
        ModelError: the model is not to be had.
        MissingExtra: the engine is not installed.
    """
    if engine == "vllm":
        from hangtag.engines.vllm_offline import VllmEngine

        return VllmEngine(model, dtype=dtype)
    from hangtag.engines.transformers_local import TransformersEngine

    return TransformersEngine(model, dtype=dtype)


def load_baseline(
    name: BaselineName, train: Sequence[Product], validation: Sequence[Product], vocabulary: TagVocabulary
) -> Tagger:
    """Return a tagger without a language model, fitted on `train`, its thresholds tuned on `validation`.

    Raises:
        MissingExtra: its library is not installed.
    """
    if name == "majority":
        from hangtag.baselines.majority import MajorityTagger

        return MajorityTagger.fit(train, vocabulary)
    if name == "lexical":
        from hangtag.baselines.lexical import LexicalTagger

        return LexicalTagger(vocabulary)
    if name == "evidence":
        from hangtag.evidence.tagger import EvidenceTagger

        labelled = [*train, *validation]
        fusion = default_fusion(has_examples=bool(labelled))
        return EvidenceTagger(load_evidence(fusion, vocabulary, labelled))
    if name == "linear":
        from hangtag.baselines.linear import LinearTagger

        return LinearTagger.fit(train, validation, vocabulary)
    from hangtag.baselines.nearest import NearestTagger

    return NearestTagger.fit(train, validation, vocabulary)


def split_examples(examples: Sequence[Product]) -> tuple[list[Product], list[Product]]:
    """Return labelled products as training and validation: one in five is for validation, at least one.

    Which ones is decided by hashes of their texts: their order in the file counts nothing.
    """
    ranked = sorted(examples, key=lambda product: hashlib.sha256(product.text.encode()).digest())
    num_held = max(1, len(ranked) // 5)
    return ranked[num_held:], ranked[:num_held]


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
    evidence: Fusion | Literal["default"] | None = "default",
) -> GenerativeTagger:
    """Return a tagger that prompts a language model with zero or a few examples.

    `evidence` from words, meaning and examples leads correct sets (decoding "set"): with the default weights, with
    your own, or, None, not at all.

    `vocabulary` and `examples` (labelled products) may be files. `shots` None takes 4 where there are examples.
    `limits` None takes `default_limits`. `max_tokens` is for a whole answer.

    Raises:
        HangtagError: a file, the model, the engine, the template or the limits are refused.
    """
    from hangtag.language_model.generative import GenerativeTagger
    from hangtag.language_model.piece_tokenizer import HFPieceTokenizer

    if not isinstance(vocabulary, TagVocabulary):
        vocabulary = TagVocabulary.from_path(vocabulary)
    labelled = load_labelled(examples) if isinstance(examples, str | Path) else tuple(examples)
    check_examples(labelled, vocabulary)
    if shots is None:
        shots = default_shots(labelled)
    if evidence == "default":
        evidence = default_fusion(has_examples=bool(labelled))
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
        evidence=None if evidence is None or decoding != "set" else load_evidence(evidence, vocabulary, labelled),
    )


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
    from hangtag.language_model.generative import GenerativeTagger
    from hangtag.language_model.piece_tokenizer import HFPieceTokenizer

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
