"""The sample catalogue: products and a vocabulary written for this project. See its README.md."""

from __future__ import annotations

from pathlib import Path


def sample_folder() -> Path:
    """Return the folder of the sample, a labelled dataset for `hangtag.catalogue.labelled.load_dataset`."""
    return Path(__file__).parent
