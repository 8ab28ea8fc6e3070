"""Rows of the first sheet of an Excel workbook (.xlsx).

openpyxl in its read-only mode streams the sheet and gives a whole number as an int. python-calamine 0.9 is five
times as fast, but holds the sheet in memory, and the id 12 comes as 12.0; and openpyxl writes workbooks, too.
"""

from __future__ import annotations

import datetime
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from hangtag.errors import DataError, MissingExtra
from hangtag.formats.rows import Source


def workbook_rows(source: Source) -> Iterator[dict[str, Any] | str]:
    """Yield the rows below the header, the first row that is not empty; empty rows are passed over.

    A formula gives the value that was saved with it. Of merged cells the first holds the value.

    Raises:
        DataError: the file is no workbook.
        MissingExtra: openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise MissingExtra("openpyxl", "files") from None
    stream = source.open()
    try:
        with warnings.catch_warnings():
            # On styles and extensions that are not read.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        # The dimension that a workbook states may be wrong; some programs write A1.
        sheet.reset_dimensions()
        header: list[str] | None = None
        for values in sheet.iter_rows(values_only=True):
            if all(value is None or value == "" for value in values):
                continue
            if header is None:
                header = column_names(values)
                continue
            if len(values) > len(header) and any(value is not None for value in values[len(header) :]):
                yield f"{len(values)} cells, expected {len(header)} as in the header"
                continue
            cells = dict.fromkeys(header)
            yield cells | {name: _plain(value) for name, value in zip(header, values, strict=False)}
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, OSError) as error:
        raise DataError(f"{source.name}: not readable as an Excel workbook ({error})") from None
    finally:
        stream.close()


def sheet_names(source: Source) -> list[str]:
    """Return the names of a workbook's sheets; none where it cannot be read, which `workbook_rows` says."""
    stream = source.open()
    try:
        with zipfile.ZipFile(stream) as archive:
            root = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    except (zipfile.BadZipFile, KeyError, OSError, ElementTree.ParseError):
        return []
    finally:
        stream.close()
    return [element.get("name", "") for element in root.iter() if element.tag.endswith("}sheet")]


def column_names(values: tuple[Any, ...]) -> list[str]:
    """Return the names in a header row; a column without one is called by its place.

    Raises:
        ValueError: a name stands twice.
    """
    end = max(n for n, value in enumerate(values, start=1) if value not in (None, ""))
    names = [
        str(value) if value not in (None, "") else f"column {n}" for n, value in enumerate(values[:end], start=1)
    ]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"column {name!r} stands twice in the header; rename one")
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, datetime.timedelta) else value
