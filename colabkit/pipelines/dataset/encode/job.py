"""Encode a source of segments into codes: what is done is skipped, what was begun goes on, all within a disk quota."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from colabkit.core.teller import Teller
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.encode import progress_file
from colabkit.pipelines.dataset.encode.accounts import Hands, Tally
from colabkit.pipelines.dataset.encode.claims import Claims
from colabkit.pipelines.dataset.encode.codec_calls import Encoder
from colabkit.pipelines.dataset.encode.credits import Credits
from colabkit.pipelines.dataset.encode.engine import Engine
from colabkit.pipelines.dataset.encode.fetch import Fetcher, ReadSegment
from colabkit.pipelines.dataset.encode.journal import Journal
from colabkit.pipelines.dataset.encode.pieces import Piece, Plan
from colabkit.pipelines.dataset.encode.quota import choose_quota
from colabkit.pipelines.dataset.encode.spool import Spool
from colabkit.pipelines.dataset.encode.task import Encoded, Sharing, Task
from colabkit.pipelines.dataset.store.commit import Committer

__all__ = ["PIECE_BYTES", "Encoded", "Sharing", "encode"]

PIECE_BYTES = 256 << 20


def encode(
    source: Place,
    output: Place,
    codec: Codec,
    *,
    scratch: Path,
    read_segment: ReadSegment,
    write_npz: Callable[[Any], bytes] | None = None,
    quota_bytes: int | None = None,
    piece_bytes: int = PIECE_BYTES,
    channels: Sequence[str] = (),
    limit: int | None = None,
    skip_existing: bool = True,
    output_format: Literal["sidecar", "npz"] = "sidecar",
    dry_run: bool = False,
    sharing: Sharing | None = None,
    honours_absent: bool = True,
    most_failed_fraction: float = 0.5,
    num_downloads: int = 16,
    num_uploads: int = 8,
    teller: Teller = Teller(),
) -> Encoded:
    """Encode the segments of `source` and put their codes below codes/ of `output` (and encoded/*.npz with "npz").

    Killed anywhere, the same call goes on; at most the micro-batch in flight is encoded again. `scratch` is a folder
    on a local disk, of which no more than `quota_bytes` are used. Broken segments are left aside and told. With
    `skip_existing=False` all is encoded anew. `honours_absent=False` says that the store does not refuse to overwrite.
    When the teller asks to stop, what is done is kept and `stopped` is True.
    Raises: UsageError for settings and quotas that cannot be; ChangedError when codes of other settings lie there;
    DataError for a source without segments, or when most of a piece is broken; StateError for the disk; Unreachable.
    """
    began = time.monotonic()
    task = Task(
        source, output, codec, Path(scratch), sharing or Sharing(), output_format, tuple(channels), limit, teller
    )
    task.check(piece_bytes, write_npz, honours_absent)
    if skip_existing and (done := task.finished()) is not None:
        return done
    plan, wanted = task.plan(piece_bytes, skip_existing=skip_existing, write=not dry_run)
    committer = Committer(output, task.facts, honours_absent=honours_absent, say=teller.say)
    pieces, done_ids = plan.pieces_of(wanted), committer.committed_ids()
    left = [piece for piece in pieces if piece.id not in done_ids]
    task.tell(plan, wanted, pieces, left)
    num_items = sum(map(len, pieces))
    before = Encoded(
        num_items=num_items,
        num_done=num_items - sum(map(len, left)),
        num_pieces=len(pieces),
        num_pieces_done=len(pieces) - len(left),
        seconds=time.monotonic() - began,
    )
    if dry_run:
        return before
    with task.holding_scratch():
        committer.worker = task.worker_name()
        job = _Job(
            task, plan, left, done_ids, before, began, read_segment, write_npz if output_format == "npz" else None
        )
        result = (
            job.run(
                committer,
                quota_bytes,
                most_failed_fraction=most_failed_fraction,
                num_downloads=num_downloads,
                num_uploads=num_uploads,
            )
            if job.pieces
            else before
        )
    return task.finish(result, plan, pieces, committer, job.committed)


class _Job:
    """The pieces that are left for this worker, with what is set up around the engine."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        left: list[Piece],
        done_ids: set[str],
        before: Encoded,
        began: float,
        read_segment: ReadSegment,
        write_npz: Callable[[Any], bytes] | None,
    ):
        self.task, self.plan, self.done_ids, self.before, self.began = task, plan, done_ids, before, began
        self.read_segment, self.write_npz = read_segment, write_npz
        self.pieces = task.own(left)
        self.committed: dict = {}
        self._telling = threading.Lock()

    def run(self, committer: Committer, quota_bytes: int | None, **numbers: Any) -> Encoded:
        """Do the work; returns what was done."""
        task, plan, teller = self.task, self.plan, self.task.teller
        spool = Spool(task.scratch / "spool")
        with contextlib.closing(
            Journal(task.scratch / "journal.sqlite", task.identity(plan), say=teller.say)
        ) as journal:
            for piece in set(journal.pieces()) & self.done_ids:
                journal.committed(piece)  # by a run that was killed just then, or by another worker
            lying = dict(spool.names())
            quota = choose_quota(
                spool,
                plan.items,
                self.pieces,
                task.codec,
                quota_bytes=quota_bytes,
                where=task.scratch,
                used_bytes=sum(lying.values()) + journal.num_bytes,
                choose=teller.choose,
            )
            fetcher = Fetcher(
                task.source,
                plan.items,
                spool,
                task.codec,
                self.read_segment,
                most_cost=max(1, quota.segments // 8),
                say=teller.say,
            )
            credits = Credits(quota.segments, evict=lambda number: spool.drop(fetcher.name_of(number)))
            _adopt(lying, self.pieces, fetcher, credits)
            claims = (
                Claims(task.output, committer.worker, lease_seconds=task.sharing.lease_seconds, say=teller.say)
                if task.sharing.claims
                else None
            )
            lengths = (length for p in self.pieces for length in plan.items.length[p.start : p.stop].tolist())
            total = None if claims else sum(map(spool.cost, lengths))
            with self._showing(journal, credits) as tick:
                hands = Hands(
                    plan=plan,
                    fetcher=fetcher,
                    credits=credits,
                    journal=journal,
                    committer=committer,
                    claims=claims,
                    encoder=Encoder(task.codec, say=teller.say),
                    output=task.output,
                    journal_bytes=quota.journal,
                    write_npz=self.write_npz,
                    problem=self._problem,
                    tick=tick,
                    teller=teller,
                    poll_seconds=task.sharing.poll_seconds,
                    **numbers,
                )
                engine = Engine(hands, self.pieces, total, self.began)
                try:
                    tally = engine.run()
                finally:
                    tick(engine.tally, is_last=True)
        self.committed = engine.committed
        if not tally.stopped:
            for name, _ in list(spool.names()):
                spool.drop(name)
        return self._result(tally, fetcher, credits, quota.journal)

    @contextlib.contextmanager
    def _showing(self, journal: Journal, credits: Credits) -> Iterator[Callable[..., None]]:
        """Give what shows and writes down how far the engine is."""
        before = self.before
        written = progress_file.Record(self.task.scratch / progress_file.NAME, journal, credits, before)
        with self.task.teller.progress(before.num_items, "encode", done=before.num_done, unit="segments") as shown:

            def tick(tally: Tally, is_last: bool = False) -> None:
                if (moved := before.num_done + tally.num_items - shown.done) > 0:
                    shown.update(moved, left_aside=tally.num_left_aside)
                written.write(tally, is_last=is_last)

            yield tick

    def _problem(self, item: str, reason: str) -> None:
        with self._telling:
            self.task.teller.problem(item, reason)

    def _result(self, tally: Tally, fetcher: Fetcher, credits: Credits, journal_bytes: int) -> Encoded:
        before = self.before
        return replace(
            before,
            num_done=before.num_done + tally.num_items,
            num_encoded=tally.num_encoded,
            num_left_aside=tally.num_left_aside,
            num_changed=tally.num_changed,
            num_batches=tally.num_batches,
            num_pieces_done=before.num_pieces_done + tally.num_pieces,
            num_bytes_read=fetcher.num_bytes,
            most_bytes_used=credits.most_used + journal_bytes,
            seconds_of_audio=sum(piece.seconds for piece in self.committed.values()),
            seconds_to_first=tally.seconds_to_first,
            seconds=time.monotonic() - self.began,
            stopped=tally.stopped,
        )


def _adopt(lying: dict[str, int], pieces: list[Piece], fetcher: Fetcher, credits: Credits) -> None:
    """Count what an earlier run has fetched ahead; what nobody needs is removed."""
    for number in (n for piece in pieces for n in range(piece.start, piece.stop)):
        if not lying:
            return
        name = fetcher.name_of(number)
        if name in lying and credits.adopt(number, lying[name]):
            del lying[name]
            fetcher.adopted.add(number)
    for name in lying:
        fetcher.spool.drop(name)
