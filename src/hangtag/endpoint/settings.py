"""What the process that starts the server tells the one that serves: one JSON file, private to its user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hangtag.config import Recipe
from hangtag.errors import RecipeError
from hangtag.tagger_options import TaggerOptions

SETTINGS_VARIABLE = "HANGTAG_ENDPOINT"
SETTINGS, KEYS, REGISTER = "settings.json", "keys.json", "constraints.json"


class VocabularySettings(TaggerOptions):
    """One vocabulary of the server, and the tagger that goes with it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What requests call it."""


class EndpointSettings(Recipe):
    """Everything the endpoint needs beside vLLM's own options."""

    model: str
    """Folder or hub id of the weights."""
    tokenizer: str | None = None
    """What writes the prompts, where it is not the model's own: an adapter's run has one."""
    names: tuple[str, ...] = Field(min_length=1)
    """Names that requests may give as `model`; the last one is written into taggings."""
    is_cpu: bool
    """Whether vLLM computes on a CPU."""
    max_model_len: int = Field(ge=16)
    """Tokens of prompt and answer together."""
    vocabularies: tuple[VocabularySettings, ...] = Field(min_length=1)
    """The first one is the default."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """A tagging is accepted if every tag's confidence reaches it."""
    needs_key: bool = False
    """Whether requests must bring one of the keys in `keys.json`."""
    max_body_bytes: int = Field(default=8 << 20, ge=1024)
    timeout_s: float = Field(default=120.0, gt=0)
    """From a request's first byte to the last of its answer."""
    max_in_flight: int = Field(default=128, ge=1)
    """Products that wait or are worked on, before requests are turned away."""
    max_parallel: int = Field(default=64, ge=1)
    """Products of one call that are worked on at once."""
    allow_own_formats: bool = False
    """Hand requests on to vLLM, without prompt and constraint, whose response_format does not admit tags."""
    log_products: Literal["never", "masked", "presidio"] = "never"
    """Whether product text is logged, and what masks it."""

    @classmethod
    def load(cls, folder: Path) -> EndpointSettings:
        """Return the settings in a folder. Raises RecipeError: there are none, or of another version."""
        path = folder / SETTINGS
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RecipeError(
                f"{path}: not the endpoint's settings ({error}); start python -m serve.server"
            ) from None


def settings_folder() -> Path:
    """Return the folder that the environment names. Raises RecipeError: it names none."""
    folder = os.environ.get(SETTINGS_VARIABLE)
    if not folder:
        raise RecipeError(f"{SETTINGS_VARIABLE} is not set; start the endpoint with python -m serve.server")
    return Path(folder)
