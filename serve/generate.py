"""Tag a whole catalogue: durable parts, every row exactly once, and a run that goes on after any end.

    python -m serve.generate products.jsonl OUT --vocabulary tags.json --examples labelled.jsonl
    python -m serve.generate 'shop/*.parquet' OUT --run RUN --map title=name --join tagged.parquet --accept-at 0.9

IN is Parquet, CSV or JSON Lines (the last two also .gz), a folder, a glob pattern, a URI (s3://, gs://), several
of these, or - for JSON Lines on standard input. OUT is a folder:

    parts-NNNN/      taggings in the order of the rows, Parquet or JSON Lines
    errors.jsonl     rows without a tagging, and why
    report.json, report.html
    accepted.jsonl, review.csv (or .jsonl)   with --accept-at
    manifest.json    written last: the parts above are complete
    ledger.sqlite, index/   what makes it resumable

The same command goes on after a crash, tags again only what changed, and does nothing where nothing did. Progress
goes to stderr; the last line of stdout is one JSON document with the counts. Exit codes: 0 done, 1 failed or
interrupted, 2 misused, 3 done but some rows have no tagging (see errors.jsonl, --retry-errors). The guarantees,
and what to do when something is lost, stand in docs/catalogue.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hangtag import program
from hangtag.bulk.chunks import read_chunks
from hangtag.bulk.edition import WINDOW, EditionRun, Job, Totals
from hangtag.bulk.finish import (
    Plan,
    close_edition,
    edition_of,
    kept_columns,
    known_report,
    plan_edition,
    publish,
)
from hangtag.bulk.keys import RowKeys, context_digest
from hangtag.bulk.ledger import EditionRecord
from hangtag.bulk.output import Output
from hangtag.bulk.parts import FORMATS
from hangtag.catalogue.batch_files import product_of_request
from hangtag.catalogue.files import STDIN, list_files
from hangtag.catalogue.options import add_reading_arguments, add_write_back_arguments, reading_options
from hangtag.catalogue.rows import count_rows
from hangtag.catalogue.write_back import WriteBack
from hangtag.cli import add_tagger_arguments
from hangtag.durable import Step, no_step
from hangtag.errors import DataError, RecipeError
from serve import catalogue_tagger
from serve.catalogue_report import write_html
from serve.catalogue_tagger import CatalogueTagger, LazyStream

PART_ROWS = 10_000


def main(argv: Sequence[str] | None = None, *, step: Step = no_step) -> int:
    """Run the command line and return the exit code. `step` hears of every step of a durable write."""
    arguments = parser().parse_args(argv)

    def work() -> int:
        with _terminated_as_interrupted():
            summary = generate(arguments, step=step)
        print(json.dumps(summary, ensure_ascii=False))
        return 3 if summary.get("failed") else 0

    safe = f"interrupted; what was tagged is safe in {arguments.output}: the same command goes on"
    return program.run("serve.generate", work, interrupted=safe)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, which a cluster sends before it takes a machine back, end the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def say(line: str) -> None:
    """Print a line for the user on stderr."""
    print(line, file=sys.stderr)


def _say_once() -> Callable[[str], None]:
    """Return what says each line the first time only."""
    said: set[str] = set()

    def tell(line: str) -> None:
        if line not in said:
            said.add(line)
            say(f"serve.generate: {line}")

    return tell


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = program.parser("python -m serve.generate", __doc__)
    parser.add_argument("inputs", nargs="+", metavar="IN", help="the catalogue: files, folders, patterns, or -")
    parser.add_argument("output", type=Path, metavar="OUT", help="the output folder")
    add_tagger_arguments(parser, is_vocabulary_required=False)
    add_reading_arguments(parser)
    catalogue_tagger.add_arguments(parser)
    form = parser.add_argument_group("output")
    form.add_argument(
        "--format",
        choices=FORMATS,
        default="parquet",
        help="form of the parts; openai-batch reads IN, too, in the OpenAI batch format (default: %(default)s)",
    )
    form.add_argument(
        "--part-rows", type=int, default=PART_ROWS, metavar="N", help="rows of a part (default: %(default)s)"
    )
    form.add_argument(
        "--keep", action="append", default=[], metavar="COLUMN", help="hand a column of IN on into the parts"
    )
    form.add_argument(
        "--join",
        type=Path,
        metavar="F",
        help="also write IN with tags: .parquet, .csv or .jsonl (the last two also .gz); with --to as that says",
    )
    add_write_back_arguments(parser)
    form.add_argument(
        "--accept-at",
        type=float,
        metavar="P",
        help="split: a tagging whose every tag has at least this confidence is accepted, any other is for review",
    )
    form.add_argument(
        "--review-format",
        choices=("csv", "jsonl"),
        default="csv",
        help="of the review queue (default: %(default)s)",
    )
    course = parser.add_argument_group("course")
    course.add_argument("--dry-run", action="store_true", help="say what would be tagged, and what it takes")
    course.add_argument("--plan", action="store_true", help="tag a sample, and say what the catalogue takes")
    course.add_argument(
        "--plan-rows", type=int, default=200, metavar="N", help="products of the sample (default: %(default)s)"
    )
    course.add_argument(
        "--rate", type=float, metavar="R", help="cost of an hour of this machine, for --plan and --dry-run"
    )
    course.add_argument("--retry-errors", action="store_true", help="tag rows again that have no tagging")
    course.add_argument(
        "--strict", action="store_true", help="after any change of the vocabulary tag every row again"
    )
    course.add_argument("--repair", action="store_true", help="make a damaged ledger again, and lost parts")
    course.add_argument(
        "--window", type=int, default=WINDOW, metavar="N", help="products sorted by length (default: %(default)s)"
    )
    course.add_argument("--quiet", action="store_true", help="no progress bar, for logs")
    return parser


def generate(
    arguments: argparse.Namespace, *, step: Step = no_step, tagger: CatalogueTagger | None = None
) -> dict[str, Any]:
    """Do what the command line says and return the counts that `main` prints.

    `tagger` replaces the one that the command line describes.
    """
    start = time.monotonic()
    _check_numbers(arguments)
    files = tuple(list_files(arguments.inputs))
    tagger = tagger or catalogue_tagger.described(arguments)
    identity = tagger.spec.identity()
    job = Job(
        files=files,
        reading=reading_options(arguments, tagger.spec.vocabulary),
        context=context_digest(identity),
        model=tagger.spec.name,
        vocabulary=tagger.spec.vocabulary.fingerprint,
        part_rows=arguments.part_rows,
        keep=kept_columns(files, arguments.keep),
        interpret=product_of_request if arguments.format == "openai-batch" else None,
        retry_errors=arguments.retry_errors,
        window=arguments.window,
        accept_at=arguments.accept_at,
        say=_say_once(),
    )
    _check_first_rows(job)
    if arguments.to is not None:
        if len(files) > 1 or job.interpret is not None:
            raise RecipeError("--to writes one file back; give one file, or --join without --to")
        WriteBack(files[0], job.reading, arguments.to)
    if arguments.plan:
        from serve.catalogue_plan import measure

        return measure(job, tagger, num_rows=arguments.plan_rows, rate=arguments.rate)
    with Output(arguments.output, step=step, say=lambda line: say(f"serve.generate: {line}")) as output:
        if arguments.repair:
            output.repair()
        plan = plan_edition(
            output,
            job,
            format=arguments.format,
            ingredients=identity,
            vocabulary=tagger.spec.vocabulary,
            is_strict=arguments.strict,
        )
        for line in plan.lines:
            output.say(line)
        if arguments.dry_run:
            from serve.catalogue_plan import foresee

            return foresee(output, plan, rate=arguments.rate)
        return _run(output, plan, tagger, arguments, start)


def _run(
    output: Output, plan: Plan, tagger: CatalogueTagger, arguments: argparse.Namespace, start: float
) -> dict[str, Any]:
    edition = edition_of(output, plan)
    stream = LazyStream(tagger)
    totals = Totals()
    if not plan.is_done:
        run = EditionRun(output, edition, plan.job, stream)
        totals = run.totals
        progress = _Progress(output, edition, plan.job, stream, is_quiet=arguments.quiet)
        with progress, _rare_collections():
            run.tell = progress.show
            run.run()
    else:
        output.say("every row has its tagging already; nothing to tag")
    seconds = time.monotonic() - start
    usage = stream.usage
    figures = {
        "tagged_now": totals.tagged,
        "prompt_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "truncated": usage.num_cut,
        "seconds": round(seconds, 1),
        "products_per_s": round(totals.tagged / seconds, 2),
    }
    report = known_report(output, edition) if plan.is_done else None
    if report is None:
        report = close_edition(output, edition, plan.job, extra=figures, accept_at=arguments.accept_at)
        write_html(output, report)
    _write_extras(output, edition, plan.job, arguments)
    if not plan.is_done or output.published_edition() != edition.number:
        publish(output, edition, plan.job, seconds=0.0)
    else:
        # What a kill right after the last commit left behind.
        output.forget_others(edition.number)
    names = ("rows", "ok", "unparsed", "error", "failed", "malformed", "duplicates", "reused", "carried")
    return (
        {name: report[name] for name in names} | figures | {"edition": edition.number, "output": str(output.path)}
    )


def _write_extras(output: Output, edition: EditionRecord, job: Job, arguments: argparse.Namespace) -> None:
    if arguments.accept_at is not None:
        from hangtag.bulk.review import split

        split(output, edition, job, accept_at=arguments.accept_at, form=arguments.review_format)
    if arguments.join is not None and arguments.to is not None:
        from hangtag.bulk.rejoin import taggings_of

        target = WriteBack(job.files[0], job.reading, arguments.to, is_merged=arguments.merge == "add")
        changed = target.write(partial(taggings_of, output, edition), arguments.join)
        output.say(f"{arguments.join}: {changed} products with other tags than before")
    elif arguments.join is not None:
        from hangtag.bulk.join import write_joined

        write_joined(output, edition, job, arguments.join)


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("part_rows", "plan_rows", "window"):
        if getattr(arguments, name) < 1:
            raise RecipeError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected at least 1")
    if arguments.accept_at is not None and not 0 <= arguments.accept_at <= 1:
        raise RecipeError(f"--accept-at {arguments.accept_at}: expected a confidence from 0 to 1")
    if arguments.join is not None and arguments.to is None:
        from hangtag.bulk.join import check_target

        check_target(arguments.join)
    if arguments.to is not None and arguments.join is None:
        raise RecipeError("--to without --join; name the file to write")
    if STDIN in arguments.inputs and (arguments.join or arguments.accept_at is not None or arguments.plan):
        raise RecipeError("standard input can be read once only; --join, --accept-at and --plan need files")


def _check_first_rows(job: Job) -> None:
    """Refuse a wrong file at once instead of after loading a model."""
    if all(file.path != STDIN for file in job.files):
        chunks = read_chunks(
            job.files,
            job.reading,
            RowKeys(job.context),
            part_rows=1,
            keep=[name for name, _ in job.keep],
            interpret=job.interpret,
            say=job.say,
        )
        if next(chunks, None) is None:
            raise DataError(f"{job.files[0].name}: no rows; expected at least one product")
        chunks.close()


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for cycles less often: rows have none, and looking takes nearly half of a fast run."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _Progress:
    """The progress bar: products/s, tokens/s, time left, rows without a tagging, share for review."""

    def __init__(
        self,
        output: Output,
        edition: EditionRecord,
        job: Job,
        stream: LazyStream,
        *,
        is_quiet: bool,
    ) -> None:
        counts = [None] if is_quiet else [count_rows(file) for file in job.files]
        total = None if None in counts else sum(count or 0 for count in counts)
        self._done = sum(record.num_rows for record in output.records[edition.number].values())
        self._bar = program.progress(
            "tagging", "row", total=total, initial=self._done, disable=is_quiet, smoothing=0.05
        )
        self._stream = stream
        self._start: float | None = None
        self._tokens = 0
        self._accept_at = job.accept_at

    def show(self, totals: Totals) -> None:
        """Show the figures of this moment."""
        if self._bar.disable:
            return
        usage = self._stream.usage
        tokens = usage.prompt_tokens + usage.output_tokens
        if self._start is None and totals.tagged:
            # Loading the model is no part of the rate.
            self._start, self._tokens = time.monotonic(), tokens
        shown: dict[str, int | str] = {"errors": totals.failed}
        if self._start is not None and tokens > self._tokens:
            shown["tokens/s"] = round((tokens - self._tokens) / max(1e-9, time.monotonic() - self._start))
        if self._accept_at is not None and totals.rows:
            shown["review"] = f"{totals.for_review / totals.rows:.0%}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(self._done + totals.rows - self._bar.n)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
