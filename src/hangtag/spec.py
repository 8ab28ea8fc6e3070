"""Which tagger: the one description behind every door, from which identity and loading follow.

`TaggerOptions` is what a user says, in options or in YAML; `read` checks it, reads its files and returns a
`TaggerSpec`. `TaggerSpec.identity` decides what counts as the same tagger (the keys of rows in a catalogue run,
cached predictions of an evaluation), and `TaggerSpec.load` is the way to a tagger that answers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hangtag.catalogue.labelled import load_labelled
from hangtag.config import Recipe
from hangtag.constraint import Limits
from hangtag.encoders.nearest import default_encoder_name
from hangtag.errors import RecipeError
from hangtag.evidence.fusion import Fusion
from hangtag.evidence.loading import default_fusion
from hangtag.language_model.examples import check_examples, default_limits, default_shots
from hangtag.language_model.prompt import Budget, default_template
from hangtag.language_model.run import FineTunedRun, read_run
from hangtag.loading import (
    DEFAULT_MODEL,
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
from hangtag.manifest import file_sha256
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

    @property
    def name(self) -> str:
        """What taggings call it."""
        return self.run.name

    def identity(self) -> dict[str, Any]:
        """See `TaggerSpec.identity`. Raises DataError: the run has no such weights."""
        _, digest = self.run.exported(self.weights)
        files = self.run.files
        return {
            "model": {"base": self.run.manifest.base_model, "sha256": digest},
            "prompt": {"template": file_sha256(files.prompt)},
            "settings": self.run.answers.model_dump(),
            "decoding": {"kind": self.decoding},
            "calibration": file_sha256(files.calibration) if files.calibration.is_file() else None,
        }

    def load(self, vocabulary: TagVocabulary, engine: EngineName | Engine) -> GenerativeTagger:
        """See `TaggerSpec.load`; the run's own vocabulary counts."""
        if isinstance(engine, str):
            return load_run_tagger(self.run, engine=engine, weights=self.weights, decoding=self.decoding)
        return run_tagger(self.run, engine, decoding=self.decoding)


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


class TaggerOptions(Recipe):
    """What a user says of a tagger, in options or YAML; paths are files that `read` opens."""

    run: Path | None = None
    """A fine-tuned run directory; it brings vocabulary, prompt, limits and calibration."""
    weights: Literal["model", "model-int8"] = "model"
    """Which of the run's exported weights."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server, with its version: http://HOST:PORT/v1."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable with the endpoint's key."""
    baseline: BaselineName | None = None
    """A tagger without a language model."""
    model: str = DEFAULT_MODEL
    """A fetched model's name, a model folder, a hub id, or the endpoint's name of its model."""
    vocabulary: Path | None = None
    """The tags: JSON, CSV, or one a line."""
    examples: str | Path | None = None
    """Labelled products for few-shot prompts; a URI stays text, for a path would lose one of its slashes."""
    shots: int | None = None
    """Examples in each prompt; by default 4 where there are examples."""
    min_tags: int = 0
    """Fewest tags of an answer."""
    max_tags: int | None = None
    """Most tags of an answer; by default as many as an example holds, 8 without examples."""
    with_parents: bool = False
    """A tag's parents come with it."""
    prompt: Path | None = None
    """A prompt template in place of the default one."""
    decoding: Literal["set", "schema", "free"] = "set"
    """Correct sets; the engine's own JSON schema; no constraint."""
    max_tokens: int = MAX_TOKENS
    """Tokens of a whole answer."""
    evidence: Literal["default", "none"] | Path = "default"
    """What leads a prompted model's correct sets: the default weights, nothing, or a file of weights."""

    def read(self) -> TaggerSpec:
        """Return what these options describe, its files read and checked.

        Raises:
            HangtagError: options contradict each other, a number is out of range, or a file or run is refused.
        """
        for name, low in (("shots", 0), ("max_tags", 1), ("min_tags", 0), ("max_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise RecipeError(f"--{name.replace('_', '-')} {value}: expected at least {low}")
        if self.run is not None:
            self._refuse(_OF_RUNS, "--run, which brings its own")
            return of_run(self.run, weights=self.weights, decoding=self.decoding)
        if self.vocabulary is None:
            raise RecipeError("the tags are missing: give --vocabulary F, or --run RUN for a fine-tuned tagger")
        if self.endpoint is not None:
            self._refuse((*_OF_SERVERS, "baseline", "evidence"), "--endpoint, which takes the defaults")
        if self.baseline is not None:
            self._refuse(
                (*_OF_SERVERS, "shots", "decoding", "evidence"), f"--baseline {self.baseline}, which asks no model"
            )
        vocabulary = TagVocabulary.from_path(self.vocabulary)
        examples = Examples.read(self.examples) if self.examples else Examples()
        check_examples(examples.products, vocabulary)
        if self.baseline is not None:
            if self.baseline not in _WITHOUT_LABELS and len(examples.products) < 2:
                raise RecipeError(
                    f"--baseline {self.baseline} learns from labelled products: got {len(examples.products)}, "
                    "expected two or more; give --examples F, or take --baseline evidence"
                )
            return TaggerSpec(vocabulary, Baseline(self.baseline, examples))
        shots = default_shots(examples.products) if self.shots is None else self.shots
        if self.endpoint is not None:
            server = Endpoint(
                self.endpoint, self.model, self.key_variable, examples, shots, max_tokens=self.max_tokens
            )
            return TaggerSpec(vocabulary, server)
        limits = default_limits(
            vocabulary,
            examples.products,
            min_tags=self.min_tags,
            max_tags=self.max_tags,
            with_parents=self.with_parents,
        )
        template = self.prompt or default_template(shots)
        return TaggerSpec(
            vocabulary,
            Prompted(
                self.model,
                examples,
                shots,
                limits,
                template,
                self.decoding,
                self.max_tokens,
                self._fusion(examples),
            ),
        )

    def _fusion(self, examples: Examples) -> Fusion | None:
        if isinstance(self.evidence, Path):
            if self.decoding != "set":
                raise RecipeError(f"--evidence {self.evidence} leads correct sets; take --decoding set")
            return Fusion.read(self.evidence)
        if self.evidence == "none" or self.decoding != "set":
            return None
        return default_fusion(has_examples=bool(examples.products))

    def _refuse(self, names: Sequence[str], beside: str) -> None:
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise RecipeError(f"--{name.replace('_', '-')} cannot be combined with {beside}")


# What a run was trained with, and so brings itself.
_OF_RUNS = (
    "vocabulary",
    "examples",
    "shots",
    "max_tags",
    "min_tags",
    "with_parents",
    "prompt",
    "endpoint",
    "baseline",
    "evidence",
)
# Baselines that learn from nothing but the vocabulary.
_WITHOUT_LABELS = ("lexical", "evidence")
# What a server's tagger has its own way of.
_OF_SERVERS = ("max_tags", "min_tags", "with_parents", "prompt")


def of_run(run: str | Path, *, weights: str = "model", decoding: Decoding = "set") -> TaggerSpec:
    """Return the description of a run's tagger. Raises DataError: no completed run of a language model."""
    trained = read_run(run)
    return TaggerSpec(trained.vocabulary, FineTuned(trained, weights, decoding))


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
