"""An encoder with a multi-label head: text in, one logit a tag out. Imports torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from hangtag.baselines.facet_decoding import facet_columns
from hangtag.encoders.minilm import mean_pool
from hangtag.vocabulary import TagVocabulary

Loss = Literal["bce", "facet_softmax"]
_HEAD = "head.safetensors"


class TagClassifier(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy
    """An encoder, its token vectors averaged, dropout and one linear layer with a logit a tag.

    Losses, summed over tags or facets and averaged over products:
    "bce": binary cross-entropy of every tag by itself;
    "facet_softmax": cross-entropy over the tags of each exclusive facet, where an optional facet has one more
    outcome "none" whose logit is 0; binary cross-entropy for the tags of other facets.
    """

    def __init__(self, encoder: Any, vocabulary: TagVocabulary, *, loss: Loss, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(encoder.config.hidden_size, len(vocabulary))
        self.loss = loss
        self._facets = _softmax_facets(vocabulary) if loss == "facet_softmax" else []
        in_softmax = {int(column) for columns, _ in self._facets for column in columns}
        self._binary = [column for column in range(len(vocabulary)) if column not in in_softmax]

    def start_at_frequencies(self, gold: npt.NDArray[np.bool_], vocabulary: TagVocabulary) -> None:
        """Set the head so that it first predicts every tag's share of the products, whatever the text.

        Without it, hundreds of rare labels spend the first hundreds of steps on learning that they are rare.
        `gold` has shape (products, tags).
        """
        # Half a product is added, so that a tag without any has a finite logit.
        shares = (gold.sum(axis=0) + 0.5) / (len(gold) + 1.0)
        bias = np.log(shares) - np.log1p(-shares)
        for columns, has_none in self._facets:
            rest = ((~gold[:, columns].any(axis=1)).sum() + 0.5) / (len(gold) + 1.0) if has_none else 1.0
            bias[columns] = np.log(shares[columns]) - np.log(rest)
        with torch.no_grad():
            self.head.bias.copy_(torch.from_numpy(bias))
            self.head.weight.mul_(0.1)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Return `logits`, shape (rows, tags), and `loss` where `labels` (0 or 1, same shape) are given."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        # Under autocast too the head works in float32: logits of 8 would be rounded to steps of 0.03.
        with torch.autocast(hidden.device.type, enabled=False):
            logits = self.head(self.dropout(mean_pool(hidden.float(), attention_mask)))
        if labels is None:
            return {"logits": logits}
        return {"loss": self._loss(logits, labels), "logits": logits}

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        total = logits.new_zeros(())
        for columns, has_none in self._facets:
            of_facet, gold = logits[:, columns], labels[:, columns]
            if has_none:
                of_facet = torch.nn.functional.pad(of_facet, (1, 0))
                gold = torch.cat([1.0 - gold.amax(dim=1, keepdim=True), gold], dim=1)
            # A product of the training data that holds none of a facet that needs one adds nothing.
            total = total - (gold * of_facet.log_softmax(dim=1)).sum()
        if self._binary:
            total = total + torch.nn.functional.binary_cross_entropy_with_logits(
                logits[:, self._binary], labels[:, self._binary], reduction="sum"
            )
        return total / len(logits)

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Write encoder and tokenizer in Hugging Face form, and the head beside them."""
        self.encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        head = {name: value.detach().cpu().contiguous() for name, value in self.head.state_dict().items()}
        save_file(head, folder / _HEAD)

    @classmethod
    def load(cls, folder: Path, vocabulary: TagVocabulary, *, loss: Loss) -> tuple[TagClassifier, Any]:
        """Return the classifier that `save` wrote, in float32 and evaluation mode, and its tokenizer."""
        encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
        model = cls(encoder, vocabulary, loss=loss)
        model.head.load_state_dict(load_file(folder / _HEAD))
        return model.eval(), AutoTokenizer.from_pretrained(folder)


def scores_of(logits: npt.NDArray[np.floating], vocabulary: TagVocabulary, loss: Loss) -> npt.NDArray[np.float64]:
    """Return the probability of each tag that the logits stand for, same shape, under the loss trained with."""
    values = np.asarray(logits, dtype=np.float64)
    scores: npt.NDArray[np.float64] = 0.5 * (1.0 + np.tanh(0.5 * values))
    if loss == "facet_softmax":
        for columns, has_none in _softmax_facets(vocabulary):
            of_facet = np.pad(values[:, columns], ((0, 0), (1, 0))) if has_none else values[:, columns]
            powers = np.exp(of_facet - of_facet.max(axis=1, keepdims=True))
            scores[:, columns] = (powers / powers.sum(axis=1, keepdims=True))[:, int(has_none) :]
    return scores


def predict_logits(
    model: Any, tokenizer: Any, texts: Sequence[str], *, max_length: int, batch_size: int = 64
) -> npt.NDArray[np.float32]:
    """Return one row of logits a text, in the texts' order. Texts are sorted by length to save padding."""
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"] if texts else []
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    device = next(model.parameters()).device
    logits = np.zeros((len(ids), model.head.out_features), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt").to(device)
            out = model(batch["input_ids"], batch["attention_mask"])["logits"]
            logits[rows] = out.float().cpu().numpy()
    return logits


def _softmax_facets(vocabulary: TagVocabulary) -> list[tuple[npt.NDArray[np.intp], bool]]:
    """Return the columns of each exclusive facet, and whether it may stay empty."""
    return [
        (columns, vocabulary.facets[facet].min == 0)
        for facet, columns in facet_columns(vocabulary).items()
        if vocabulary.facets[facet].is_exclusive
    ]
