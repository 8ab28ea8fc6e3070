"""The commands `hangtag review serve|export|import`; `hangtag.cli` has them among its own."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hangtag.bulk.review import read_decisions, write_labelled
from hangtag.desk.export import FORMS, exported
from hangtag.desk.loading import STORE
from hangtag.desk.serving import listen, open_desk, serve
from hangtag.desk.store import Store
from hangtag.durable import write_durably
from hangtag.errors import DataError
from hangtag.vocabulary import TagVocabulary

TOKEN = "HANGTAG_REVIEW_TOKEN"
"""The environment variable with the token; unlike an option it does not show in the list of processes."""
_PORT = 8321


def add_review_commands(actions: Any) -> None:
    """Add the commands to the subparsers of `hangtag review`."""
    desk = actions.add_parser("serve", help="open the page on which people check taggings")
    desk.add_argument("out", nargs="?", type=Path, metavar="OUT", help="folder of serve.generate with --accept-at")
    desk.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="labelled dataset: shown beside the products; without OUT its training labels are reviewed",
    )
    desk.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    desk.add_argument("--port", type=int, default=_PORT, help="port, 0 for any free one (default: %(default)s)")
    desk.add_argument(
        "--token", metavar="T", help=f"what reviewers type to get in, needed for other hosts (default: ${TOKEN})"
    )
    desk.add_argument(
        "--twice", type=float, default=0.0, metavar="S", help="share of products that two people see (default: 0)"
    )
    desk.add_argument("--vocabulary", type=Path, metavar="F", help="the tags (default: the folder's own)")
    desk.add_argument(
        "--store", type=Path, metavar="F", help=f"where decisions are kept (default: {STORE} in the folder)"
    )
    desk.set_defaults(command=_serve)
    give = actions.add_parser("export", help="write the decisions of the page to a file")
    give.add_argument("out", type=Path, metavar="OUT", help="the folder that was served")
    give.add_argument("--to", choices=FORMS, default="csv", help="form of the file (default: %(default)s)")
    give.add_argument("--out", dest="file", type=Path, required=True, metavar="F", help="the file to write")
    give.add_argument("--vocabulary", type=Path, metavar="F", help="the tags (default: the folder's own)")
    give.add_argument("--store", type=Path, metavar="F", help=f"the decisions (default: {STORE} in the folder)")
    give.set_defaults(command=_export)
    take = actions.add_parser("import", help="read decisions and write a labelled dataset for training")
    take.add_argument(
        "queues",
        nargs="+",
        metavar="QUEUE",
        help="review queues with decisions: .csv, .jsonl, or Label Studio's .json",
    )
    take.add_argument("--out", required=True, metavar="DIR", help="the labelled dataset to write, a new folder")
    take.add_argument(
        "--vocabulary", metavar="F", help="the tags (default: vocabulary.json beside the first queue)"
    )
    take.add_argument(
        "--data", metavar="DIR", help="an existing dataset: decisions join its training split (default: a new one)"
    )
    take.set_defaults(command=_import)


def _serve(arguments: argparse.Namespace) -> int:
    token = arguments.token or os.environ.get(TOKEN) or None
    store, desk = open_desk(
        arguments.out,
        arguments.data,
        store=arguments.store,
        vocabulary=arguments.vocabulary,
        token=token,
        twice=arguments.twice,
    )
    try:
        with listen(arguments.host, arguments.port, token=token) as listening:
            serve(desk, listening, lambda address: print(f"ready at {address}", flush=True))
    except KeyboardInterrupt:
        print("hangtag: closed; every decision is kept", file=sys.stderr)
    finally:
        store.close()
    return 0


def _export(arguments: argparse.Namespace) -> int:
    path = arguments.store or arguments.out / STORE
    if not path.is_file():
        raise DataError(f"{path}: no decisions; expected a folder that hangtag review serve has opened")
    vocabulary = TagVocabulary.from_path(arguments.vocabulary or arguments.out / "vocabulary.json")
    store = Store(path)
    try:
        lines = (text.encode() for text in exported(store.decided(), vocabulary, arguments.to))
        write_durably(arguments.file, lines)
    except OSError as error:
        raise DataError(f"{arguments.file}: cannot be written ({error.strerror or error})") from None
    finally:
        store.close()
    return 0


def _import(arguments: argparse.Namespace) -> int:
    path = arguments.vocabulary or Path(arguments.queues[0]).with_name("vocabulary.json")
    vocabulary = TagVocabulary.from_path(path)
    decisions = read_decisions(arguments.queues, vocabulary)
    sizes = write_labelled(arguments.out, decisions.products, vocabulary, base=arguments.data)
    print(
        f"{arguments.out}: {', '.join(f'{number} {name}' for name, number in sizes.items())}; of the queue "
        f"{decisions.accepted} accepted, {decisions.changed} changed, {decisions.skipped} skipped, "
        f"{decisions.waiting} without a decision"
    )
    return 0
