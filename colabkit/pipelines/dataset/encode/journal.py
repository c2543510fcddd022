"""The journal: what is encoded and not yet committed, on this machine's disk, so that a kill costs one micro-batch."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from colabkit.core.disk import disk_fault
from colabkit.core.errors import StateError

FORMAT = 1
ENCODED, UPLOADED, LEFT_ASIDE = 1, 2, 3
_CHECKPOINT_PAGES = 128  # of 4 KiB: how long the log beside the database grows
ROOM_SECONDS = 60.0  # how long a full disk is waited for
_TABLES = """
create table if not exists facts (name text primary key, value text);
create table if not exists item (piece text, number integer, state integer, codes blob, codebooks integer, known text,
                                 reason text, unique (piece, number));
"""
_ADD = "insert into facts values (?1, ?2) on conflict (name) do update set value = cast(value as real) + ?2"
_PUT = "insert or replace into item values (?, ?, ?, ?, ?, ?, ?)"
_FULL = ("database or disk is full", "disk I/O error")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an item of a piece. codes: (codebook, frame); `known` is what goes into its row."""

    number: int
    state: int
    codes: np.ndarray | None
    known: Mapping[str, object]
    reason: str


class Journal:
    """States of items by piece. Safe for many threads; each change is on the disk when the call returns.

    A journal that is damaged, or of other work than `identity` names, is set aside with a word. Raises: StateError.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, object],
        *,
        say: Callable[[str], None] = print,
        room_seconds: float | None = None,
    ):
        self.path, self.say = Path(path), say
        self.room_seconds = ROOM_SECONDS if room_seconds is None else room_seconds
        self._lock = threading.RLock()
        wanted = json.dumps(dict(identity), sort_keys=True)
        fault = self._open()
        if not fault:
            found = self._fact("identity")
            fault = "it is of other work" if found not in (None, wanted) else ""
        if fault:
            self._set_aside(fault)
            if fault := self._open():
                raise StateError(
                    "Cannot keep a journal", got=fault, where=self.path, fix="choose another scratch folder"
                )
        with self._changing():
            self._connection.execute("insert or ignore into facts values ('identity', ?)", (wanted,))

    def encoded(self, rows: Iterable[tuple[str, int, np.ndarray, Mapping[str, object]]], num_batches: int = 1) -> None:
        """Keep the codes of a micro-batch: piece, number, (codebook, frame) codes, what is known; all or none."""
        values = [
            (
                piece,
                number,
                ENCODED,
                np.ascontiguousarray(codes, "<u2").tobytes(),
                len(codes),
                json.dumps(dict(known), ensure_ascii=False),
                "",
            )
            for piece, number, codes, known in rows
        ]
        self._write((_PUT, values), (_ADD, [("batches", num_batches)]))

    def uploaded(self, piece: str, number: int) -> None:
        """Note that the full segment with its codes lies in the store."""
        self._write(("update item set state = ? where piece = ? and number = ?", [(UPLOADED, piece, number)]))

    def left_aside(self, piece: str, number: int, reason: str) -> None:
        """Note an item that cannot be encoded, and why."""
        self._write((_PUT, [(piece, number, LEFT_ASIDE, None, 0, "{}", reason)]))

    def forget_left_aside(self, piece: str) -> None:
        """Let a piece's broken items be tried again."""
        self._write(("delete from item where piece = ? and state = ?", [(piece, LEFT_ASIDE)]))

    def committed(self, piece: str) -> None:
        """Forget the items of a piece that lies in the store."""
        self._write(("delete from item where piece = ?", [(piece,)]))

    def states(self, piece: str) -> dict[int, int]:
        """Return the states of a piece's items by their numbers."""
        return dict(self._read("select number, state from item where piece = ?", (piece,)))

    def entries(self, piece: str, number: int | None = None) -> list[Entry]:
        """Return what is known of a piece's items, or of one of them."""
        rows = self._read(
            "select number, state, codes, codebooks, known, reason from item where piece = ?1 and "
            "(?2 is null or number = ?2) order by number",
            (piece, number),
        )
        return [
            Entry(
                n,
                state,
                None if codes is None else np.frombuffer(codes, "<u2").reshape(codebooks, -1).astype(np.uint16),
                json.loads(known),
                reason,
            )
            for n, state, codes, codebooks, known, reason in rows
        ]

    def pieces(self) -> list[str]:
        """Return the pieces that anything is known of."""
        return [piece for (piece,) in self._read("select distinct piece from item order by piece")]

    def count(self, name: str) -> float:
        """Return a number that is kept from run to run, such as the batches encoded so far."""
        return float(self._fact(name) or 0)

    def add(self, name: str, value: float) -> None:
        """Add to such a number."""
        self._write((_ADD, [(name, value)]))

    @property
    def num_bytes(self) -> int:
        """Return what it takes of the disk."""
        return sum(path.stat().st_size for path in self._files() if path.exists())

    def close(self) -> None:
        """Close it; what was written stays."""
        with self._lock:
            self._connection.close()

    def _open(self) -> str:
        """Open the database; returns what is wrong with it, "" for nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=30)
            for pragma in (
                "journal_mode = wal",
                "synchronous = full",
                f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
                f"journal_size_limit = {_CHECKPOINT_PAGES * 4096}",
                "temp_store = memory",
            ):
                self._connection.execute(f"pragma {pragma}")
            told = self._connection.execute("pragma quick_check(1)").fetchone()[0]
            if told != "ok":
                return told
            self._patiently(lambda: self._connection.executescript(_TABLES))
            if self._fact("format") not in (None, str(FORMAT)):
                return "it is of another version of colabkit"
            with self._changing():
                self._connection.execute("insert or ignore into facts values ('format', ?)", (str(FORMAT),))
            return ""
        except OSError as error:
            raise disk_fault(error, self.path, "open the journal") from error
        except sqlite3.DatabaseError as error:
            if any(text in str(error) for text in ("unable to open", "readonly", "locked")):
                raise StateError(
                    "Cannot open the journal",
                    got=str(error),
                    where=self.path,
                    fix="choose a scratch folder of its own on a local disk that you can write",
                ) from error
            return str(error)

    def _set_aside(self, fault: str) -> None:
        self._connection.close()
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.aside-{number}")).exists():
            number += 1
        self.say(
            f"  the journal {self.path} is set aside as {aside.name}: {fault}. What it held and is not committed is "
            f"encoded again; remove it with: rm {shlex.quote(os.fspath(aside))}"
        )
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside) if path == self.path else path.unlink()

    def _files(self) -> Sequence[Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]

    def _fact(self, name: str) -> str | None:
        found = self._read("select value from facts where name = ?", (name,))
        return str(found[0][0]) if found else None

    def _read(self, query: str, values: Sequence = ()) -> list[tuple]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def _write(self, *changes: tuple[str, Sequence[tuple]]) -> None:
        """Make changes, statements with their values: all or none."""

        def write() -> None:
            with self._changing():
                for statement, values in changes:
                    self._connection.executemany(statement, values)

        self._patiently(write)

    @contextlib.contextmanager
    def _changing(self):
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def _patiently(self, act: Callable[[], T]) -> T:
        """Do a change; a disk that others have filled is waited for. Raises: StateError when it stays full."""
        until, told = time.monotonic() + self.room_seconds, False
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                if not any(text in str(error) for text in _FULL):
                    raise
                if time.monotonic() > until:
                    raise StateError(
                        "Cannot write the journal: its disk is full",
                        where=self.path,
                        fix="make room, then run the same command again; nothing is lost",
                    ) from error
                if not told:
                    self.say(f"  WARNING the disk of {self.path} is full: waiting for room")
                told = True
            time.sleep(0.5)
