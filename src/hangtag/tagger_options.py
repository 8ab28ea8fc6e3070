"""What a user says of a tagger, in options, YAML or the server's settings, and what it describes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hangtag.config import Recipe
from hangtag.errors import RecipeError
from hangtag.evidence.fusion import Fusion
from hangtag.evidence.loading import default_fusion
from hangtag.language_model.examples import check_examples, default_limits, default_shots
from hangtag.language_model.prompt import default_template
from hangtag.loading import (
    DEFAULT_MODEL,
    MAX_TOKENS,
    BaselineName,
)
from hangtag.spec import Baseline, Endpoint, Examples, Prompted, TaggerSpec, of_run
from hangtag.vocabulary import TagVocabulary


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
            if isinstance(self.evidence, Path):
                raise RecipeError(
                    f"--evidence {self.evidence} cannot be combined with --run; take default or none"
                )
            fused = None if self.evidence == "default" else False
            return of_run(self.run, weights=self.weights, decoding=self.decoding, fused=fused)
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
)


# Baselines that learn from nothing but the vocabulary.
_WITHOUT_LABELS = ("lexical", "evidence")


# What a server's tagger has its own way of.
_OF_SERVERS = ("max_tags", "min_tags", "with_parents", "prompt")
