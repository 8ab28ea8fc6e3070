"""hangtag: product tagging with a decoder LLM, every answer a correct set of your own tags."""

from hangtag.catalog import BadRow, Dataset, load_dataset, read_catalogue
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
