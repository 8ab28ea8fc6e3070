"""Which tagger: the one description behind every door, from which identity and loading follow.

`hangtag.tagger_options` is what a user says, in options or in YAML; it is read into a `TaggerSpec`.
`TaggerSpec.identity` decides what counts as the same tagger (the keys of rows in a catalogue run, cached
predictions of an evaluation), and `TaggerSpec.load` is the way to a tagger that answers.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hangtag.catalogue.labelled import load_labelled
from hangtag.constraint import Limits
from hangtag.encoders.nearest import default_encoder_name
from hangtag.errors import DataError
from hangtag.evidence.fusion import Fusion
from hangtag.evidence.loading import default_fusion
from hangtag.language_model.prompt import Budget, default_template
from hangtag.language_model.run import FineTunedRun, read_run
from hangtag.loading import (
    MAX_TOKENS,
    BaselineName,
    EngineName,
    load_baseline,
    load_engine,
    load_run_tagger,
    load_tagger,
    run_tagger,
    split_examples,
)
from hangtag.manifest import file_sha256, folder_sha256
from hangtag.models import model_digest
from hangtag.product import Product
from hangtag.tagging import Tagger
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    from hangtag.language_model.generative import Decoding, Engine, GenerativeTagger

_FORM = 1
"""Counts up when the same ingredients begin to give other prompts or taggings."""
_FIRST_TEMPLATES = frozenset(
    (
        "5654f71058d0cff080d2984a7b80b7d83611d1a4eaa96127ac8b1092c69f7be4",  # zero_shot_v1
        "d054c1b56da71e043ce449ba63ac54ae1fe2257fce442abcd4bd0f9f92caf65a",  # few_shot_v1
    )
)
"""SHA-256 of the templates of 0.1.0, which named none in the identity of an endpoint's taggings."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled products for few-shot prompts, and the SHA-256 of where they came from (None: there are none)."""

    products: tuple[Product, ...] = ()
    sha256: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> Examples:
        """Return the labelled products of a file, a URI, or - for standard input.

        Raises:
            DataError: they cannot be read as such.
        """
        products = load_labelled(path)
        if Path(path).is_file():
            return cls(products, file_sha256(path))
        text = "\n".join(product.model_dump_json() for product in products)
        return cls(products, hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Prompted:
    """A language model that is prompted with zero or a few examples."""

    model: str
    examples: Examples
    shots: int
    limits: Limits
    template: Path
    decoding: Decoding = "set"
    max_tokens: int = MAX_TOKENS
    evidence: Fusion | None = None

    @property
    def name(self) -> str:
        """What taggings call it."""
        return self.model

    def identity(self) -> dict[str, Any]:
        """See `TaggerSpec.identity`. Raises ModelError: the model is not to be had."""
        described = self._of_model()
        if self.evidence is not None:
            described["evidence"] = _evidence(self.evidence, self.examples)
        return described

    def _of_model(self) -> dict[str, Any]:
        return {
            "model": model_digest(self.model),
            "prompt": {
                "template": file_sha256(self.template),
                "shots": self.shots,
                "examples": self.examples.sha256 if self.shots else None,
                "encoder": default_encoder_name() if self.shots else None,
                "budget": repr(Budget()),
            },
            "limits": _limits(self.limits),
            "decoding": {"kind": self.decoding, "max_tokens": self.max_tokens},
            "calibration": None,
        }

    def load(self, vocabulary: TagVocabulary, engine: EngineName | Engine) -> GenerativeTagger:
        """See `TaggerSpec.load`."""
        loaded = load_engine(self.model, engine) if isinstance(engine, str) else engine
        return load_tagger(
            vocabulary,
            loaded,
            examples=self.examples.products,
            shots=self.shots,
            limits=self.limits,
            template=self.template,
            decoding=self.decoding,
            max_tokens=self.max_tokens,
            evidence=self.evidence,
        )


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A completed run of `sft.train`: it brings prompt, limits and calibration. `weights` names their folder."""

    run: FineTunedRun
    weights: str = "model"
    decoding: Decoding = "set"
    fused: bool = False
    """Whether the evidence that `sft.fuse` fitted leads it."""

    @property
    def name(self) -> str:
        """What taggings call it."""
        return self.run.name

    def identity(self) -> dict[str, Any]:
        """See `TaggerSpec.identity`. Raises DataError: the run has no such weights."""
        _, digest = self.run.exported(self.weights)
        files = self.run.files
        described: dict[str, Any] = {
            "model": {"base": self.run.manifest.base_model, "sha256": digest},
            "prompt": {"template": file_sha256(files.prompt)},
            "settings": self.run.answers.model_dump(),
            "decoding": {"kind": self.decoding},
            "calibration": file_sha256(files.calibration) if files.calibration.is_file() else None,
        }
        return described | {"evidence": folder_sha256(files.evidence)} if self.fused else described

    def load(self, vocabulary: TagVocabulary, engine: EngineName | Engine) -> GenerativeTagger:
        """See `TaggerSpec.load`; the run's own vocabulary counts."""
        if isinstance(engine, str):
            return load_run_tagger(
                self.run, engine=engine, weights=self.weights, decoding=self.decoding, fused=self.fused
            )
        return run_tagger(self.run, engine, decoding=self.decoding, fused=self.fused)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind an OpenAI-compatible server, known by its name only."""

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable with the server's key."""
    examples: Examples = Examples()
    shots: int = 0
    concurrency: int = 32
    constrained: bool = True
    max_tokens: int = MAX_TOKENS

    @property
    def name(self) -> str:
        """What taggings call it."""
        return self.model

    def identity(self) -> dict[str, Any]:
        """See `TaggerSpec.identity`.

        Examples count without shots too: the answer's limits are taken from them. A template counts by its file's
        hash, except for those of the first release, whose taggings stand in folders without one.
        """
        prompt: dict[str, Any] = {"examples": self.examples.sha256, "shots": self.shots}
        template = file_sha256(default_template(self.shots))
        if template not in _FIRST_TEMPLATES:
            prompt["template"] = template
        described: dict[str, Any] = {"model": self.model, "prompt": prompt}
        return described if self.constrained else described | {"decoding": {"kind": "free"}}

    def load(self, vocabulary: TagVocabulary, engine: EngineName | Engine) -> Tagger:
        """See `TaggerSpec.load`; the server is its own engine."""
        from hangtag.remote.http_client import HttpTagger

        return HttpTagger(
            vocabulary,
            url=self.url,
            model=self.model,
            key=os.environ.get(self.key_variable),
            examples=self.examples.products,
            shots=self.shots,
            constrained=self.constrained,
            concurrency=self.concurrency,
            max_tokens=self.max_tokens,
        )


@dataclass(frozen=True, slots=True)
class Baseline:
    """A tagger without a language model. `lexical` and `evidence` need no examples, the others learn from them."""

    name: BaselineName
    examples: Examples

    def identity(self) -> dict[str, Any]:
        """See `TaggerSpec.identity`."""
        described: dict[str, Any] = {
            "baseline": self.name,
            "examples": self.examples.sha256,
            "encoder": default_encoder_name() if self.name == "nearest" else None,
        }
        if self.name == "evidence":
            fusion = default_fusion(has_examples=bool(self.examples.products))
            described["evidence"] = _evidence(fusion, self.examples)
        return described

    def load(self, vocabulary: TagVocabulary, engine: EngineName | Engine) -> Tagger:
        """See `TaggerSpec.load`; one example in five is kept back for the thresholds. No engine is loaded."""
        train, validation = split_examples(self.examples.products)
        return load_baseline(self.name, train, validation, vocabulary)


@dataclass(frozen=True, slots=True)
class Null:
    """No model: tags drawn from a hash of the text, to measure everything else."""

    name: str = "null"

    def identity(self) -> dict[str, Any]:
        """See `TaggerSpec.identity`."""
        return {"model": self.name, "prompt": {"examples": None, "shots": 0}}

    def load(self, vocabulary: TagVocabulary, engine: EngineName | Engine) -> Tagger:
        """See `TaggerSpec.load`."""
        from hangtag.baselines.null import NullTagger

        return NullTagger(vocabulary)


@dataclass(frozen=True, slots=True)
class TaggerSpec:
    """One tagger, described: a vocabulary and where its tags come from. No engine is loaded yet."""

    vocabulary: TagVocabulary
    source: Prompted | FineTuned | Endpoint | Baseline | Null

    @property
    def name(self) -> str:
        """What taggings call the model."""
        return self.source.name

    def identity(self) -> dict[str, Any]:
        """Return everything beside the product that decides a tagging, as plain JSON.

        Two specs with equal identities give equal taggings; `hangtag.bulk.keys` hashes it into the keys of rows.

        Raises:
            HangtagError: a model or exported weights are not there.
        """
        facets = {name: [limits.min, limits.max] for name, limits in self.vocabulary.facets.items()}
        about = {"vocabulary": self.vocabulary.fingerprint, "facets": facets}
        return {"form": _FORM, **self.source.identity(), **about}

    def load(self, engine: EngineName | Engine = "vllm") -> Tagger:
        """Return the tagger, ready. `engine` is a name, or an engine that has the weights already.

        Raises:
            HangtagError: the model or the engine is not to be had.
        """
        return self.source.load(self.vocabulary, engine)


def of_run(
    run: str | Path, *, weights: str = "model", decoding: Decoding = "set", fused: bool | None = None
) -> TaggerSpec:
    """Return the description of a run's tagger; `fused` None: led by evidence where the run has some.

    Raises:
        DataError: no completed run of a language model, or none with evidence.
    """
    trained = read_run(run)
    is_led = trained.is_fused and decoding == "set" if fused is None else fused
    if is_led and not trained.is_fused:
        raise DataError(f"{run}: no evidence; fit it first: python -m sft.fuse --run {run} --data DIR")
    return TaggerSpec(trained.vocabulary, FineTuned(trained, weights, decoding, is_led))


def _evidence(fusion: Fusion, examples: Examples) -> dict[str, Any]:
    """Return what decides evidence beside the product."""
    return {
        "weights": fusion.model_dump(exclude={"fitted_on"}),
        "encoder": default_encoder_name(),
        "examples": examples.sha256,
    }


def _limits(limits: Limits) -> dict[str, Any]:
    facets = limits.facets
    return {
        "min_tags": limits.min_tags,
        "max_tags": limits.max_tags,
        "with_parents": limits.with_parents,
        "only_facets": sorted(limits.only_facets) if limits.only_facets is not None else None,
        "facets": {name: [limit.min, limit.max] for name, limit in facets.items()} if facets else None,
    }
