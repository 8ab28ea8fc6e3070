"""The exceptions that hangtag raises for its users.

    HangtagError
    ├── DataError          a catalogue or a labelled dataset cannot be read or written
    ├── VocabularyError    a tag vocabulary is refused
    ├── RecipeError        a recipe or an option is refused
    ├── ModelError         a model cannot be found, fetched or loaded
    ├── ConstraintError    limits and vocabulary admit no answer, or a tokenizer cannot spell a tag
    ├── EngineError        an engine or an endpoint failed while it worked
    ├── TrainingError      training cannot go on
    └── MissingExtra       an optional package is not installed

Every message says what was got, what was expected and what to do. Programs print it as one line
and exit with `exit_code`: 2 for misuse, 1 for a failure of something else.
"""

from __future__ import annotations


class HangtagError(Exception):
    """Anything that hangtag tells its user went wrong."""

    exit_code = 2


class DataError(HangtagError):
    """A catalogue or a labelled dataset cannot be read or written."""


class VocabularyError(HangtagError):
    """A tag vocabulary is refused."""


class RecipeError(HangtagError):
    """A recipe or an option is refused."""


class ModelError(HangtagError):
    """A model cannot be found, fetched or loaded."""


class ConstraintError(HangtagError):
    """Limits and vocabulary admit no answer, or a tokenizer cannot spell a tag."""


class EngineError(HangtagError):
    """An engine or an endpoint failed while it worked."""

    exit_code = 1


class TrainingError(HangtagError):
    """Training cannot go on: memory, or a loss that is no number."""

    exit_code = 1


class MissingExtra(HangtagError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; it comes with an extra: pip install 'hangtag[{extra}]'")
