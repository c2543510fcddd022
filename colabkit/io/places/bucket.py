"""A bucket of any kind: prefixes, listings, versions; asked with patience, and errors that say what to do."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from colabkit.core.disk import faults_told
from colabkit.core.errors import ColabkitError, DataError, StateError, UsageError
from colabkit.io.places.http.client import Client, Fault
from colabkit.io.places.http.patience import Patience
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.names import check_name, check_range, is_listed, joined, other_version
from colabkit.io.places.place import Found, Place, StoredObject, taken

OPENING_SECONDS = 60.0  # shorter than while reading: somebody waits for the first word
PATIENCE_SECONDS = 300.0  # without any progress
ONE_PIECE_BYTES = 64 << 20  # larger ones are sent in parts
_PART_BYTES = 8 << 20  # of memory that is used again; twice as large costs a fifth more processor time
_MOST_PARTS = 9_000  # S3 takes 10,000
_PASSING = {408, 409, 425, 429, *range(500, 600)} - {501, 505}
_TOLD_TO_WAIT = {429, 503}
_MOST_WAYS = 3  # of signing in that one call tries
_PAST = {"list": "listed", "read": "read", "write": "written", "delete": "changed"}
T = TypeVar("T")
_forked = False  # after obstore was loaded: its threads stay with the parent, and what needs them would wait for ever


def _note_fork() -> None:
    global _forked
    _forked = _forked or "obstore" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


class Bucket(Place):
    """Objects below a prefix of a bucket. A subclass says which client to ask, and explains what is refused.

    Safe for many threads, not for a process that was forked after obstore was loaded: StateError is raised there.
    """

    scheme = ""

    def __init__(self, bucket: str, prefix: str, address: str = ""):
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
            raise UsageError(
                "This is no name of a bucket",
                got=bucket,
                expected=f"{self.scheme}://BUCKET/PREFIX, in small letters",
                fix="copy the bucket's name from its console page",
            )
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self.address = address or f"{self.scheme}://{joined(bucket, self.prefix)}"
        self.patience_seconds = PATIENCE_SECONDS
        self._asked = PerProcess(Counter)  # of this process, shared by all that look below

    def client(self) -> Client:
        """Return the client of this process. Raises: ColabkitError, Fault."""
        raise NotImplementedError

    def hearing_client(self, doing: str) -> Client | None:
        """Return a client that hears how long a refused one is told to wait, None where there is none for this.

        obstore hands on no headers of a refusal: after one, the next tries are made by this one.
        """
        raise NotImplementedError

    def needs_threads(self) -> bool:
        """Tell whether the client has threads, which a forked process lacks."""
        return True

    def other_way(self, refused: Client, fault: Fault) -> bool:
        """Find another way of signing in than that of a client which was refused; False when there is none."""
        raise NotImplementedError

    def explain(self, fault: Fault, doing: str) -> ColabkitError:
        """Return the error of a fault that does not pass."""
        raise NotImplementedError

    @property
    def counts(self) -> dict[str, int]:
        """What was asked in this process: requests, retries, throttled."""
        return {name: self._asked.get()[name] for name in ("requests", "retries", "throttled")}

    def below(self, prefix: str) -> Self:
        """Return what is below a prefix; it shares the connections."""
        if not prefix.strip("/"):
            return self
        return self._like(prefix=joined(self.prefix, prefix), address=f"{self.address}/{prefix.strip('/')}")

    def with_patience(self, seconds: float) -> Self:
        """Return this place, given up after so many seconds without progress."""
        return self._like(patience_seconds=seconds)

    def _like(self, **other: object) -> Self:
        inner = object.__new__(type(self))
        inner.__dict__ = {**self.__dict__, **other}
        return inner

    def must_exist(self) -> None:
        """Ask for a first page of the listing. Raises: UsageError when there is no bucket or no right; Unreachable."""
        next(iter(self.list()), None)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield what is below a prefix, sorted by name, a page at a time; goes on where a fault cut it off."""
        skip, prefix = len(self.prefix) + 1 if self.prefix else 0, joined("", prefix)
        whole, last = joined(self.prefix, prefix), ""
        while page := self._ask(lambda client, after=last: client.page(whole, after), "list", whole):
            for found in page:
                if found.name <= last:
                    raise DataError(
                        "The store does not list its objects in order",
                        got=f"{found.name} after {last}",
                        expected="names in the order of their bytes",
                        where=self.address,
                        fix="use a bucket of the general kind",
                    )
                last, name = found.name, found.name[skip:]
                if is_listed(name, prefix):
                    yield StoredObject(name, found.size, found.version, found.stored_seconds)

    def find(self, name: str) -> StoredObject | None:
        """Return size and version of an object, None when it is not there."""
        key = self._key(name)
        found = self._ask(lambda client: client.head(key), "read", key, or_none=True)
        return None if found is None else StoredObject(name, found.size, found.version)

    def get_if_there(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> Found | None:
        """Return bytes start..stop and their version, None when it is not there. Raises: ChangedError."""
        check_range(name, start, stop)
        if stop == start:
            return Found(b"", version)
        key = self._key(name)
        try:
            return self._ask(lambda client: client.get(key, start, stop, version), "read", key, or_none=True)
        except Fault:  # the condition did not hold
            raise other_version(name, self.address, "", version) from None

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Write an object whole and return its version; above 64 MiB in parts, conditional ones always at once.

        A conditional put whose first answer was lost finds its own object there: when that has just these bytes it
        counts as written. So what workers claim things with must differ between them. Raises: Taken.
        """
        key, num_tries = self._key(name), 0
        with faults_told(content if isinstance(content, Path) else "", f"read what is to be {key}"):
            size = content.stat().st_size if isinstance(content, Path) else len(content)
            in_parts = size > ONE_PIECE_BYTES and not only_if_absent and not only_if_version
            if isinstance(content, Path) and not in_parts:
                content = content.read_bytes()

        def write(client: Client) -> str:
            nonlocal num_tries
            num_tries += 1
            if in_parts:
                return client.put_parts(key, content, max(_PART_BYTES, -(-size // _MOST_PARTS)))
            return client.put(key, content, only_if_absent=only_if_absent, only_if_version=only_if_version)

        try:
            version = self._ask(write, "write", key, or_none=bool(only_if_version))
        except Fault:  # the condition did not hold
            version = None
        if version is not None:
            return version
        there = self.get_if_there(name) if num_tries > 1 else None
        if there is not None and there[0] == content:
            return there[1]
        raise taken(name, self.address, absent=only_if_absent)

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is none. Raises: UsageError without the right to."""
        key = self._key(name)
        self._ask(lambda client: client.delete(key), "delete", key, or_none=True)

    def close(self) -> None:
        """Do nothing: connections are shared by all that look below, and end with the last of them."""

    def _key(self, name: str) -> str:
        return joined(self.prefix, check_name(name, self.address))

    def _ask(self, call: Callable[[Client], T], doing: str, key: str, *, or_none: bool = False) -> T | None:
        """Ask once more after faults that pass, and in another way where the first is refused.

        A condition that does not hold is raised as the Fault it is.
        """
        if _forked and self.needs_threads():
            raise StateError(
                f"A bucket cannot be {_PAST[doing]} in a forked process",
                where=self.address,
                fix='do it before the fork, or start processes by multiprocessing.get_context("spawn")',
            )
        asked = self._asked.get()
        # Who was never heard of may not exist: somebody waits for the first word.
        patience = Patience(self.patience_seconds if asked["answers"] else min(self.patience_seconds, OPENING_SECONDS))
        num_ways, hearing, client = 0, None, None
        while True:
            asked["requests"] += 1
            try:
                client = hearing or self.client()
                answer = call(client)
                asked["answers"] += 1
                return answer
            except Fault as fault:
                asked["answers"] += bool(fault.status)
                if fault.kind == "condition":
                    raise
                if fault.kind == "absent" and or_none:
                    return None
                if hearing and 300 <= fault.status < 400:  # it goes on elsewhere, as obstore follows
                    hearing = None
                    continue
                is_refused = fault.status in (301, 400, 401, 403) and fault.code != "RequestTimeout"
                num_ways += is_refused
                if is_refused and num_ways < _MOST_WAYS and client is not None:
                    try:
                        if self.other_way(client, fault):
                            hearing = None
                            continue
                    except Fault as other:
                        fault = other
                passes = fault.status in _PASSING or fault.code == "RequestTimeout" or not fault.status
                if fault.kind or not passes:
                    raise self.explain(fault, doing) from None  # a library's message may hold what was signed
                if fault.status in _TOLD_TO_WAIT:
                    hearing = self.hearing_client(doing)
                asked["throttled"] += fault.status in _TOLD_TO_WAIT
                cause, wait_seconds = fault.cause, fault.wait_seconds
            asked["retries"] += 1
            patience.wait(cause, f"{key} of {self.address}" if key else self.address, wait_seconds)
