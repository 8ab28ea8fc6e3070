"""The settings of an evaluation: what a recipe of `eval.run` may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hangtag.config import Recipe
from hangtag.language_model.examples import DEFAULT_SHOTS
from hangtag.loading import DEFAULT_MODEL
from hangtag.metrics import NUM_RESAMPLES

Perturbation = Literal["typos", "lost_description", "upper_case", "shuffled_attributes", "injected_instructions"]
PERTURBATIONS: tuple[Perturbation, ...] = (
    "typos", "lost_description", "upper_case", "shuffled_attributes", "injected_instructions"
)  # fmt: skip


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names of an option such as `--arms bert,linear`; none where it is not given."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


class Endpoint(Recipe):
    """An OpenAI-compatible server for the arm `http`."""

    url: str
    """Up to and including the version, such as http://127.0.0.1:8000/v1."""
    model: str
    """The model's name at that server."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; an unset one sends none."""
    shots: int = Field(default=0, ge=0)
    """Examples in each prompt."""
    concurrency: int = Field(default=8, ge=1)
    """Most requests at one time."""


class Evaluation(Recipe):
    """One evaluation: arms, products and how figures are made."""

    arms: tuple[str, ...] = ()
    """Names of arms, see `eval.arms`; empty takes every arm that is there."""
    baseline: str = "bert"
    """The arm that every other is compared with."""
    model: str = DEFAULT_MODEL
    """The language model of zero_shot and few_shot: a fetched model's name, a folder or a hub id."""
    engine: Literal["vllm", "transformers"] | None = None
    """Runs language models; None takes vllm where it is installed."""
    shots: int = Field(default=DEFAULT_SHOTS, ge=1)
    """Examples in each prompt of few_shot."""
    http: Endpoint | None = None
    limit: int | None = Field(default=None, ge=1)
    """Test products for every arm, a seeded sample; None takes all."""
    llm_limit: int | None = Field(default=None, ge=1)
    """As `limit`, for prompted language models only; a part of the others' sample."""
    perturb: tuple[Perturbation, ...] = ()
    """Perturbations of the products under which every arm is measured again."""
    seed: int = 0
    """Of the sample, the perturbations and the bootstrap."""
    resamples: int = Field(default=NUM_RESAMPLES, ge=100)
    """Of the bootstrap."""
    rate: float | None = Field(default=None, gt=0)
    """What an hour of this machine costs, in a currency of your choice; gives cost per 1,000 products."""
    texts: bool = True
    """Whether texts, gold and predicted tags of single products may enter the reports."""
    allow_unknown_gold: bool = False
    """Whether gold tags that the vocabulary lacks are accepted; every arm misses them."""
