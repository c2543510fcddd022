"""The engine: fetch, batch, encode and commit at once, by threads that pass on what the disk quota allows.

    feeder -> downloads -> in order -> batches -> waves -> encoder (the calling thread) -> uploads -> commits

It cannot lock. Credits are taken by the feeder alone, in the order of the work. Those before the next item in that
order have been fetched, or will be without waiting for more room; what of them waits in batches is let go until the
next item has room beside it; and encoding, uploading and committing take no credits.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from concurrent.futures import Future

from colabkit.pipelines.dataset.encode.accounts import Hands, Settling, Tally
from colabkit.pipelines.dataset.encode.batcher import Batcher, Waiting
from colabkit.pipelines.dataset.encode.crew import Crew, HaltedError
from colabkit.pipelines.dataset.encode.feeder import END, FLUSH, Feeder
from colabkit.pipelines.dataset.encode.fetch import Fetched, LeftAsideError, Order, Prepared
from colabkit.pipelines.dataset.encode.journal import ENCODED
from colabkit.pipelines.dataset.encode.pieces import Piece
from colabkit.pipelines.dataset.store.commit import Committed

_WINDOW_SHARE = 0.15  # of the quota may wait for others of its length
_BATCHES_AHEAD = 4
_LOOK_SECONDS = 0.1


class Engine:
    """One pass over pieces that are not committed.

    `total_bytes` is what they take of the spool, None where others share them; `began` is when the work was asked for,
    by time.monotonic().
    """

    def __init__(self, hands: Hands, pieces: Sequence[Piece], total_bytes: int | None, began: float):
        self.hands, self.pieces = hands, pieces
        self.tally = Tally()
        self.committed: dict[str, Committed] = {}
        self._crew = Crew()
        self._began = began
        self._ordered: queue.Queue[Order | str] = queue.Queue()
        self._ready: queue.Queue[tuple[list[Waiting], list[Future]] | None] = queue.Queue(_BATCHES_AHEAD)
        self._batcher = Batcher(
            hands.encoder.codec.most_seconds(), int(_WINDOW_SHARE * hands.credits.capacity), total_bytes=total_bytes
        )

    def run(self) -> Tally:
        """Work until all is committed or a stop is asked for. Raises: the first error of any thread."""
        hands, crew = self.hands, self._crew
        with crew:
            crew.when_halted(hands.credits.halt)
            hands.fetcher.halted = crew.halted
            self._downloads = crew.pool("download", hands.num_downloads)
            self._decoders = crew.pool("decode", hands.num_decoders)
            self._settling = Settling(hands, crew, self.tally)
            self.committed = self._settling.committed
            if hands.claims is not None:
                crew.start("claims", lambda: hands.claims.keep_renewing(crew.halted))
            feeder = Feeder(
                hands,
                crew,
                self._settling,
                self.pieces,
                self._ordered,
                lambda order: crew.submit(self._downloads, self._fetch, order),
            )
            crew.start("feeder", feeder.run)
            crew.start("batcher", self._batch)
            try:
                self._encode()
            except HaltedError:
                pass  # what has halted the crew is raised below
            except BaseException as error:
                crew.halt(error)
                raise
        crew.check()
        return self.tally

    def _fetch(self, order: Order) -> None:
        try:
            order.future.set_result(self.hands.fetcher.fetch(order))
        except BaseException as error:
            self._crew.halt(error)  # before whoever waits for the result is let go
            order.future.cancel()
            raise

    # The batcher's thread.

    def _batch(self) -> None:
        hands, batcher = self.hands, self._batcher
        while (order := self._crew.get(self._ordered)) != END:
            if order == FLUSH:
                self._emit(batcher.flush())
                continue
            self._make_room(order)
            for fetched in self._crew.result(order.future, meanwhile=lambda order=order: self._make_room(order)):
                self._emit(self._place(fetched, order.costs[fetched.number]))
            hands.credits.charge(max(0, hands.journal.num_bytes - hands.journal_bytes))
        self._emit(batcher.flush())
        self._crew.put(self._ready, None)

    def _make_room(self, order: Order) -> None:
        """Let batches leave until what is next has room beside what waits."""
        credits = self.hands.credits
        self._emit(self._batcher.shrink(max(0, credits.capacity - credits.overhead - order.cost)))

    def _place(self, fetched: Fetched, cost: int) -> list[list[Waiting]]:
        self._settling.costs[fetched.number] = cost
        if fetched.reason:
            self._settling.leave_aside(fetched.number, fetched.reason, changed=fetched.changed)
        elif self._settling.state_of(fetched.number) == ENCODED:  # by an earlier run, and not uploaded yet
            self._settling.encoded(fetched.number)
        else:
            return self._batcher.push(Waiting(fetched.number, fetched.num_frames, fetched.seconds, cost))
        return self._batcher.passed(cost)

    def _emit(self, batches: list[list[Waiting]]) -> None:
        for batch in batches:
            futures = [self._crew.future(self._decoders, self.hands.fetcher.prepare, segment.item) for segment in batch]
            self._crew.put(self._ready, (batch, futures))

    # The calling thread.

    def _encode(self) -> None:
        hands, crew = self.hands, self._crew
        is_last = False
        while not is_last:
            if hands.teller.stop_requested:
                self.tally.stopped = True
                return
            hands.tick(self.tally)
            try:
                found = self._ready.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                crew.check()
                continue
            is_last = found is None
            if found is not None:
                self._encode_batch(*found)
        while self._settling.wait(_LOOK_SECONDS) and not crew.halted.is_set():
            hands.tick(self.tally)
            if hands.teller.stop_requested:
                self.tally.stopped = True
                return

    def _encode_batch(self, batch: list[Waiting], futures: list[Future]) -> None:
        hands, prepared = self.hands, self._prepared(batch, futures)
        if not prepared:
            return
        results = hands.encoder.encode([one.wave for one in prepared.values()], batch[0].num_frames)
        rows = []
        for number, codes in zip(prepared, results, strict=True):
            if isinstance(codes, str):
                self._settling.leave_aside(number, codes)
            else:
                piece = self._settling.piece_of(number)
                rows.append((number, (piece.id, number - piece.start, codes, prepared[number].known)))
        if rows:
            hands.journal.encoded([row for _, row in rows])
        self.tally.num_batches += 1
        if self.tally.seconds_to_first is None and rows:
            self.tally.seconds_to_first = time.monotonic() - self._began
        for number, _ in rows:
            self._settling.encoded(number)

    def _prepared(self, batch: list[Waiting], futures: list[Future]) -> dict[int, Prepared]:
        """Return the waves of a batch, without those that turn out to be broken."""
        prepared = {}
        for segment, future in zip(batch, futures, strict=True):
            try:
                made = self._crew.result(future)
                frames = self.hands.encoder.codec.num_frames(len(made.wave))
                if frames != segment.num_frames:
                    raise LeftAsideError(f"it holds {frames} frames, not the {segment.num_frames} that its index says")
                prepared[segment.item] = made
            except LeftAsideError as error:
                self._settling.leave_aside(segment.item, error.reason, changed=error.changed)
        return prepared
