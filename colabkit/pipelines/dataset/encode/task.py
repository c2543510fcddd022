"""The task: its plan, whether it is done already, its folder on this machine, and the manifest at the end."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from colabkit.core import files
from colabkit.core.disk import faults_told, in_units
from colabkit.core.errors import StateError, UsageError
from colabkit.core.teller import Teller
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.encode.claims import LEASE_SECONDS
from colabkit.pipelines.dataset.encode.fetch import CHANGED
from colabkit.pipelines.dataset.encode.pieces import FORMAT, Piece, Plan, make_plan
from colabkit.pipelines.dataset.store.codes import codec_facts
from colabkit.pipelines.dataset.store.commit import MANIFEST, Committed, Committer, read_manifest, write_manifest
from colabkit.pipelines.dataset.store.items import UPLOADED, Items, choose_items, read_source

_READERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What lies in the store, and what this run did of it.

    num_items: all that were asked for; num_done: of them encoded or left aside by now; num_encoded, num_left_aside,
    num_changed, num_batches, seconds_of_audio: of this run. is_finished: all pieces are committed, MANIFEST.json says
    so.
    """

    num_items: int = 0
    num_done: int = 0
    num_encoded: int = 0
    num_left_aside: int = 0
    num_changed: int = 0
    num_batches: int = 0
    num_pieces: int = 0
    num_pieces_done: int = 0
    num_bytes_read: int = 0
    most_bytes_used: int = 0
    seconds_of_audio: float = 0.0
    seconds_to_first: float | None = None
    seconds: float = 0.0
    is_finished: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How the work is shared with other machines.

    claims: pieces are claimed in the store. share: (number of this worker from 0, workers), where a store does not
    honour conditional puts: then each works on pieces of its own.
    """

    claims: bool = False
    worker: str = ""
    share: tuple[int, int] = (0, 1)
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 5.0


class Task:
    """What is asked for, and its folder on this machine."""

    def __init__(
        self,
        source: Place,
        output: Place,
        codec: Codec,
        scratch: Path,
        sharing: Sharing,
        output_format: str,
        channels: tuple[str, ...],
        limit: int | None,
        teller: Teller,
    ):
        self.source, self.output, self.codec, self.scratch, self.sharing = source, output, codec, scratch, sharing
        self.output_format, self.channels, self.limit, self.teller = output_format, channels, limit, teller
        self.facts = codec_facts(codec)
        self.settings = {"format": FORMAT, "codec": codec.fingerprint, "output_format": output_format}
        self.asked = {**self.settings, "channels": list(channels), "limit": limit}
        self.mark, self.digest = "", ""
        self._listed: tuple[Items, str] | None = None

    def identity(self, plan: Plan) -> dict:
        """Return what a journal must be of to be gone on with."""
        return {**self.settings, "output": self.output.address, "plan": plan.digest}

    def check(self, piece_bytes: int, write_npz: object, honours_absent: bool) -> None:
        """Raise UsageError for what cannot be; say what is not safe."""
        number, workers = self.sharing.share
        faults = {
            "piece_bytes must be positive": piece_bytes < 1,
            "limit must be positive": self.limit is not None and self.limit < 1,
            "output_format is sidecar or npz": self.output_format not in ("sidecar", "npz"),
            "output_format=npz needs a writer of npz": self.output_format == "npz" and write_npz is None,
            f"share is (number from 0, workers), not {self.sharing.share}": not 0 <= number < workers,
        }
        if told := [fault for fault, is_so in faults.items() if is_so]:
            raise UsageError("Cannot encode with these settings", got="; ".join(told), fix="correct the setting")
        if honours_absent:
            return
        if self.sharing.claims:
            raise UsageError(
                "This store does not honour conditional puts: workers cannot claim pieces",
                where=self.output.address,
                expected="a store that refuses to overwrite (If-None-Match)",
                fix="give each machine a share of its own instead: --set encode.shared=no --set encode.share=0/2 on "
                "the first of two, 1/2 on the other",
            )
        self.teller.say(
            f"  WARNING {self.output.address} does not honour conditional puts (If-None-Match): nothing keeps two "
            f"workers from committing the same piece. This one works on share {number + 1} of {workers} and reads back "
            "what it has put; give no two workers the same share"
        )

    def finished(self) -> Encoded | None:
        """Return what is done when all of it is: told by the manifest and by the version of the upload's, two requests.

        A source that was listed, because no upload has left a manifest, is listed again.
        """
        manifest, _ = read_manifest(self.output) or (None, "")
        if manifest is None or manifest["settings"] != self.asked or manifest["num_changed"]:
            return None
        mark = manifest["source"]["mark"]
        if mark:
            now = self.source.find(UPLOADED)
            is_same = now is not None and now.version == mark
        else:
            items, mark = self._listed = read_source(self.source, problem=lambda item, reason: None)
            is_same = (
                not mark
                and _digest(choose_items(items, self.channels, self.limit, self.source.address))
                == manifest["source"]["digest"]
            )
        if not is_same:
            return None
        self.teller.say(
            f"  nothing to do: all {manifest['num_items']} segments are encoded, as {MANIFEST} says "
            f"({manifest['num_left_aside']} of them left aside)"
        )
        number, pieces = manifest["num_items"], len(manifest["pieces"])
        return Encoded(num_items=number, num_done=number, num_pieces=pieces, num_pieces_done=pieces, is_finished=True)

    def plan(self, piece_bytes: int, *, skip_existing: bool, write: bool) -> tuple[Plan, Items]:
        """Return the plan and what is wanted of it."""
        manifest = read_manifest(self.output)
        # what has changed is in no upload's manifest
        listed = manifest is not None and bool(manifest[0]["num_changed"])
        items, self.mark = self._listed or read_source(self.source, listed=listed, problem=self.teller.problem)
        wanted = choose_items(items, self.channels, self.limit, self.source.address)
        self.digest = _digest(wanted)
        redo = None if skip_existing else self._is_to_be_redone
        return make_plan(wanted, self.output, self.settings, piece_bytes, redo=redo, write=write), wanted

    def _is_to_be_redone(self, plan: Plan) -> bool:
        """Tell whether all is encoded by now, so that "anew" means once more; else the work begun goes on."""
        done = Committer(self.output, self.facts).committed_ids()
        begun = plan.generations[0].replaces
        return not begun or all(piece.id in done for piece in plan.pieces)

    def tell(self, plan: Plan, wanted: Items, pieces: list[Piece], left: list[Piece]) -> None:
        """Say what there is to do."""
        hours = "" if wanted.seconds is None else f", {wanted.seconds / 3600:.1f} hours"
        num_bytes = sum(int(plan.items.length[p.start : p.stop].sum()) for p in left)
        self.teller.say(
            f"  {len(wanted)} segments ({in_units(wanted.num_bytes)}{hours}) in {len(pieces)} pieces; "
            f"to do: {sum(map(len, left))} segments ({in_units(num_bytes)}) in {len(left)} pieces"
        )
        if (planned := sum(map(len, pieces))) > len(wanted):
            self.teller.say(
                f"  pieces are made whole: {planned - len(wanted)} segments beside those asked for are "
                "encoded with them"
            )

    @contextlib.contextmanager
    def holding_scratch(self) -> Iterator[None]:
        """Keep others out of the scratch folder; a lock ends with its process. Raises: StateError."""
        with faults_told(self.scratch, "use the scratch folder"):
            self.scratch.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.scratch / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise StateError(
                "Another run is at work in this scratch folder",
                where=self.scratch,
                fix="wait until it has ended, or give this one another scratch folder",
            ) from None
        try:
            yield
        finally:
            os.close(handle)

    def worker_name(self) -> str:
        """Return the name of this worker, the same after a restart."""
        if self.sharing.worker:
            return self.sharing.worker
        path = self.scratch / "worker"
        if not path.exists():
            files.write_atomic(path, f"{socket.gethostname()}-{secrets.token_hex(3)}")
        return path.read_text()

    def own(self, pieces: list[Piece]) -> list[Piece]:
        """Return the pieces of this worker's share."""
        number, workers = self.sharing.share
        return [p for p in pieces if int(hashlib.sha256(p.id.encode()).hexdigest(), 16) % workers == number]

    def finish(
        self, result: Encoded, plan: Plan, pieces: list[Piece], committer: Committer, committed: Mapping[str, Committed]
    ) -> Encoded:
        """Write the manifest of all when all are committed."""
        if result.stopped:
            return result
        ids = committer.committed_ids()
        done = sum(piece.id in ids for piece in pieces)
        if done < len(pieces):
            self.teller.say(f"  {done} of {len(pieces)} pieces are committed; the others are other workers'")
            return replace(result, num_pieces_done=done)
        with ThreadPoolExecutor(_READERS) as pool:
            manifests = list(pool.map(lambda p: committed.get(p.id) or committer.read(p.id), plan.pieces))
        found = [m for m in manifests if m is not None]
        changed = _count_changed(plan, found)
        write_manifest(
            self.output,
            found,
            self.facts,
            source={"mark": self.mark, "digest": self.digest},
            settings=self.asked,
            num_items=sum(map(len, pieces)),
            num_changed=changed,
        )
        if changed:
            self.teller.say(
                f"  {changed} segments changed since they were planned: run the same again to encode them as they are"
            )
        return replace(result, num_pieces_done=done, is_finished=True)


def _count_changed(plan: Plan, manifests: Sequence[Committed]) -> int:
    """Count the segments that changed after they were planned and are not planned anew."""
    changed = {key: m.piece for m in manifests for key, reason in m.left_aside if reason.startswith(CHANGED)}
    if not changed:
        return 0
    newest = {}
    for piece in plan.pieces:
        newest |= {key: piece.id for key in plan.items.keys[piece.start : piece.stop] if key in changed}
    return sum(newest.get(key) == piece for key, piece in changed.items())


def _digest(items: Items) -> str:
    digest = hashlib.sha256()
    for place in zip(items.keys, items.objects, items.versions, items.offset.tolist(), strict=True):
        digest.update(repr(place).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
