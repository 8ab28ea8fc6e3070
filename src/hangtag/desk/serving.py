"""The desk as a server on a port."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from hangtag.catalogue.labelled import read_labelled, split_file
from hangtag.desk.app import Desk
from hangtag.desk.loading import STORE, load_queue
from hangtag.desk.session import Sessions, is_local
from hangtag.desk.store import Store
from hangtag.desk.view import Viewer
from hangtag.errors import DataError, MissingExtra, RecipeError
from hangtag.vocabulary import TagVocabulary


def open_desk(
    out: Path | None,
    data: Path | None,
    *,
    store: Path | None,
    vocabulary: Path | None,
    token: str | None,
    twice: float,
) -> tuple[Store, Desk]:
    """Return the store and the desk of a catalogue run's output, of labelled data, or of both.

    `out` is the run's folder; without it the training products of `data` are the queue, with it they are shown
    beside each product. `store` None stands for review.sqlite in the folder that is reviewed.

    Raises:
        HangtagError: a folder holds nothing to review, or an option is refused.
    """
    folder = out or data
    if folder is None:
        raise RecipeError("nothing to review: give OUT, a catalogue run's folder, or --data DIR")
    if not 0 <= twice <= 1:
        raise RecipeError(f"--twice {twice}: expected a share, 0 to 1")
    tags = TagVocabulary.from_path(vocabulary or folder / "vocabulary.json")
    labelled = list(read_labelled(split_file(data, "train"))) if data is not None else []
    kept = Store(store or folder / STORE)
    try:
        load_queue(kept, folder, tags, is_labels=out is None, twice=twice)
        secret = kept.recall("secret") or ""
        return kept, Desk(kept, Viewer(tags, labelled), Sessions(secret, token))
    except BaseException:
        kept.close()
        raise


def listen(host: str, port: int, *, token: str | None) -> socket.socket:
    """Return a socket that listens on a host and a port.

    Raises:
        RecipeError: other machines may come, and there is no token.
        DataError: the port is taken, or there is no such host.
    """
    if not is_local(host) and token is None:
        raise RecipeError(
            f"--host {host} lets other machines in: give --token T, or set HANGTAG_REVIEW_TOKEN; take a long one"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # Before the address is told: a browser that comes at once waits instead of being refused.
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else "no port"
        raise DataError(f"{host}:{port}: cannot be listened on ({reason}); choose another --port") from None
    return listening


def serve(desk: Desk, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `ready` is told the address. Raises MissingExtra: uvicorn is not installed."""
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("uvicorn", "desk") from None
    settings = uvicorn.Config(desk.app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    host, port = listening.getsockname()[:2]
    ready(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
    uvicorn.Server(settings).run(sockets=[listening])
