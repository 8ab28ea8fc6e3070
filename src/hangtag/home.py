"""Where hangtag keeps what it fetched or compiled."""

from __future__ import annotations

import os
from pathlib import Path


def hangtag_home() -> Path:
    """Return `$HANGTAG_HOME`, or `hangtag` in the user's cache folder; the folder need not exist yet."""
    if home := os.environ.get("HANGTAG_HOME"):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache).expanduser() if cache else Path.home() / ".cache") / "hangtag"
