"""A bucket of any kind: prefixes, listings, versions; asked with patience, and errors that say what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from colabkit.core.disk import faults_told
from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.io.places.http.client import Client, Fault, Listed, StoredObject
from colabkit.io.places.http.patience import Patience
from colabkit.io.places.http.ranges import RangeClient
from colabkit.io.places.http.remote import RemoteStore
from colabkit.io.places.names import absent, check_name, check_range, is_listed, joined, other_version, shorter
from colabkit.io.places.place import is_hidden, taken

OPENING_SECONDS = 60.0  # shorter than while reading: somebody waits for the first word
PATIENCE_SECONDS = 300.0  # without any progress
ONE_PIECE_BYTES = 64 << 20  # larger ones are sent in parts
_PART_BYTES = 8 << 20  # of memory that is used again; twice as large costs a fifth more processor time
_MOST_PARTS = 9_000  # S3 takes 10,000
_PASSING = {408, 409, 425, 429, *range(500, 600)} - {501, 505}
T = TypeVar("T")


class BucketStore(RemoteStore):
    """What both kinds of bucket have in common: a prefix, and the versions that were listed."""

    def __init__(self, scheme: str, bucket: str, prefix: str):
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
            raise UsageError("This is no name of a bucket", got=bucket, expected=f"{scheme}://BUCKET/PREFIX, in small letters",
                             fix="copy the bucket's name from its console page")
        self.bucket, self.prefix = bucket, prefix.strip("/")
        self._versions: dict[str, str] = {}
        super().__init__(f"{scheme}://" + "/".join(filter(None, (bucket, self.prefix))))
        self._opening = RangeClient(deadline_seconds=OPENING_SECONDS)

    def key_of(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _listed(self, found: list[StoredObject]) -> list[StoredObject]:
        """Take the prefix off, leave out hidden ones and folder markers, and keep the versions, so that changes are seen."""
        skip = len(self.prefix) + 1 if self.prefix else 0
        kept = sorted((StoredObject(o.name[skip:], o.size, o.version) for o in found
                       if not o.name.endswith("/") and not is_hidden(o.name[skip:])), key=lambda o: o.name)
        self._versions = {o.name: o.version for o in kept}
        self._links.drop()
        return kept

    def missing(self) -> UsageError:
        return UsageError("There is no such bucket", got=self.bucket, where=self.address,
                          fix="check the name, and the endpoint if it is not the provider's own")


class BucketObjects:
    """Objects below a prefix of a bucket. A subclass says which client to ask, and explains what is refused."""

    def __init__(self, bucket: str, prefix: str, address: str):
        self.bucket, self.prefix, self.address = bucket, prefix.strip("/"), address
        self.patience_seconds = PATIENCE_SECONDS
        self._contact = {"answered": False}  # shared by all that look below

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    def client(self, doing: str) -> Client:
        """Return the client of this process. Raises: ColabkitError."""
        raise NotImplementedError

    def next_way(self) -> bool:
        """Go on to another way of signing in after a refusal; False when there is none."""
        return False

    def explain(self, fault: Fault, doing: str) -> ColabkitError:
        """Return the error of a fault that does not pass."""
        raise NotImplementedError

    def below(self, prefix: str) -> Self:
        """Return the objects below a prefix of these; they share the connections."""
        if not prefix.strip("/"):
            return self
        inner = object.__new__(type(self))
        place = {"prefix": joined(self.prefix, prefix), "address": f"{self.address}/{prefix.strip('/')}"}
        inner.__dict__ = {**self.__dict__, **place}
        return inner

    def with_patience(self, seconds: float) -> Self:
        """Return these objects, given up after so many seconds without progress."""
        inner = object.__new__(type(self))
        inner.__dict__ = {**self.__dict__, "patience_seconds": seconds}
        return inner

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield what is below a prefix, sorted by name, a page at a time; goes on where a fault cut it off."""
        return (StoredObject(found.name, found.size, found.version) for found in self.scan(prefix))

    def scan(self, prefix: str = "") -> Iterator[Listed]:
        """Yield what `list` yields, with the times of writing."""
        skip, prefix = len(self.prefix) + 1 if self.prefix else 0, joined("", prefix)
        whole, last = joined(self.prefix, prefix), ""
        while page := self._ask(lambda client, after=last: client.page(whole, after), "list", whole):
            for found in page:
                if found.name <= last:
                    raise DataError("The store does not list its objects in order", got=f"{found.name} after {last}",
                                    expected="names in the order of their bytes", where=self.address,
                                    fix="use a bucket of the general kind")
                last, name = found.name, found.name[skip:]
                if is_listed(name, prefix):
                    yield Listed(name, found.size, found.version, found.stored_seconds)

    def find(self, name: str) -> StoredObject | None:
        """Return size and version of an object, None when it is not there."""
        key = self._key(name)
        found = self._ask(lambda client: client.head(key), "read", key, or_none=True)
        return None if found is None else StoredObject(name, found.size, found.version)

    def get(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> bytes:
        """Return bytes start..stop. Raises: DataError when it is not there or shorter, ChangedError on another version."""
        check_range(name, start, stop)
        if stop == start:
            return b""
        key = self._key(name)
        try:
            found = self._ask(lambda client: client.get(key, start, stop, version), "read", key, or_none=True)
        except Fault:  # the condition did not hold
            now = self.find(name)
            raise other_version(name, self.address, now.version if now else "none", version) from None
        if found is None:
            raise absent(name, self.address)
        if stop is not None and len(found.content) != stop - start:
            raise shorter(name, self.address, start + len(found.content), stop)
        return found.content

    def get_if_there(self, name: str) -> tuple[bytes, str] | None:
        """Return content and version, None when it is not there."""
        key = self._key(name)
        found = self._ask(lambda client: client.get(key, 0, None, ""), "read", key, or_none=True)
        return None if found is None else (found.content, found.version)

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Write an object whole and return its version; above 64 MiB in parts, conditional ones always at once.

        A conditional put whose first answer was lost finds its own object there: when that has just these bytes it counts
        as written. So what workers claim things with must differ between them. Raises: Taken.
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

    def _key(self, name: str) -> str:
        return joined(self.prefix, check_name(name, self.address))

    def _ask(self, call: Callable[[Client], T], doing: str, key: str, *, or_none: bool = False) -> T | None:
        """Ask once more after faults that pass, and in another way where the first is refused. A condition that does not hold
        is raised as the Fault it is.
        """
        # Who was never heard of may not exist: somebody waits for the first word.
        patience = Patience(self.patience_seconds if self._contact["answered"] else min(self.patience_seconds, OPENING_SECONDS))
        while True:
            try:
                answer = call(self.client(doing))
                self._contact["answered"] = True
                return answer
            except Fault as fault:
                self._contact["answered"] |= bool(fault.status)
                if fault.kind == "condition":
                    raise
                if fault.kind == "absent" and or_none:
                    return None
                is_refused = fault.status in (400, 401, 403) and fault.code != "RequestTimeout"
                if is_refused and self.next_way():
                    continue
                passes = fault.status in _PASSING or fault.code == "RequestTimeout" or not fault.status
                if fault.kind or not passes:
                    raise self.explain(fault, doing) from None  # a library's message may hold what was signed
                cause, wait_seconds = fault.cause, fault.wait_seconds
            patience.wait(cause, f"{key} of {self.address}" if key else self.address, wait_seconds)
