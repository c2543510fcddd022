"""obstore asks a bucket: its calls, and what its errors say, as one kind of fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colabkit.io.places.http.client import Fault
from colabkit.io.places.place import Found, StoredObject

PAGE_OBJECTS = 1000
_MOST_LISTINGS = 64
_QUICK_BYTES = 4 << 20  # are there within the short time-out, whatever the line
_CERTIFICATE = re.compile(
    r"invalid peer certificate: (?:Other\(OtherError\()?(\w+)|(CaUsedAsEndEntity|UnknownIssuer|"
    r"NotValidForName|CertExpired)",
    re.IGNORECASE,
)
_CODE, _STATUS = re.compile(r"<Code>(\w{1,60})</Code>"), re.compile(r"status code: (\d{3})|status: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_KIND = re.compile(
    r"(dns error|Connection refused|reset by peer|operation timed out)|"
    r"kind: (Timeout|Connect|Interrupted|Decode|Request)"
)


class ObstoreClient:
    """One bucket through obstore: a client for what takes long, one for what does not, and one for objects in parts.

    `make(seconds, retries, **client options)` opens one. `versions` says which field of obstore's answers is the
    version. obstore tries nothing again by itself, since it does not see how long a server says to wait; parts alone it
    does, so that one that is lost does not cost the others.
    """

    def __init__(self, make: Callable[..., Any], *, versions: str = "e_tag"):
        from datetime import timedelta

        silence = {"read_timeout": timedelta(seconds=300)}
        self._quick, self._slow = make(60, 0), make(3600, 0, **silence)
        self._parts = make(3600, 4, **silence)
        self._versions, self.without_ranges = versions, False
        # by prefix and the key that comes before the next page
        self._listing: dict[tuple[str, str], Iterator[Any]] = {}

    def page(self, prefix: str, after: str) -> list[StoredObject]:
        """Return the next objects below a prefix; a listing that goes on is asked for its next page."""
        import obstore

        with _told():
            pages = self._listing.pop((prefix, after), None)
            if pages is None:
                pages = iter(
                    obstore.list(self._slow, prefix=prefix or None, offset=after or None, chunk_size=PAGE_OBJECTS)
                )
            while True:
                page = next(pages, None)
                if page is None:
                    return []
                # obstore takes the slash off the empty objects that consoles make for folders.
                found = [
                    StoredObject(
                        meta["path"],
                        meta["size"],
                        self._version(meta) or f"{meta['last_modified']}",
                        meta["last_modified"].timestamp(),
                    )
                    for meta in page
                    if meta["size"] or "." in meta["path"].rpartition("/")[2]
                ]
                if found:
                    if len(self._listing) >= _MOST_LISTINGS:
                        self._listing.clear()  # of those who stopped midway; others go on from the key they had
                    self._listing[prefix, found[-1].name] = pages
                    return found

    def head(self, key: str) -> StoredObject:
        import obstore

        with _told():
            meta = obstore.head(self._quick, key)
        return StoredObject(key, meta["size"], self._version(meta))

    def get(self, key: str, start: int, stop: int | None, version: str) -> Found:
        import obstore

        options: dict[str, Any] = {"if_match": f'"{version}"'} if version and self._versions == "e_tag" else {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        store = self._quick if stop is not None and stop - start <= _QUICK_BYTES else self._slow
        with _told():
            try:
                found = obstore.get(store, key, options=options)
                is_now = self._version(found.meta)
                if version and is_now != version:
                    raise Fault("another version", kind="condition")
                return Found(bytes(found.bytes()), is_now)
            except obstore.exceptions.BaseError as error:
                text = str(error)
                if "status code: 416" in text:
                    return Found(b"", "")
                if "range" not in options or "non-partial response" not in text:
                    raise
        self.without_ranges = True
        whole = self.get(key, 0, None, version)
        return Found(whole.content[start:stop], whole.version)

    def put(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        import obstore

        mode = "create" if only_if_absent else None
        if only_if_version:
            mode = {"e_tag": f'"{only_if_version}"'} if self._versions == "e_tag" else {"version": only_if_version}
        store = self._quick if len(content) <= _QUICK_BYTES else self._slow
        with _told():
            return self._version(obstore.put(store, key, content, use_multipart=False, mode=mode))

    def put_parts(self, key: str, content: bytes | Path, part_bytes: int) -> str:
        import obstore

        with _told():
            return self._version(
                obstore.put(self._parts, key, content, use_multipart=True, chunk_size=part_bytes, max_concurrency=4)
            )

    def delete(self, key: str) -> None:
        import obstore

        with _told():
            obstore.delete(self._quick, key)

    def _version(self, meta: Any) -> str:
        return (meta.get(self._versions) or meta.get("e_tag") or "").strip('"')


@contextmanager
def _told() -> Iterator[None]:
    """Turn obstore's errors into faults.

    Their messages hold addresses and what the server said; neither is passed on.
    """
    import obstore

    try:
        yield
    except (obstore.exceptions.BaseError, OSError, ValueError, TypeError) as error:
        raise _fault(error) from None


def _fault(error: Exception) -> Fault:
    import obstore

    text, known = str(error), obstore.exceptions
    status, code = _STATUS.search(text), _CODE.search(text)
    status, code = int(status[1] or status[2]) if status else 0, code[1] if code else ""
    region = _REGION.search(text)
    got = " ".join(filter(None, (f"status {status}" if status else "", code)))
    kind = ""
    if isinstance(error, known.AlreadyExistsError | known.PreconditionError):
        # 409: another conditional write is under way at this moment, and nobody has won yet.
        kind = "" if code in ("ConditionalRequestConflict", "OperationAborted") else "condition"
    elif isinstance(error, known.InvalidPathError | TypeError):
        kind, got = "name", next(iter(re.findall(r'[Pp]ath "([^"]*)"', text)), "")
    elif code == "NoSuchBucket":
        status = 404
    elif status == 404 or isinstance(error, FileNotFoundError):
        kind, status = "absent", 404
    elif found := _CERTIFICATE.search(text):
        kind, got = "certificate", found[1] or found[2]
    elif "builder error" in text or (isinstance(error, ValueError) and not status):
        kind, got = "settings", type(error).__name__
    elif isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError | PermissionError):
        status = status or 403
    elif "redirect without LOCATION" in text:
        status = 301
    elif "169.254" in text:
        status, got = 403, "no credentials of this machine's role"
    if not got:
        found = _KIND.search(text)
        got = (found[1] or f"connection fault ({found[2]})") if found else type(error).__name__
    return Fault(got, status=status, code=code, kind=kind, region=region[1] if region else "")
