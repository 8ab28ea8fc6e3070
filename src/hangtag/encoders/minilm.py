"""Sentence vectors of a Hugging Face encoder, all-MiniLM-L6-v2 by default."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hangtag.durable import replaced
from hangtag.errors import MissingExtra
from hangtag.home import hangtag_home
from hangtag.models import resolve_model

if TYPE_CHECKING:
    import torch

# Shorter lists are queries that come once; they would only fill the folder.
_MIN_CACHED = 256
# Lists whose vectors stay in memory.
_RECENT = 8


class MiniLmEncoder:
    """Turns texts into vectors: mean of the last layer's token vectors, in float32.

    Vectors of lists of 256 texts and more are kept under `hangtag_home()/embeddings`, by a hash of the model's
    weights' path, size and time, `max_length` and the texts.
    """

    def __init__(self, model: str = "minilm-l6", *, max_length: int = 128, batch_size: int = 64) -> None:
        """Load the encoder.

        Raises:
            ModelError: the model is not fetched or its folder is incomplete.
            MissingExtra: torch or transformers is not installed.
        """
        source = resolve_model(model)
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise MissingExtra(error.name or "transformers", "train") from None
        self.name = model
        self._batch_size = batch_size
        self._max_length = max_length
        self._identity = f"{source}|{_file_states(source)}|{max_length}"
        self._tokenizer = AutoTokenizer.from_pretrained(source)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = AutoModel.from_pretrained(source, dtype=torch.float32).eval().to(self._device)
        # Evidence and prompts ask for the vectors of the same few products one after the other.
        self._recent = functools.lru_cache(_RECENT)(self._compute)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector a text, shape (texts, d), rows of length 1. Cost: one forward pass."""
        if len(texts) < _MIN_CACHED:
            return self._recent(tuple(texts))
        digest = hashlib.sha256(self._identity.encode())
        for text in texts:
            digest.update(b"\0" + text.encode())
        path = hangtag_home() / "embeddings" / f"{digest.hexdigest()[:32]}.npy"
        with contextlib.suppress(OSError, ValueError, EOFError):
            kept: npt.NDArray[np.float32] = np.load(path)
            return kept
        vectors = self._compute(texts)
        # A cache that cannot be written costs time, not results.
        with contextlib.suppress(OSError), replaced(path) as temporary:
            np.save(temporary, vectors)
        return vectors

    def _compute(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import torch

        vectors = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        if not texts:
            return vectors
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                batch = self._tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
                batch = batch.to(self._device)
                hidden = self._model(**batch).last_hidden_state
                pooled = torch.nn.functional.normalize(mean_pool(hidden, batch["attention_mask"]), dim=1)
                vectors[rows] = pooled.cpu().numpy()
        # They may be handed out again.
        vectors.setflags(write=False)
        return vectors


def _file_states(source: str) -> str:
    """Return size and time of a model folder's files; empty for a hub id."""
    folder = Path(source)
    if not folder.is_dir():
        return ""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return ",".join(f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files)


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row's token vectors, padding left out; (rows, tokens, d) -> (rows, d)."""
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
