"""The head of the flow: which piece is next, and what of it is to be fetched when the quota allows."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence

from colabkit.pipelines.dataset.encode.accounts import Hands, Settling, Work
from colabkit.pipelines.dataset.encode.crew import Crew, HaltedError
from colabkit.pipelines.dataset.encode.fetch import Order
from colabkit.pipelines.dataset.encode.journal import ENCODED, LEFT_ASIDE, UPLOADED
from colabkit.pipelines.dataset.encode.pieces import Piece

END, FLUSH = "end", "flush"
_MOST_TO_COMMIT = 8  # pieces that may wait for their commit before the next is begun
_LOOK_SECONDS = 0.1


class Feeder:
    """Hands out orders: to `ordered` first, then, when there is room for what they bring, to whoever fetches."""

    def __init__(
        self,
        hands: Hands,
        crew: Crew,
        settling: Settling,
        pieces: Sequence[Piece],
        ordered: queue.Queue,
        fetch: Callable[[Order], None],
    ):
        self.hands, self.pieces, self.ordered, self.fetch = hands, pieces, ordered, fetch
        self._crew, self._settling = crew, settling

    def run(self) -> None:
        """Feed all pieces. Raises: HaltedError."""
        for work in self._works():
            if work is None:
                self.ordered.put(FLUSH)
                continue
            for order in self.hands.fetcher.orders(self._open(work)):
                self.ordered.put(order)  # before it waits: those before it are batched until there is room for it
                if not self.hands.credits.acquire(order.costs):
                    raise HaltedError
                self.fetch(order)
        self.ordered.put(END)

    def _works(self) -> Iterator[Work | None]:
        """Yield pieces to work on; None where there is none to be had for a while."""
        hands, left = self.hands, list(self.pieces)
        if hands.claims is None:
            yield from (Work(piece) for piece in left)
            return
        while left:
            hands.claims.look()
            committed = hands.committer.committed_ids()
            left = [piece for piece in left if piece.id not in committed]
            before = len(left)
            for piece in list(left):
                if self._crew.halted.is_set():
                    return
                token = hands.claims.take(piece.id)
                if token is None:
                    continue
                left.remove(piece)
                if hands.committer.read(piece.id) is None:
                    yield Work(piece, token)
                else:
                    hands.claims.let_go(piece.id)
            if left and len(left) == before:
                yield None
                self._crew.halted.wait(hands.poll_seconds)

    def _open(self, work: Work) -> list[int]:
        """Begin a piece; returns the numbers of its items that are to be fetched."""
        hands, piece = self.hands, work.piece
        while self._settling.num_to_commit > _MOST_TO_COMMIT:  # their commits wait for nobody
            if self._crew.halted.wait(_LOOK_SECONDS):
                raise HaltedError
        states = hands.journal.states(piece.id)
        work.states = {piece.start + i: state for i, state in states.items()}
        settled = {LEFT_ASIDE, UPLOADED} if hands.write_npz else {LEFT_ASIDE, UPLOADED, ENCODED}
        unsettled = [number for number in range(piece.start, piece.stop) if work.states.get(number) not in settled]
        self._settling.open(work, unsettled)
        fits = []
        for number in unsettled:
            size = int(hands.plan.items.length[number])
            if hands.fetcher.spool.cost(size) <= hands.credits.capacity:
                fits.append(number)
            else:
                self._settling.leave_aside(
                    number, f"larger than the disk quota: {size} bytes, {hands.credits.capacity} are for segments"
                )
        self._settling.close(work)
        return fits
