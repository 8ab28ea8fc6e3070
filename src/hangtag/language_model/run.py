"""A run directory of `sft.train` as it is read: how a fine-tuned model reads a product and writes its answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hangtag.constraint import Limits, TagConstraint
from hangtag.errors import DataError
from hangtag.language_model.prompt import Budget
from hangtag.manifest import RunFiles, RunManifest, load_run
from hangtag.vocabulary import TagVocabulary

if TYPE_CHECKING:
    pass


class AnswerSettings(BaseModel):
    """How a fine-tuned model reads a product and writes its answer; a part of the run's manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Literal["tag_tokens", "text"]
    """One token a tag (`hangtag.language_model.tag_tokens`), or the tokenizer's ordinary tokens."""
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
        from hangtag.language_model.tag_tokens import TagTokens

        return TagConstraint.from_spelling(
            vocabulary, TagTokens.read(tokenizer.get_vocab(), vocabulary).spelling()
        )
    from hangtag.language_model.piece_tokenizer import HFPieceTokenizer

    return TagConstraint.compile(vocabulary, HFPieceTokenizer(tokenizer))


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

    @property
    def is_fused(self) -> bool:
        """Whether evidence was fitted for it."""
        return self.files.evidence.is_dir()

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


def fused_calibration(files: RunFiles) -> Path:
    """Return where the calibration of fused answers is."""
    return files.evidence / "calibration.json"


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
