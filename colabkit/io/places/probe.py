"""Guarantees of a store, tried with a few small objects before anything relies on them."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields

from colabkit.core.errors import ColabkitError, StateError, UsageError
from colabkit.core.table import Table
from colabkit.io.places.http.client import Client, Fault
from colabkit.io.places.http.patience import Unreachable
from colabkit.io.places.place import Place, Taken

_PREFIX = ".colabkit-probe-"
_RACERS = 2
_PART_BYTES = 5 << 20  # the least that S3 takes

_FOLLOWS = {  # what is tried: what follows where it is honoured, and where it is not
    "if_none_match": (
        "put only if absent (If-None-Match)",
        "several machines may work on one plan, each piece is committed once",
        "give each machine its own share of the pieces: nobody can see that another was first",
    ),
    "one_of_a_race": ("of two puts at once one wins", "claims of pieces hold", "as above: claims are not safe here"),
    "if_match": (
        "put only over a version (If-Match)",
        "claims that ran out are taken over",
        "a claim of a machine that died is waited for and removed by hand",
    ),
    "ranges": ("reading a range", "single segments are read from the middle of a shard", "shards are fetched whole"),
    "multipart": ("sending in parts", "objects above 64 MiB are sent in parts", "keep shards below 64 MiB"),
    "may_delete": (
        "deleting",
        "what is replaced and what was tried is removed",
        "nothing is removed: old claims and what was tried here stay",
    ),
    "version_is_md5": (
        "the ETag is the MD5",
        "uploads can be compared with local files by it",
        "contents are compared by the CRC-32 in the manifest alone",
    ),
}


@dataclass(frozen=True, slots=True)
class Honours:
    """What a store honours, each True or False. `left` names objects that could not be removed."""

    if_none_match: bool
    one_of_a_race: bool
    if_match: bool
    ranges: bool
    multipart: bool
    may_delete: bool
    version_is_md5: bool
    address: str = ""
    left: tuple[str, ...] = ()

    @property
    def can_commit(self) -> bool:
        """Tell whether several workers may share the store without a plan that keeps them apart."""
        return self.if_none_match and self.one_of_a_race

    def table(self) -> Table:
        """Return what is honoured, and what follows."""
        rows = [
            [
                _FOLLOWS[one.name][0],
                "yes" if (yes := getattr(self, one.name)) else "NO",
                _FOLLOWS[one.name][1 if yes else 2],
            ]
            for one in fields(self)
            if one.name in _FOLLOWS
        ]
        return Table(["the store", "", "so"], rows, title=f"what {self.address} honours")


_known: dict[tuple[int, str], Honours] = {}


def probe(objects: Place, *, again: bool = False) -> Honours:
    """Try what a store honours, below .colabkit-probe-RANDOM, and remove what was written; once a process for a bucket.

    Raises: UsageError where nothing may be written at all or the keys are not accepted, Unreachable.
    """
    key = (os.getpid(), _place(objects))
    if again or key not in _known:
        _known[key] = _probe(objects)
    return _known[key]


def _place(objects: Place) -> str:
    """Return what names endpoint and bucket: what is honoured does not depend on the prefix."""
    profile, bucket = getattr(objects, "profile", None), getattr(objects, "bucket", "")
    return f"{profile.endpoint if profile else ''} {bucket}" if bucket else objects.address


def _probe(objects: Place) -> Honours:
    inner = objects.below(_PREFIX + secrets.token_hex(6))
    first, second = b"first " + secrets.token_bytes(16), b"second " + secrets.token_bytes(16)
    written = ["one"]
    version = inner.put("one", first)
    if_none_match = _is_refused(lambda: inner.put("one", second, only_if_absent=True))
    if not if_none_match:
        version = inner.put("one", first)
    if_match = _is_refused(lambda: inner.put("one", second, only_if_version=hashlib.md5(b"another").hexdigest()))
    if if_match:
        try:
            version = inner.put("one", first, only_if_version=version)
        except ColabkitError:  # it refuses any version, the right one too
            if_match = False
    if not if_match:
        version = inner.put("one", first)
    written.append("race")
    one_wins = if_none_match and _race(inner)
    ranges = _has_ranges(inner, first)
    multipart = _has_parts(inner, written)
    left = []
    for name in written:
        try:
            inner.delete(name)
        except UsageError:
            left.append(f"{inner.address}/{name}")
    may_delete = not left and inner.find("one") is None
    return Honours(
        if_none_match,
        one_wins,
        if_match,
        ranges,
        multipart,
        may_delete,
        version == hashlib.md5(first).hexdigest(),
        objects.address,
        tuple(left),
    )


def _is_refused(put: Callable[[], object]) -> bool:
    """Tell whether a put is refused for its condition; a store that knows no conditions may refuse it otherwise."""
    try:
        put()
    except Taken:
        return True
    except Unreachable:
        raise
    except (UsageError, StateError):
        return False
    return False


def _race(inner: Place) -> bool:
    start, wins, faults = threading.Barrier(_RACERS), [], []

    def run(number: int) -> None:
        content = f"racer {number} ".encode() + secrets.token_bytes(16)
        start.wait()
        try:
            inner.put("race", content, only_if_absent=True)
            wins.append(content)
        except Taken:
            pass  # the other one won
        except ColabkitError as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(_RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return len(wins) == 1 and inner.get("race") == wins[0]


def _has_ranges(inner: Place, content: bytes) -> bool:
    try:
        right = inner.get("one", 2, 9) == content[2:9]
        return right and not (hasattr(inner, "client") and inner.client().without_ranges)
    except Unreachable:
        raise
    except ColabkitError:
        return False


def _has_parts(inner: Place, written: list[str]) -> bool:
    """Send an object in the smallest parts there are, where the store is a bucket; a folder needs none."""
    ask = getattr(inner, "client", None)
    if ask is None:
        return True
    client: Client = ask()
    content = secrets.token_bytes(1 << 10) * (_PART_BYTES >> 10) + b"end"
    try:
        client.put_parts(f"{inner.prefix}/parts", content, _PART_BYTES)
    except Fault as fault:
        if fault.status in (0, 429) or fault.status >= 500 and fault.status not in (501, 505):
            raise Unreachable(
                "Cannot try what the store honours",
                got=fault.cause,
                where=inner.address,
                fix="run the same command again when it answers",
            ) from None
        return False
    written.append("parts")
    found = inner.find("parts")
    return found is not None and found.size == len(content)
