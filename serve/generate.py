"""Tag a whole catalogue with vLLM and write one tagging a row.

    python -m serve.generate products.jsonl taggings.jsonl --vocabulary tags.json --examples labelled.jsonl
    python -m serve.generate shop.csv taggings.parquet --vocabulary tags.txt --map title=name

IN is .jsonl, .csv (also .gz) or .parquet, OUT likewise. Rows in = rows out, in order: a row that is no product
gets a tagging of status "error". Progress goes to stderr; the last line of stdout is one JSON document with the
counts. Exit codes: 0 done (also where single rows failed), 1 failed, 2 misused.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from hangtag.catalog import TaggingWriter, count_rows, parse_columns, read_catalogue, tag_rows
from hangtag.cli import add_tagger_arguments, tagger_from_arguments
from hangtag.errors import DataError, HangtagError

_WRITE_EVERY = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "input", metavar="IN", help="the catalogue: .jsonl, .csv (also .gz), .parquet, or - (stdin)"
    )
    parser.add_argument("output", metavar="OUT", help="the taggings: .jsonl, .csv (also .gz) or .parquet")
    add_tagger_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    try:
        summary = generate(arguments)
    except HangtagError as error:
        print(f"serve.generate: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("serve.generate: interrupted; nothing was written under the output's name", file=sys.stderr)
        return 1
    print(json.dumps(summary, ensure_ascii=False))
    return 0


def generate(arguments: argparse.Namespace) -> dict[str, object]:
    """Tag the catalogue and return the counts that `main` prints."""
    from tqdm import tqdm

    columns = parse_columns(arguments.map)
    writer = TaggingWriter(arguments.output)
    # The first row is read before half a minute of loading, so that a wrong file is refused at once.
    if arguments.input != "-" and next(iter(read_catalogue(arguments.input, columns)), None) is None:
        raise DataError(f"{arguments.input}: no rows")
    tagger = tagger_from_arguments(arguments, "vllm")
    statuses: Counter[str] = Counter()
    batch = []
    start = time.monotonic()
    rows = read_catalogue(arguments.input, columns)
    total = None if arguments.input == "-" else count_rows(arguments.input)
    with (
        writer,
        tqdm(total=total, unit="product", disable=arguments.quiet, smoothing=0.05, desc="tagging") as progress,
    ):
        for tagging in tag_rows(tagger.stream, rows, model=tagger.name, vocabulary=tagger.vocabulary):
            statuses[tagging.status] += 1
            batch.append(tagging)
            progress.update()
            if len(batch) == _WRITE_EVERY:
                writer.write(batch)
                batch.clear()
        writer.write(batch)
    seconds = time.monotonic() - start
    return {
        "rows": writer.num_written,
        "ok": statuses["ok"],
        "unparsed": statuses["unparsed"],
        "errors": statuses["error"],
        "truncated": tagger.usage.num_cut,
        "prompt_tokens": tagger.usage.prompt_tokens,
        "output_tokens": tagger.usage.output_tokens,
        "seconds": round(seconds, 1),
        "products_per_s": round(writer.num_written / seconds, 2),
        "output": str(arguments.output),
    }


if __name__ == "__main__":
    sys.exit(main())
