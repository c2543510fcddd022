"""Commit a piece: its codes first, then its manifest, which the first to finish puts.

At last, the one manifest of all.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from colabkit.core.errors import ChangedError, DataError, StateError
from colabkit.io.places.place import Place, Taken
from colabkit.pipelines.dataset.store.codes import Row, read_sidecar, write_sidecar

if TYPE_CHECKING:
    import pyarrow

FORMAT = 1
MANIFEST = "codes/MANIFEST.json"
MANIFESTS = "codes/manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The manifest of a piece: where its codes lie, and what they are. `left_aside`: (item, reason) pairs."""

    piece: str
    inputs: str  # the hash of the segments, their versions and the codec
    object: str
    size: int
    sha256: str
    num_rows: int
    seconds: float
    left_aside: tuple[tuple[str, str], ...] = ()
    worker: str = ""
    token: int = 0
    at: float = 0.0

    @classmethod
    def of(cls, content: bytes, where: str) -> Committed:
        """Read one. Raises: DataError."""
        try:
            found = json.loads(content)
            return cls(**{**found, "left_aside": tuple((item, reason) for item, reason in found["left_aside"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                "A piece's manifest is damaged",
                got=f"{type(error).__name__}: {error}",
                where=where,
                expected="what encoding wrote",
                fix="delete the object: the piece is encoded again",
            ) from error


class Committer:
    """Puts pieces below an address.

    `honours_absent` says that the store refuses to overwrite when asked to: see the probe.
    """

    def __init__(
        self,
        output: Place,
        facts: Mapping[str, object],
        *,
        honours_absent: bool = True,
        worker: str = "",
        say: Callable[[str], None] = print,
    ):
        self.output, self.facts, self.honours_absent, self.worker, self.say = (
            output,
            dict(facts),
            honours_absent,
            worker,
            say,
        )

    def committed_ids(self) -> set[str]:
        """Return the pieces that are committed: a listing, a page for every thousand."""
        return {
            found.name.removeprefix(f"{MANIFESTS}/").removesuffix(".json")
            for found in self.output.list(MANIFESTS)
            if found.name.endswith(".json")
        }

    def read(self, piece: str) -> Committed | None:
        """Return the manifest of a piece, None when it is not committed."""
        name = f"{MANIFESTS}/{piece}.json"
        found = self.output.get_if_there(name)
        return None if found is None else Committed.of(found[0], f"{self.output.address}/{name}")

    def commit(
        self, piece: str, inputs: str, rows: Sequence[Row], left_aside: Sequence[tuple[str, str]], token: int = 0
    ) -> Committed:
        """Put the codes and the manifest of a piece; returns the manifest that counts, which may be another worker's.

        Raises: ChangedError when the piece was committed from other segments or with another codec; StateError when the
        store gives back something else than what was put.
        """
        content = write_sidecar(rows, self.facts)
        sha256 = hashlib.sha256(content).hexdigest()
        name = self._put_codes(f"codes/{piece}-{inputs[:16]}", content, sha256)
        seconds = round(sum(row.num_samples / row.rate_hz for row in rows), 3)
        made = Committed(
            piece=piece,
            inputs=inputs,
            object=name,
            size=len(content),
            sha256=sha256,
            num_rows=len(rows),
            seconds=seconds,
            left_aside=tuple(sorted(left_aside)),
            worker=self.worker,
            token=token,
            at=round(time.time(), 3),
        )
        return self._put_manifest(made)

    def _put_codes(self, stem: str, content: bytes, sha256: str) -> str:
        name = f"{stem}.parquet"
        if not self.honours_absent:
            self.output.put(name, content)
            self._verify(name, sha256)
            return name
        try:
            self.output.put(name, content, only_if_absent=True)
        except Taken:
            found = self.output.get_if_there(name)
            if found is None or hashlib.sha256(found[0]).hexdigest() != sha256:
                # Another machine's codes of the same segments: they may be committed, and must stay what they are.
                name = f"{stem}-{sha256[:8]}.parquet"
                self.output.put(name, content)
        return name

    def _put_manifest(self, made: Committed) -> Committed:
        name = f"{MANIFESTS}/{made.piece}.json"
        content = (json.dumps(asdict(made), indent=1, ensure_ascii=False) + "\n").encode()
        if not self.honours_absent:
            if (found := self.read(made.piece)) is not None:
                return self._compared(made, found)
            self.output.put(name, content)
            self._verify(name, hashlib.sha256(content).hexdigest())
            return made
        try:
            self.output.put(name, content, only_if_absent=True)
            return made
        except Taken:
            found = self.read(made.piece)
            if found is None:
                raise StateError(
                    "A piece's manifest was there and is gone",
                    where=f"{self.output.address}/{name}",
                    fix="let nobody delete below codes/ while it is being made, then run the same again",
                ) from None
            return self._compared(made, found)

    def _compared(self, made: Committed, found: Committed) -> Committed:
        """Return the manifest that was there first, if it is of the same work."""
        if found.inputs != made.inputs:
            raise ChangedError(
                "This piece was committed from other segments or with another codec",
                got=found.inputs,
                expected=made.inputs,
                where=f"{self.output.address}/{MANIFESTS}/{made.piece}.json",
                fix="choose another prefix for these codes",
            )
        if found.sha256 != made.sha256:
            self.say(
                f"  WARNING {made.piece}: {found.worker or 'another worker'} committed other codes of the same "
                f"segments ({found.num_rows} rows against {made.num_rows} here), which stay; do the machines differ?"
            )
        return found

    def _verify(self, name: str, sha256: str) -> None:
        if hashlib.sha256(self.output.get(name)).hexdigest() != sha256:
            raise StateError(
                "The store gives back something else than what was put",
                where=f"{self.output.address}/{name}",
                fix="let one worker alone write below this prefix, then run the same again",
            )


def read_manifest(output: Place) -> tuple[dict, str] | None:
    """Return the manifest of all pieces and its version, None when not all are there. Raises: DataError."""
    found = output.get_if_there(MANIFEST)
    if found is None:
        return None
    try:
        manifest = json.loads(found[0])
        if manifest["version"] != FORMAT:
            raise ValueError(f"format {manifest['version']}")
        return manifest, found[1]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            "The manifest of the codes is damaged",
            got=f"{type(error).__name__}: {error}",
            where=f"{output.address}/{MANIFEST}",
            expected="what encoding wrote",
            fix="delete the object and run the same command again: it is written anew",
        ) from error


def write_manifest(
    output: Place,
    pieces: Sequence[Committed],
    facts: Mapping[str, object],
    *,
    source: Mapping[str, object],
    settings: Mapping[str, object],
    num_items: int,
    num_changed: int,
) -> dict:
    """Put the one manifest of all pieces, in their order, and return it."""
    manifest = {
        "version": FORMAT,
        "codec": dict(facts),
        "settings": dict(settings),
        "source": dict(source),
        "num_items": num_items,
        "num_rows": sum(p.num_rows for p in pieces),
        "num_left_aside": sum(len(p.left_aside) for p in pieces),
        "num_changed": num_changed,
        "seconds": round(sum(p.seconds for p in pieces), 3),
        "pieces": [
            {
                "id": p.piece,
                "object": p.object,
                "size": p.size,
                "sha256": p.sha256,
                "num_rows": p.num_rows,
                "seconds": p.seconds,
                "num_left_aside": len(p.left_aside),
            }
            for p in pieces
        ],
    }
    output.put(MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    return manifest


def read_codes(output: Place) -> Iterator[tuple[str, pyarrow.Table]]:
    """Yield the name and rows of every committed piece; a segment encoded anew is in the last of them alone.

    Raises: StateError when not all pieces are committed; DataError for one that is not what was committed.
    """
    import pyarrow as pa

    found = read_manifest(output)
    if found is None:
        raise StateError(
            "The codes are not all there",
            where=f"{output.address}/{MANIFEST}",
            expected="a finished encoding",
            fix="encode first: run the step before",
        )
    pieces = found[0]["pieces"]
    generations = {piece["id"].partition("-")[0] for piece in pieces}
    seen: set[str] = set()
    for piece in reversed(pieces) if len(generations) > 1 else pieces:
        content = output.get(piece["object"])
        if hashlib.sha256(content).hexdigest() != piece["sha256"]:
            raise DataError(
                "These codes are not what was committed",
                where=f"{output.address}/{piece['object']}",
                expected=f"sha256 {piece['sha256']}",
                fix=f"delete {MANIFESTS}/{piece['id']}.json and {MANIFEST}, then encode again: that piece is made anew",
            )
        table, _ = read_sidecar(content, piece["object"])
        if len(generations) > 1:
            keys = table["key"].to_pylist()
            table = table.filter(pa.array([key not in seen for key in keys], pa.bool_()))
            seen |= set(keys)
        yield piece["object"], table
