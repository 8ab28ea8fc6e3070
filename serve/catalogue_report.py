"""report.html of a catalogue run: the figures of report.json on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from hangtag.bulk.output import Output
from hangtag.bulk.writer import write_failure
from hangtag.durable import write_durably

TEMPLATE = Path(__file__).with_name("catalogue_report.html.jinja")
_MOST_TAGS = 100
_KINDS = (
    ("ok", "have a tagging"),
    ("unparsed", "the model's text was no answer"),
    ("error", "no product, or refused by the engine"),
    ("malformed", "of these: no product"),
    ("tagged", "tagged by the engine"),
    ("duplicates", "the same product stood before in the catalogue"),
    ("reused", "tagged in an earlier run, nothing changed"),
    ("carried", "tagged under an earlier vocabulary, whose change does not concern them"),
)


def render(report: dict[str, Any]) -> str:
    """Return the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    most = max(1, *report["confidence"]["counts"])
    return template.render(report=report, kinds=_KINDS, most_in_bin=most, most_tags=_MOST_TAGS)


def write_html(output: Output, report: dict[str, Any]) -> None:
    """Write report.html into the output folder. Raises DataError: the disk is full."""
    path = output.path / "report.html"
    try:
        write_durably(path, [render(report).encode()], step=output.step)
    except OSError as error:
        raise write_failure(path, error) from None
