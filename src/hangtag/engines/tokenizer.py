"""A model's tokenizer without its weights."""

from __future__ import annotations

from hangtag.errors import MissingExtra, ModelError
from hangtag.language_model.piece_tokenizer import HFPieceTokenizer
from hangtag.models import resolve_model


def load_piece_tokenizer(model: str) -> HFPieceTokenizer:
    """Return the tokenizer of a fetched model, a model folder or a hub id.

    Raises:
        ModelError: there is no such model, or no tokenizer with it.
        ConstraintError: the tokenizer has no fast implementation.
        MissingExtra: transformers is not installed.
    """
    source = resolve_model(model)
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "cpu") from None
    try:
        return HFPieceTokenizer(transformers.AutoTokenizer.from_pretrained(source))
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: no tokenizer in it ({str(error).splitlines()[0]:.200})") from None
