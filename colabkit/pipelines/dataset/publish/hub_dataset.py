"""Segments and their codes published as a Hugging Face Hub dataset: killed anywhere, no finished shard is made again.

A shard is made in the scratch folder, sent to the Hub's large file storage, written down and deleted. Commits come
later and are few: they name what is uploaded, without its content. The last one brings the card, and from then on the
dataset is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from colabkit.core.disk import faults_told, free_bytes, in_units, require_free
from colabkit.core.errors import Stopped
from colabkit.core.files import TEMPORARY_PREFIX
from colabkit.core.locks import acquire_run_lock, local_folder
from colabkit.core.prefetch import prefetch
from colabkit.core.teller import Teller
from colabkit.io.places.place import Place
from colabkit.io.transfer import hub_repo
from colabkit.io.transfer.hub_repo import HubPush
from colabkit.pipelines.dataset.publish.card import write_card
from colabkit.pipelines.dataset.publish.facts import DURATIONS, CardSettings, draw_durations, gather_facts
from colabkit.pipelines.dataset.publish.layout import DatasetPlan, PublishSettings, ShardPlan, make_plan
from colabkit.pipelines.dataset.publish.shard import choose_pages, make_shard
from colabkit.pipelines.dataset.publish.table import Rows, open_rows
from colabkit.pipelines.dataset.publish.targets import FolderTarget, HubTarget, There, Vanished
from colabkit.pipelines.dataset.publish.uploaded import Records, ShardRecord

_FEWEST_A_COMMIT, _MOST_A_COMMIT, _COMMITS = 50, 100, 8  # the Hub advises 50 to 100 files a commit, and counts commits
_WORKERS = 2
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a dataset is now, and what this call did: `num_made` shards were made and uploaded, in `num_commits`.

    card: the text of its README.md, "" after a dry run.
    """

    repo: str
    url: str
    revision: str
    private: bool
    splits: dict[str, int]
    num_rows: int
    num_left_out: int
    num_shards: int
    num_made: int
    num_bytes: int
    num_commits: int
    card: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """The Hub: its address and the token that may write; empty: huggingface.co and what is found.

    quota_seconds: how long a wait that the Hub orders is waited out; it counts commits by the hour.
    """

    token: str = ""
    endpoint: str = ""
    private: bool = True
    deadline_seconds: float = hub_repo.DEADLINE_SECONDS
    quota_seconds: float = hub_repo.QUOTA_SECONDS

    def __repr__(self) -> str:
        return f"HubSettings(endpoint={self.endpoint!r}, private={self.private})"


def publish_dataset(
    segments: Place | None,
    codes: Place | None,
    repo: str,
    *,
    settings: PublishSettings = PublishSettings(),
    hub: HubSettings = HubSettings(),
    card: CardSettings = CardSettings(),
    scratch: str | os.PathLike | None = None,
    output: str | os.PathLike | None = None,
    records: Place | None = None,
    workers: int = _WORKERS,
    dry_run: bool = False,
    teller: Teller = Teller(),
) -> Published:
    """Publish what `codes` holds of `segments` (codes None: all segments, without codes) as the dataset `repo`.

    segments: where audio lies. codes: the store whose codes/ was filled by encoding. Each object is read once, in
    ranges.
    scratch: local folder for the shards in hand and for what is known of those uploaded: the same folder continues.
    records: a second place for the latter, which a lost machine leaves behind. output: with repo "", the folder of the
    dataset.
    Raises: UsageError for a name, a token or a right that is missing; StateError for codes that are not all there or a
    disk without room for one shard; DataError when nothing is left; Unreachable; Stopped.
    """
    if repo:
        hub_repo.require_name(repo, "dataset")
    place = Path(scratch) if scratch is not None else local_folder("publish")
    with faults_told(place, "make the folder for shards"):
        place.mkdir(parents=True, exist_ok=True)
    push = (
        HubPush(
            repo,
            "dataset",
            token=hub.token or None,
            endpoint=hub.endpoint or None,
            teller=teller,
            deadline_seconds=hub.deadline_seconds,
            quota_seconds=hub.quota_seconds,
        )
        if repo and not dry_run
        else None
    )
    lock = acquire_run_lock(place)
    try:
        rows = open_rows(segments, codes, place, teller.problem)
        plan = make_plan(rows, settings, choose=teller.choose)
        _tell(plan, teller)
        if dry_run or push is None and output is None:
            page = hub_repo.hub_page(repo, "dataset", hub.endpoint or None) if repo else ""
            teller.say(f"  dry run: nothing was sent{f' to {page}' if page else ''}")
            return Published(
                repo=repo,
                url=page,
                revision="",
                private=hub.private,
                splits=plan.splits(),
                num_rows=plan.num_rows,
                num_left_out=0,
                num_shards=len(plan.shards),
                num_made=0,
                num_bytes=0,
                num_commits=0,
            )
        choose_pages(teller)
        target = HubTarget(push, plan, hub.private) if push is not None else FolderTarget(Path(output or "."), plan)
        slug = _slug(repo, hub.endpoint, output)
        kept = Records(place / "uploaded" / slug, records.below(slug) if records is not None else None, teller.say)
        with hub_repo.without_upload_bars():
            return _Publishing(rows, plan, segments, settings, card, repo, target, kept, place, workers, teller).run()
    finally:
        lock.release()


class _Publishing:
    """One call: what is there already is found, the rest is made, uploaded and committed."""

    def __init__(
        self,
        rows: Rows,
        plan: DatasetPlan,
        segments: Place | None,
        settings: PublishSettings,
        card: CardSettings,
        repo: str,
        target: HubTarget | FolderTarget,
        kept: Records,
        scratch: Path,
        workers: int,
        teller: Teller,
    ):
        self.rows, self.plan, self.segments, self.settings, self.card, self.repo = (
            rows,
            plan,
            segments,
            settings,
            card,
            repo,
        )
        self.target, self.kept, self.scratch, self.teller, self.workers = target, kept, scratch, teller, workers
        self.done: dict[str, ShardRecord] = {}
        self.committed: set[str] = set()
        self.made_here: set[str] = set()
        self.card_text = ""

    def run(self) -> Published:
        for left in self.scratch.glob(f"{TEMPORARY_PREFIX}shard-*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        there = self.target.look()
        self._find_done(there)
        revision = there.revision
        for round_ in range(_ROUNDS):
            try:
                revision = self._go_on(there)
                break
            except Vanished as fault:
                gone = [id for id in fault.ids if id not in self.made_here]
                if not gone or round_ == _ROUNDS - 1:
                    raise
                self.teller.say(
                    f"  the Hub has dropped {len(gone)} shards that were uploaded earlier: they are made again"
                )
                self.kept.forget(gone)
                for id in gone:
                    del self.done[id]
        records = [self.done[shard.id] for shard in self.plan.shards]
        num_left_out = sum(sum(r.left_out.values()) for r in records)
        self.teller.say(
            f"  {self.target.page}: {len(self.plan.shards)} shards, {len(self.made_here)} of them made now"
            + (f"; {num_left_out} segments left out" if num_left_out else "")
        )
        return Published(
            repo=self.repo,
            url=self.target.page,
            revision=revision,
            private=there.private,
            splits=self.plan.splits(lambda shard: self.done[shard.id].num_rows),
            num_rows=sum(r.num_rows for r in records),
            num_left_out=num_left_out,
            num_shards=len(records),
            num_made=len(self.made_here),
            num_bytes=sum(r.size for r in records),
            num_commits=self.target.num_commits,
            card=self.card_text,
        )

    def _find_done(self, there: There) -> None:
        """Recognise what is committed, here or in an earlier plan's folder, and what is uploaded only."""
        known = {**self.kept.read(), **there.records}
        for shard in self.plan.shards:
            record = known.get(shard.id)
            if record is not None and self.target.holds(there, shard, record):
                self.committed.add(shard.id)
                self.done[shard.id] = record
            elif record is not None and self.target.keeps_uploads:
                # uploaded, or committed under an earlier plan: named again, not sent again
                self.done[shard.id] = record
        num_uploaded = len(self.done) - len(self.committed)
        if self.done:
            self.teller.say(
                f"  {len(self.committed)} of {len(self.plan.shards)} shards are committed"
                + (f", {num_uploaded} more uploaded" if num_uploaded else "")
                + "; nothing of them is read again"
            )

    def _go_on(self, there: There) -> str:
        """Make what is missing, and commit; return the last revision."""
        shards = self.plan.shards
        size = min(_MOST_A_COMMIT, max(_FEWEST_A_COMMIT, -(-len(shards) // _COMMITS)))
        missing = [shard for shard in shards if shard.id not in self.done]
        waiting = [shard for shard in shards if shard.id in self.done and shard.id not in self.committed]
        num_rows = sum(len(shard.rows) for shard in missing)
        shown = self.teller.progress(num_rows, "publish", unit="segments") if num_rows else nullcontext()
        with shown as progress, closing(self._make_all(missing)) as made:
            while missing or len(waiting) > size:
                while len(waiting) >= size and (missing or len(waiting) > size):
                    self._commit(waiting[:size])
                    waiting = waiting[size:]
                if missing:
                    record = next(made)
                    shard = missing.pop(0)
                    self.done[shard.id] = record
                    self.made_here.add(shard.id)
                    waiting.append(shard)
                    progress.update(len(shard.rows))
        return self._finish(waiting, there)

    def _make_all(self, missing: Sequence[ShardPlan]):
        """Return an iterator of records of shards that are made and uploaded ahead, in order.

        Each is written down at once.
        """
        missing = list(missing)  # the caller's shrinks as they are made
        workers = self._workers_that_fit(missing)
        return prefetch(lambda k: self._make(missing[k]), 0, len(missing), workers=workers, ahead=workers)

    def _workers_that_fit(self, missing: Sequence[ShardPlan]) -> int:
        """Return how many shards may lie on the disk at once. Raises: StateError when not one has room."""
        largest = max((shard.most_bytes for shard in missing), default=0)
        require_free(self.scratch, largest, "make a shard")
        fitting = max(1, min(self.workers, int(0.9 * free_bytes(self.scratch) // max(1, largest))))
        if fitting < self.workers and missing:
            self.teller.choose(
                "publish.workers", fitting, f"the disk has room for so many shards of {in_units(largest)}"
            )
        return fitting

    def _make(self, shard: ShardPlan) -> ShardRecord:
        """Make one shard, upload it and write it down."""
        # A name of this call's own: a thread that an interrupt has left behind may still be at the same shard.
        path = self.scratch / f"{TEMPORARY_PREFIX}shard-{shard.id}-{secrets.token_hex(4)}.parquet"
        try:
            made = None
            if not self.teller.stop_requested:
                made = make_shard(path, shard, self.rows, self.segments, self.plan, self.settings, self.teller)
            if made is None:
                raise Stopped(
                    "Stopped before all shards were made",
                    where=self.target.page,
                    fix="run the same command again: what is uploaded is neither made nor sent again",
                )
            sha256, size = self.target.take(path, shard.name)
        finally:
            path.unlink(missing_ok=True)
        record = ShardRecord(
            id=shard.id, sha256=sha256, size=size, num_rows=made.num_rows, seconds=made.seconds, left_out=made.left_out
        )
        self.kept.add(record)
        return record

    def _commit(self, shards: Sequence[ShardPlan], card: str | None = None, pictures: dict | None = None) -> str:
        message = (
            "Add the last shards and the card"
            if card is not None
            else f"Add {len(shards)} shards of {len(self.plan.shards)}, from {shards[0].split} {shards[0].number}"
        )
        revision = self.target.commit([(s, self.done[s.id]) for s in shards], message, card, pictures or {})
        self.committed |= {shard.id for shard in shards}
        return revision

    def _finish(self, waiting: Sequence[ShardPlan], there: There) -> str:
        """Commit what is left together with the card: from here on the dataset is whole."""
        facts = gather_facts(self.repo, self.rows, self.plan, self.settings, self.done, self.card)
        pictures = {}
        if facts.pictures:
            path = self.scratch / DURATIONS
            draw_durations(path, self.rows, self.plan)
            pictures[DURATIONS] = self.target.take(path, DURATIONS)
        self.card_text = write_card(facts, there.card)
        return self._commit(waiting, self.card_text, pictures)


def _tell(plan: DatasetPlan, teller: Teller) -> None:
    splits = ", ".join(f"{name} {count:,}" for name, count in plan.splits().items())
    most = sum(shard.most_bytes for shard in plan.shards)
    teller.say(f"  {plan.num_rows:,} segments in {len(plan.shards)} shards, {in_units(most)} at most: {splits}")
    if plan.num_doubles:
        teller.problem(f"{plan.num_doubles} segments", "another segment has the same name; the first is published")


def _slug(repo: str, endpoint: str, output: str | os.PathLike | None) -> str:
    """Name the place that was uploaded to: what one Hub has, another has not.

    A Hub on loopback comes back at another port.
    """
    address = re.sub(r"^(https?://(?:127\.0\.0\.1|localhost)):\d+", r"\1", hub_repo.hub_endpoint(endpoint or None))
    text = f"{address} {repo}" if repo else f"folder {os.path.realpath(output or '.')}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
