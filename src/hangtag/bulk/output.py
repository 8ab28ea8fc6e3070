"""The output folder of a catalogue run: who may write it, which edition goes on, what of it is lost.

OUT/.lock              held by the process that writes
OUT/ledger.sqlite      editions and their parts (`hangtag.bulk.ledger`)
OUT/parts-NNNN/        the parts of edition NNNN, for readers (`hangtag.bulk.parts`)
OUT/index/NNNN/        what it takes to find a tagging by its key
OUT/manifest.json      of the newest complete edition, replaced when another one is complete
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from hangtag.bulk.key_index import KeyIndex
from hangtag.bulk.ledger import LEDGER, EditionRecord, Ledger, PartRecord
from hangtag.bulk.parts import PartFolder
from hangtag.bulk.writer import write_failure
from hangtag.durable import Step, no_step
from hangtag.errors import DataError

_OURS = (LEDGER, "manifest.json", ".lock")


class Output:
    """An output folder, locked against other processes while it is open. A context manager."""

    def __init__(self, folder: str | Path, *, step: Step = no_step, say: Callable[[str], None] = print) -> None:
        """Open or make it; `say` receives one line for whatever the user should know.

        Raises:
            DataError: another process writes it, it cannot be written, or it is a folder of something else.
        """
        self.path = Path(folder)
        self.say = say
        self.step = step
        self.folders: dict[int, PartFolder] = {}
        self.records: dict[int, dict[int, PartRecord]] = {}
        self._indexes: dict[int, KeyIndex] = {}
        self._ledger: Ledger | None = None
        self._lock = self._locked()

    def _locked(self) -> IO[str]:
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path}: a file; expected a folder for parts, ledger and report (see --join)")
        if self.path.is_dir() and not any((self.path / name).exists() for name in _OURS):
            others = [path.name for path in self.path.iterdir()]
            if others:
                raise DataError(
                    f"{self.path}: holds {others[0]!r} and no {LEDGER}; expected a new or empty folder, or one "
                    "that this program made"
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise write_failure(self.path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise DataError(f"{self.path}: another process is writing it; wait for it, or end it") from None
        return lock

    @property
    def ledger(self) -> Ledger:
        """The folder's ledger. Raises DataError: it is damaged."""
        if self._ledger is None:
            if not (self.path / LEDGER).exists() and any(self.path.glob("index/*/part-*.arrow")):
                raise DataError(
                    f"{self.path / LEDGER}: missing, though parts are there; repeat the command with --repair, "
                    "which makes it again from them"
                )
            self._ledger = Ledger(self.path, step=self.step)
        return self._ledger

    def editions(self) -> list[EditionRecord]:
        """Return the editions, oldest first, their parts in `records`; every part is there and as long as it was.

        Raises:
            DataError: a part is lost, or the ledger is damaged; the message names the way out.
        """
        editions = self.ledger.editions()
        for edition in editions:
            folder = self._folder(edition)
            records = self.ledger.parts(edition.number)
            lost = next(folder.lost(records), None)
            if lost is not None:
                raise DataError(f"{lost[1]}: lost; repeat the command with --repair, which tags its rows again")
            self.records[edition.number] = {record.number: record for record in records}
        return editions

    def _folder(self, edition: EditionRecord) -> PartFolder:
        if edition.number not in self.folders:
            self.folders[edition.number] = PartFolder(self.path, edition.number, edition.details["format"])
        return self.folders[edition.number]

    def begin(self, signature: str, context: str, details: Mapping[str, Any]) -> EditionRecord:
        """Return a new edition that is running."""
        # A folder that neither ledger nor manifest knows was left by a kill before its edition was entered.
        taken = [edition.number for edition in self.ledger.editions()]
        number = max([*taken, self.published_edition() or 0]) + 1
        record = EditionRecord(number, "running", signature, context, dict(details), "")
        try:
            self._folder(record).begin(record, step=self.step)
        except OSError as error:
            raise write_failure(self.path, error) from None
        edition = self.ledger.begin(number, signature, context, details)
        self.records[number] = {}
        return edition

    def index(self, edition: int) -> KeyIndex:
        """Return where the keys of an edition stand."""
        if edition not in self._indexes:
            folder, records = self.folders[edition], self.records[edition]
            num_parts = max(records, default=-1) + 1

            def keys_of(number: int) -> bytes:
                return folder.keys(records[number]) if number in records else b""

            try:
                self._indexes[edition] = KeyIndex(folder.index, num_parts, keys_of, step=self.step)
            except OSError as error:
                raise write_failure(folder.index, error) from None
        return self._indexes[edition]

    def add_keys(self, edition: int, part: int, keys: bytes) -> None:
        """Enter a part's keys into the index. Raises DataError: the disk is full."""
        try:
            self.index(edition).add(part, keys)
        except OSError as error:
            raise write_failure(self.folders[edition].index, error) from None

    def forget_others(self, edition: int) -> None:
        """Delete the files of every edition but one."""
        for number in [number for number in self.folders if number != edition]:
            if number in self._indexes:
                self._indexes.pop(number).close()
            self.folders.pop(number).remove()
            self.records.pop(number, None)
        for path in [*self.path.glob("parts-[0-9]*"), *self.path.glob("index/[0-9]*")]:
            number = int(path.name.removeprefix("parts-"))
            if number != edition:
                PartFolder(self.path, number, "parquet").remove()

    def published_edition(self) -> int | None:
        """Return the edition that manifest.json names, None without a manifest."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            return int(json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))["edition"])
        return None

    def repair(self) -> None:
        """Make the ledger again if it is damaged, and take out every part that is not what was written.

        Reads and hashes all parts.
        """
        try:
            editions = self.ledger.editions()
        except DataError:
            editions = self._rebuild_ledger()
        for edition in editions:
            folder = self._folder(edition)
            records = self.ledger.parts(edition.number)
            num_lost = 0
            for record, reason in folder.lost(records, thoroughly=True):
                num_lost += 1
                self.say(f"lost: {reason}; its rows will be tagged again")
                self.ledger.drop_part(edition.number, record.number)
                folder.part_path(record.number).unlink(missing_ok=True)
                folder.table_path(record.number).unlink(missing_ok=True)
            if num_lost:
                # The files cover parts that are gone.
                for path in folder.index.glob("*.keys"):
                    path.unlink()
            self.say(f"edition {edition.number}: {len(records) - num_lost} of {len(records)} parts are whole")
            self.folders.pop(edition.number)

    def _rebuild_ledger(self) -> list[EditionRecord]:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        for suffix in ("", "-wal", "-shm"):
            damaged = self.path / f"{LEDGER}{suffix}"
            if damaged.exists():
                damaged.replace(self.path / f"{LEDGER}{suffix}.damaged")
        ledger = self._ledger = Ledger(self.path, step=self.step)
        complete = self.published_edition()
        for path in sorted((self.path / "index").glob("[0-9]*")):
            try:
                details = json.loads((path / "edition.json").read_text(encoding="utf-8"))["details"]
                found = PartFolder(self.path, int(path.name), details["format"]).recovered()
            except (OSError, ValueError, LookupError, TypeError):
                found = None
            if found is None:
                self.say(f"{path}: says too little to be used again")
                continue
            edition, parts = found
            is_gapless = [part.number for part in parts] == list(range(len(parts)))
            state = "complete" if edition.number == complete else "running" if is_gapless else "left"
            ledger.restore(replace(edition, state=state), parts)  # type: ignore[arg-type]
            self.say(f"edition {edition.number}: {len(parts)} parts are entered again")
        return ledger.editions()

    def close(self) -> None:
        """Close everything and release the folder."""
        for index in self._indexes.values():
            index.close()
        for folder in self.folders.values():
            folder.close()
        if self._ledger is not None:
            self._ledger.close()
        self._lock.close()

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
