"""The settings of `sft.prepare` and `sft.train`: what a recipe may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hangtag.config import Recipe

TRAINER_DEFAULTS: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "num_train_epochs": 2,
    "learning_rate": 6e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "logging_steps": 25,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_total_limit": 2,
    "dataloader_pin_memory": False,
    "seed": 17,
}
"""Options of TRL's SFTConfig where a recipe says nothing."""

Method = Literal["qlora", "lora", "dora", "adalora", "full", "prefix"]
Order = Literal["facet", "frequency", "random", "free"]


class TrainingRecipe(Recipe):
    """What the recipe of every training program has."""

    checkpoint_minutes: float = Field(default=10.0, ge=0)
    """Minutes between checkpoints; 0 writes one every step."""
    limit: int | None = Field(default=None, ge=1)
    """Train on that many products only, drawn with the seed; a smaller number draws a part of a larger one's."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Options of the trainer's configuration class (TRL's SFTConfig; of BERT transformers' TrainingArguments)
    under their own names; they win over the program's defaults. Where neither `bf16` nor `fp16` is given, a probe
    of a fraction of a second chooses."""


class Augmentation(Recipe):
    """Changes to training products, each drawn anew every epoch; the share of products that get it, 0: off."""

    typos: float = Field(default=0.0, ge=0, le=1)
    drop_attributes: float = Field(default=0.0, ge=0, le=1)
    """Each attribute of the product is left out with probability one half."""
    drop_description: float = Field(default=0.0, ge=0, le=1)
    """Only of products with a title."""
    synonyms: float = Field(default=0.0, ge=0, le=1)
    """Names and aliases of the product's tags in its text are replaced by others of the same tag."""


class Replay(Recipe):
    """Old products that are mixed in when a run is continued, against forgetting."""

    data: str
    """The labelled dataset of the run that is continued; its test split tells what was forgotten."""
    share: float = Field(default=0.25, ge=0, lt=1)
    """Old products in the training data, as a share of all."""


class TrainRecipe(TrainingRecipe):
    """Settings of one fine-tuning run."""

    model: str
    """The base model: a packaged model's name, a folder or a hub id."""
    init: str | None = None
    """A run to continue: training starts from its adapter and tag rows. Base model, answer and method stay."""
    replay: Replay | None = None

    answer: Literal["tag_tokens", "text"] = "tag_tokens"
    """One token a tag, or the tokenizer's ordinary tokens."""
    order: Order | list[str] = "facet"
    """In which order a product's tags are written: by facet, as the vocabulary lists them, or as this list of
    facets says (those that it leaves out come after it); most frequent in training first; random, anew every
    epoch; or `free`: random, and at each step all tags that are left share the target. Each tag is chosen in the
    light of those before it."""
    prompt: str = "tag_v1"
    """A template of prompts/, without its suffix, or the path of one."""
    chat: Literal["plain", "base"] = "plain"
    """How messages become text: `plain` is the product and a line break, `base` the base model's chat template."""
    title: int = Field(default=64, ge=1)
    """Most tokens of a title; the rest is cut. An answer is never cut."""
    description: int = Field(default=256, ge=0)
    """Most tokens of a description."""
    attributes: int = Field(default=128, ge=0)
    """Most tokens of all attributes."""
    augment: Augmentation = Augmentation()
    tail_threshold: float = Field(default=0.0, ge=0, le=1)
    """Products with a tag that less than this share of the products hold are repeated, by the square root of how
    much rarer the tag is; 0: no product is."""

    method: Method = "qlora"
    """qlora: LoRA over a base in NF4; dora, adalora: over a base in full precision, like lora; full: all weights;
    prefix: prefix-tuning. The best weights on validation are kept, of adalora the last ones."""
    rank: int = Field(default=16, ge=1)
    """Of LoRA and its kin; for adalora the rank that it ends with."""
    alpha: int | None = Field(default=None, ge=1)
    """LoRA's scale is alpha / rank; None takes twice the rank."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Of LoRA's input."""
    prefix_tokens: int = Field(default=16, ge=1)
    """Virtual tokens of prefix-tuning."""
    rows_learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate of the tag tokens' embedding rows; the adapter has `trainer.learning_rate`."""

    compile: bool = False
    """Whether torch compiles the model's layers: half a minute at the start, then a CPU trains a quarter faster.
    Needs a C++ compiler."""
    validate_on: int = Field(default=300, ge=1)
    """Validation products, drawn with the seed, that are tagged to measure set-F1 during training."""
    validations_per_epoch: int = Field(default=4, ge=1)
    """How often that is done in one pass over the training data."""
    patience: int = Field(default=4, ge=1)
    """Training stops after this many validations in a row without a better set-F1."""
    calibrate_on: int = Field(default=1000, ge=1)
    """Validation products, drawn with the seed, whose taggings confidences are calibrated on."""

    @property
    def template(self) -> Path:
        """The prompt template's path."""
        from hangtag.language_model.prompt import PROMPTS

        return PROMPTS / f"{self.prompt}.jinja" if "." not in self.prompt else Path(self.prompt)

    @model_validator(mode="after")
    def _check(self) -> TrainRecipe:
        if self.replay and not self.init:
            raise ValueError("`replay` belongs to `init`: there is no old run whose products could be replayed")
        if self.order == "free" and self.answer == "text":
            raise ValueError("`order: free` needs `answer: tag_tokens`; take facet, frequency or random")
        return self
