"""The embedding rows of a tag-token vocabulary, trained beside an adapter. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hangtag.language_model.tag_tokens import TagTokens

ROWS_FILE = "tag_rows.safetensors"


class TagRows(torch.nn.Module):
    """One row a tag (in the vocabulary's order), one for the close, one for the opening.

    Both spellings of a tag share a row; `row_of` has the row of each token id up to the last of these tokens, -1
    for others. `input` has shape (tags + 2, d); `output` is the same parameter where the model ties its
    embeddings. Kept in float32 whatever the model's dtype: steps of AdamW are finer than bfloat16.
    """

    def __init__(self, tokens: TagTokens, input_rows: torch.Tensor, output_rows: torch.Tensor | None) -> None:
        """Start from given rows; `output_rows` None ties them to `input_rows`."""
        super().__init__()
        self.ids = [*zip(tokens.first, tokens.later, strict=True), (tokens.close,), (tokens.open,)]
        self.input = torch.nn.Parameter(input_rows.float())
        self.is_tied = output_rows is None
        self.output = self.input if output_rows is None else torch.nn.Parameter(output_rows.float())
        row_of = torch.full((max(token for ids in self.ids for token in ids) + 1,), -1, dtype=torch.long)
        for row, ids in enumerate(self.ids):
            row_of[list(ids)] = row
        self.register_buffer("row_of", row_of, persistent=False)

    @classmethod
    def start(cls, model: Any, tokens: TagTokens, ordinary: Sequence[Sequence[int]]) -> TagRows:
        """Return rows that start as the mean of ordinary ones, given for the opening, the close and each tag."""
        opening, closing, *tags = ordinary

        def means(weight: torch.Tensor) -> torch.Tensor:
            return torch.stack([weight[list(ids)].float().mean(dim=0) for ids in (*tags, closing, opening)])

        weights = model.get_input_embeddings().weight.detach()
        is_tied = bool(model.config.get_text_config().tie_word_embeddings)
        return cls(
            tokens, means(weights), None if is_tied else means(model.get_output_embeddings().weight.detach())
        )

    @property
    def num_columns(self) -> int:
        """Columns of `logits`: the tags and the close."""
        return len(self.ids) - 1

    def embed(self, ids: torch.Tensor, embedding: torch.nn.Module) -> torch.Tensor:
        """Return the input vectors of tokens: the rows here, where a token has one, else those of `embedding`."""
        vectors = embedding(ids).clone()
        known = ids < len(self.row_of)
        rows = torch.where(known, self.row_of[torch.where(known, ids, 0)], -1)
        own = rows >= 0
        vectors[own] = self.input[rows[own]].to(vectors.dtype)
        return vectors

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the scores of the tags and of the close, shape (n, tags + 1), in float32, from (n, d)."""
        return hidden.float() @ self.output[: self.num_columns].T

    @torch.no_grad()
    def write_into(self, model: Any) -> None:
        """Copy the rows into the embeddings of `model`, which must be long enough: each spelling gets its row."""
        places = [(model.get_input_embeddings().weight, self.input)]
        if not self.is_tied:
            places.append((model.get_output_embeddings().weight, self.output))
        ids = torch.tensor([token for ids in self.ids for token in ids])
        rows = torch.tensor([row for row, ids in enumerate(self.ids) for _ in ids])
        for weight, values in places:
            weight[ids.to(weight.device)] = values[rows.to(values.device)].to(weight.device, weight.dtype)

    def save(self, folder: Path) -> None:
        """Write the rows into `folder`."""
        rows = {"input": self.input} if self.is_tied else {"input": self.input, "output": self.output}
        save_file({name: row.detach().cpu().contiguous() for name, row in rows.items()}, folder / ROWS_FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take the rows that `save` wrote."""
        stored = load_file(folder / ROWS_FILE)
        self.input.copy_(stored["input"])
        if not self.is_tied:
            self.output.copy_(stored["output"])
