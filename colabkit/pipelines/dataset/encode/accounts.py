"""Accounts of items: encoded, uploaded or left aside; and of pieces, committed when all their items are settled.

And what all parts of the engine work with: the piece in hand, the tools, and the tally of what was done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from colabkit.core.errors import DataError
from colabkit.core.teller import Teller
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.encode.claims import Claims
from colabkit.pipelines.dataset.encode.codec_calls import Encoder
from colabkit.pipelines.dataset.encode.credits import Credits
from colabkit.pipelines.dataset.encode.crew import Crew
from colabkit.pipelines.dataset.encode.fetch import Fetcher, LeftAsideError
from colabkit.pipelines.dataset.encode.journal import LEFT_ASIDE, Journal
from colabkit.pipelines.dataset.encode.pieces import Piece, Plan
from colabkit.pipelines.dataset.store.codes import Row
from colabkit.pipelines.dataset.store.commit import Committed, Committer

_FEW = 20  # items of a piece, of which all may be broken by chance


@dataclass(slots=True)
class Tally:
    """What was done in this run; num_items are those settled in one way or the other."""

    num_items: int = 0
    num_encoded: int = 0
    num_left_aside: int = 0
    num_changed: int = 0
    num_batches: int = 0
    num_pieces: int = 0
    seconds_to_first: float | None = None
    stopped: bool = False


@dataclass(slots=True)
class Work:
    """A piece being worked on: its claim's token, how many items are not settled, and the states of the others."""

    piece: Piece
    token: int = 0
    num_left: int = 0
    states: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What the engine works with."""

    plan: Plan
    fetcher: Fetcher
    credits: Credits
    journal: Journal
    committer: Committer
    encoder: Encoder
    output: Place
    claims: Claims | None
    journal_bytes: int  # of the quota, kept for the journal
    write_npz: Callable[[Any], bytes] | None
    problem: Callable[[str, str], None]
    teller: Teller  # asked whether to stop
    tick: Callable[[Tally], None]  # called now and then
    most_failed_fraction: float = 0.5
    num_downloads: int = 16
    num_decoders: int = 3
    num_uploads: int = 8
    poll_seconds: float = 5.0


class Settling:
    """Keeps the account of pieces and items.

    Safe for many threads; uploads and commits wait for nobody but the store.
    """

    def __init__(self, hands: Hands, crew: Crew, tally: Tally):
        self.hands, self.tally, self._crew = hands, tally, crew
        self.committed: dict[str, Committed] = {}
        self.costs: dict[int, int] = {}  # what an item holds of the quota
        self.num_to_commit = 0  # pieces of which all is settled
        self._num_open = 0
        self._work_of: dict[int, Work] = {}
        self._changed = threading.Condition()
        self._uploads = crew.pool("upload", hands.num_uploads)
        self._commits = crew.pool("commit", 2)

    def open(self, work: Work, unsettled: list[int]) -> None:
        """Begin a piece; it ends when the items `unsettled` are settled and `close` was called."""
        work.num_left = len(unsettled) + 1
        with self._changed:
            self._num_open += 1
            self.tally.num_items += len(work.piece) - len(unsettled)
        for number in unsettled:
            self._work_of[number] = work
            self.costs[number] = 0

    def close(self, work: Work) -> None:
        """All items of a piece that is opened are on their way."""
        self._one_less(work)

    def piece_of(self, number: int) -> Piece:
        """Return the piece of an item that is not settled."""
        return self._work_of[number].piece

    def state_of(self, number: int) -> int | None:
        """Return the state that an earlier run has left an item in."""
        return self._work_of[number].states.get(number)

    def encoded(self, number: int) -> None:
        """An item's codes are in the journal: upload it whole where that is wanted."""
        if self.hands.write_npz:
            self._crew.submit(self._uploads, self._upload, number)
        else:
            self._settle(number)

    def leave_aside(self, number: int, reason: str, *, changed: bool = False) -> None:
        """Note and tell an item that cannot be used."""
        work = self._work_of[number]
        self.hands.journal.left_aside(work.piece.id, number - work.piece.start, reason)
        self.hands.problem(self.hands.plan.items.keys[number], reason)
        with self._changed:
            self.tally.num_left_aside += 1
            self.tally.num_changed += changed
        self._settle(number, encoded=False)

    def wait(self, seconds: float) -> bool:
        """Wait a moment for pieces to be committed; returns whether any is not."""
        with self._changed:
            if self._num_open:
                self._changed.wait(seconds)
            return self._num_open > 0

    def _upload(self, number: int) -> None:
        """Put a full segment with its codes into the store."""
        hands, piece = self.hands, self.piece_of(number)
        entry = hands.journal.entries(piece.id, number - piece.start)[0]
        try:
            segment, _ = hands.fetcher.segment(number)
        except LeftAsideError as error:
            self.leave_aside(number, error.reason, changed=error.changed)
            return
        hands.output.put(
            f"encoded/{hands.plan.items.keys[number]}.npz", hands.write_npz(replace(segment, codes=entry.codes))
        )
        hands.journal.uploaded(piece.id, number - piece.start)
        self._settle(number)

    def _settle(self, number: int, *, encoded: bool = True) -> None:
        """Give back what an item took; it is done with."""
        self.hands.fetcher.spool.drop(self.hands.fetcher.name_of(number))
        self.hands.credits.release(self.costs.pop(number))
        work = self._work_of.pop(number)
        with self._changed:
            self.tally.num_items += 1
            self.tally.num_encoded += encoded
        self._one_less(work)

    def _one_less(self, work: Work) -> None:
        with self._changed:
            work.num_left -= 1
            is_last = work.num_left == 0
            self.num_to_commit += is_last
        if is_last:
            self._crew.submit(self._commits, self._commit, work)

    def _commit(self, work: Work) -> None:
        hands, piece = self.hands, work.piece
        rows, left_aside = self._rows(piece)
        if len(piece) >= _FEW and len(left_aside) > hands.most_failed_fraction * len(piece):
            hands.journal.forget_left_aside(piece.id)  # they are tried again when the cause is mended
            raise DataError(
                f"{len(left_aside)} of {len(piece)} segments of a piece cannot be used",
                got=left_aside[0][1],
                expected=f"at most {hands.most_failed_fraction:.0%} broken ones",
                where=left_aside[0][0],
                fix="mend what they have in common, then run the same again; or leave them aside: "
                "--set encode.most_failed_fraction=1",
            )
        inputs = hands.plan.inputs_hash(piece, str(hands.committer.facts["fingerprint"]))
        made = hands.committer.commit(piece.id, inputs, rows, left_aside, work.token)
        hands.journal.committed(piece.id)
        if hands.claims is not None:
            hands.claims.let_go(piece.id)
        with self._changed:
            self.committed[piece.id] = made
            self.tally.num_pieces += 1
            self.num_to_commit -= 1
            self._num_open -= 1
            self._changed.notify_all()

    def _rows(self, piece: Piece) -> tuple[list[Row], list[tuple[str, str]]]:
        """Return the rows of a piece, and what was left aside of it with the reasons."""
        rows, left_aside = [], []
        for entry in self.hands.journal.entries(piece.id):
            item = self.hands.plan.items[piece.start + entry.number]
            if entry.state == LEFT_ASIDE:
                left_aside.append((item.key, entry.reason))
            else:
                rows.append(
                    Row(
                        key=item.key,
                        codes=entry.codes,
                        object=item.object,
                        offset=item.offset,
                        length=-1 if item.is_whole else item.length,
                        version=item.version,
                        **entry.known,
                    )
                )
        return rows, left_aside
