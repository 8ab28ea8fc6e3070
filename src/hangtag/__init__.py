"""hangtag: product tagging with a decoder LLM, every answer a correct set of your own tags."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hangtag.catalogue.labelled import Dataset, load_dataset
    from hangtag.catalogue.products import BadRow, read_catalogue
    from hangtag.constraint import Limits, TagConstraint
    from hangtag.errors import HangtagError
    from hangtag.loading import load_tagger
    from hangtag.product import Product
    from hangtag.tagging import ScoredTag, Tagger, Tagging
    from hangtag.vocabulary import FacetLimits, Tag, TagVocabulary

__version__ = "0.1.0"

__all__ = [
    "BadRow",
    "Dataset",
    "FacetLimits",
    "HangtagError",
    "Limits",
    "Product",
    "ScoredTag",
    "Tag",
    "TagConstraint",
    "TagVocabulary",
    "Tagger",
    "Tagging",
    "load_dataset",
    "load_tagger",
    "read_catalogue",
]

# A name is imported when it is first used: a program that needs a Product waits for no tagger.
_HOMES = {
    "BadRow": "catalogue.products",
    "Dataset": "catalogue.labelled",
    "FacetLimits": "vocabulary",
    "HangtagError": "errors",
    "Limits": "constraint",
    "Product": "product",
    "ScoredTag": "tagging",
    "Tag": "vocabulary",
    "TagConstraint": "constraint",
    "TagVocabulary": "vocabulary",
    "Tagger": "tagging",
    "Tagging": "tagging",
    "load_dataset": "catalogue.labelled",
    "load_tagger": "loading",
    "read_catalogue": "catalogue.products",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
