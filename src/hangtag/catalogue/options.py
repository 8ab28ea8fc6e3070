"""The options of programs that read catalogues: how files are read, and how tags are written back."""

from __future__ import annotations

import argparse

from hangtag.catalogue.products import parse_columns
from hangtag.catalogue.write_back import TARGETS
from hangtag.formats.recognise import FORMAT_NAMES
from hangtag.formats.rows import Reading
from hangtag.vocabulary import TagVocabulary


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how files of products are read; `reading_options` reads them."""
    group = parser.add_argument_group("reading products (docs/files.md)")
    group.add_argument(
        "--map", action="append", default=[], metavar="FIELD=COLUMN", help="read a product's field from a column"
    )
    group.add_argument(
        "--from",
        dest="from_format",
        metavar="FORMAT",
        help=f"the format of the file: {', '.join(FORMAT_NAMES)} (default: recognised by its header)",
    )
    group.add_argument("--encoding", metavar="E", help="of delimited text, such as cp1252 (default: recognised)")
    group.add_argument(
        "--delimiter", metavar="C", help="of delimited text: a character, or tab (default: recognised)"
    )
    group.add_argument(
        "--variants",
        choices=("joined", "separate"),
        help="a product's variants: one product with all options, or each its own row (default: joined)",
    )
    group.add_argument(
        "--tag-separator",
        metavar="S",
        help="what stands between the tags of a cell: a character, newline, or none (default: recognised)",
    )
    group.add_argument("--label-column", metavar="COLUMN", help="read a product's tags from this column")


def add_write_back_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how tags are written back."""
    group = parser.add_argument_group("writing back (docs/files.md)")
    group.add_argument(
        "--to",
        choices=TARGETS,
        help="write the file back with its tags, every other cell as it was; of another kind: its products",
    )
    group.add_argument(
        "--merge",
        choices=("add", "replace"),
        default="add",
        help="with --to: new tags come after those that a product has, or take their place (default: %(default)s)",
    )


def reading_options(arguments: argparse.Namespace, vocabulary: TagVocabulary | None = None) -> Reading:
    """Return what the options of `add_reading_arguments` say; the vocabulary's names help to tell tags apart.

    Raises:
        DataError: a mapping is refused.
    """
    given = vars(arguments)
    names = ("encoding", "delimiter", "tag_separator", "label_column")
    return Reading(
        columns=parse_columns(arguments.map),
        format=given["from_format"],
        variants=arguments.variants or "joined",
        known_tags=frozenset(name.casefold() for name in vocabulary.names) if vocabulary else frozenset(),
        **{name: given[name] for name in names},
    )
