"""The files that a catalogue consists of: listed, opened, and recognised when they change."""

from __future__ import annotations

import glob
import gzip
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from hangtag.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xlsx", ".arrow")
"""Of files that a folder is searched for."""
OTHER_SUFFIXES = (".json", ".xml", ".rss", ".atom", ".txt")
"""Of files that may be catalogues where they are named themselves."""
STDIN = "-"
_EXPECTED = ".jsonl, .json, .csv, .tsv, .txt, .xml (also .gz), .xlsx or .parquet"


@dataclass(frozen=True, slots=True)
class CatalogueFile:
    """One file of a catalogue; `size` in bytes and `mtime_ns` are None for standard input."""

    path: str
    kind: str
    size: int | None = None
    mtime_ns: int | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return "standard input" if self.path == STDIN else self.path

    def now(self) -> CatalogueFile:
        """Return the same file as it stands at this moment. Raises DataError: it is gone."""
        return self if self.path == STDIN else _describe(self.path, self.kind)

    def open(self) -> IO[bytes]:
        """Return its bytes, decompressed."""
        if self.path == STDIN:
            return _standard_input()
        raw = io.BufferedReader(open_remote(self.path)) if "://" in self.path else open(self.path, "rb")  # noqa: SIM115
        return cast("IO[bytes]", _Gunzipped(raw)) if self.path.lower().endswith(".gz") else raw

    def random_access(self) -> Any:
        """Return its path, or a pyarrow file where it is behind a URI."""
        return open_remote(self.path) if "://" in self.path else self.path


def _standard_input() -> IO[bytes]:
    """Return a stream of its own over standard input: a thread may still wait in it when the program ends."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except OSError:
        return sys.stdin.buffer


class _Gunzipped(gzip.GzipFile):
    """Decompressed bytes of a stream that it closes with itself."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__(fileobj=raw, mode="rb")
        self._raw_stream = raw

    def close(self) -> None:
        super().close()
        self._raw_stream.close()


def catalogue_file(path: str | Path) -> CatalogueFile:
    """Return one file, or standard input for "-". Raises DataError: it is missing or of another kind."""
    return CatalogueFile(STDIN, ".jsonl") if str(path) == STDIN else _describe(str(path), _kind(str(path)))


def list_files(inputs: Iterable[str | Path]) -> list[CatalogueFile]:
    """Return the catalogue files that files, folders, glob patterns, URIs or "-" name, each group in sorted order.

    Raises:
        DataError: something is missing, of another kind, or a folder or pattern holds no catalogue.
    """
    found = []
    for given in map(str, inputs):
        if "://" in given:
            found += [_describe(path, _kind(path)) for path in _list_remote(given)]
        elif Path(given).is_dir():
            files = [p for p in sorted(Path(given).rglob("*")) if p.is_file() and not p.name.startswith(".")]
            paths = [str(p) for p in files if _kind_or_none(str(p)) in SUFFIXES and not p.match("cache-*.arrow")]
            if not paths:
                raise DataError(
                    f"{given}: a folder without .jsonl, .csv, .tsv (also .gz), .xlsx or .parquet files"
                )
            found += [_describe(path, _kind(path)) for path in paths]
        elif any(character in given for character in "*?[") and not Path(given).exists():
            paths = sorted(glob.glob(given, recursive=True))
            if not paths:
                raise DataError(f"{given}: no file matches the pattern")
            found += [_describe(path, _kind(path)) for path in paths]
        else:
            found.append(catalogue_file(given))
    return found


def _kind_or_none(path: str) -> str | None:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")
    return kind if kind in (*SUFFIXES, *OTHER_SUFFIXES) else None


def _kind(path: str) -> str:
    kind = _kind_or_none(path)
    if kind is None:
        suffix = "".join(Path(path).suffixes) or "no suffix"
        raise DataError(f"{path}: got {suffix}, expected {_EXPECTED}")
    return kind


def _describe(path: str, kind: str) -> CatalogueFile:
    if "://" in path:
        info = _remote(path)[0].get_file_info(_remote(path)[1])
        return CatalogueFile(path, kind, info.size, info.mtime_ns)
    if not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "no such file"
        raise DataError(f"{path}: {what}; expected a catalogue file")
    status = Path(path).stat()
    return CatalogueFile(path, kind, status.st_size, status.st_mtime_ns)


def _remote(uri: str) -> tuple[Any, str]:
    import pyarrow
    import pyarrow.fs

    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{uri}: not reachable ({str(error).splitlines()[0]:.200})") from None
    return filesystem, path


def _list_remote(uri: str) -> list[str]:
    import pyarrow.fs

    filesystem, path = _remote(uri)
    try:
        info = filesystem.get_file_info(path)
        if info.type == pyarrow.fs.FileType.File:
            return [uri]
        if info.type == pyarrow.fs.FileType.NotFound:
            raise DataError(f"{uri}: no such file; expected a catalogue file or folder")
        below = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    except OSError as error:
        raise DataError(f"{uri}: not reachable ({str(error).splitlines()[0]:.200})") from None
    shown = [item.path for item in below if item.is_file and not item.base_name.startswith(".")]
    names = sorted(name for name in shown if _kind_or_none(name) in SUFFIXES)
    if not names:
        raise DataError(f"{uri}: a folder without .jsonl, .csv, .tsv (also .gz), .xlsx or .parquet files")
    return [uri.rstrip("/") + name.removeprefix(path.rstrip("/")) for name in names]


def open_remote(uri: str) -> Any:
    """Return a pyarrow file of bytes behind a URI."""
    filesystem, path = _remote(uri)
    return filesystem.open_input_file(path)


def changed_file(files: Sequence[CatalogueFile]) -> str | None:
    """Return one line on the first file that is not what it was when `files` was listed, None if all are."""
    for file in files:
        try:
            now = file.now()
        except DataError as error:
            return str(error)
        if now != replace(file, path=now.path):
            return f"{file.name}: changed ({file.size} bytes then, {now.size} now)"
    return None
