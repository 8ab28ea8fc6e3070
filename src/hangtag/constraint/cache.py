"""Arrays and a few words in one flat file that is mapped into memory, and how it gets there safely.

Layout: magic, the header's length (8 bytes), the header (JSON: words, and each array's type, shape and place),
the arrays. The header holds a SHA-256 of the arrays. A file that is anything else is no file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.durable import replaced
from hangtag.errors import ConstraintError

_MAGIC = b"hangtag-constraint\n"
_ALIGN = 64

Arrays = Mapping[str, NDArray[np.generic]]


def write_flat(path: Path, words: Mapping[str, Any], arrays: Arrays) -> None:
    """Write the file under a temporary name and rename it: readers see nothing or all of it.

    Raises:
        OSError: the folder cannot be written.
    """
    table, blocks, at = {}, [], 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array)
        block = data.tobytes()
        block += b"\0" * (-len(block) % _ALIGN)
        table[name] = [data.dtype.str, list(data.shape), at]
        blocks.append(block)
        at += len(block)
    payload = b"".join(blocks)
    digest = hashlib.sha256(payload).hexdigest()
    header = json.dumps({"words": words, "arrays": table, "sha256": digest, "bytes": at}).encode()
    header += b" " * (-(len(_MAGIC) + 8 + len(header)) % _ALIGN)
    with replaced(path) as temporary:
        temporary.write_bytes(_MAGIC + len(header).to_bytes(8, "little") + header + payload)


def read_flat(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return words and arrays (read-only, mapped) of a file that `write_flat` wrote.

    Raises:
        ConstraintError: the file is missing, damaged, or of another kind.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ConstraintError(f"{path}: cannot be read ({error}); compile the constraint again") from None
    start = len(_MAGIC) + 8
    try:
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("not a compiled constraint")
        payload = start + int.from_bytes(data[len(_MAGIC) : start], "little")
        header = json.loads(data[start:payload])
        view = memoryview(data)[payload:]
        if len(view) != header["bytes"] or hashlib.sha256(view).hexdigest() != header["sha256"]:
            raise ValueError("the checksum does not fit")
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, (dtype, shape, at) in header["arrays"].items():
            size = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(view, np.dtype(dtype), size, at).reshape(shape)
        return header["words"], arrays
    except (ValueError, KeyError, TypeError) as error:
        raise ConstraintError(f"{path}: damaged or foreign ({error}); compile the constraint again") from None
