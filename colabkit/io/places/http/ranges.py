"""Ranged reads of the Hub that survive bad networks: taken up at the last byte, with back-off, within a deadline.

The Hub leads from each file to a signed address elsewhere, which is remembered and asked for anew when it expires;
clients of object stores do neither. Buckets are read by obstore.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from typing import Any
from urllib.parse import urljoin, urlsplit

from colabkit.core.errors import DataError
from colabkit.io.places.http.connections import Connections, cause_of, is_certificate_fault
from colabkit.io.places.http.links import Address, Link, without_secrets
from colabkit.io.places.http.patience import Patience, Unreachable, ordered_wait_seconds
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.names import changed, check_range, cut_short

__all__ = ["Address", "Link", "RangeClient", "Refused", "Unreachable"]

_BLOCK_BYTES = 1 << 17
_MOST_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_REDIRECTS = {301, 302, 303, 307, 308}
_REFUSED = {400, 401, 403}  # 400: what S3 says of a session token that has expired
_GONE = {404, 410}
_TRIED_AGAIN = {408, 425, 429, *range(500, 600)} - {501, 505}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")
_SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization"}
_ERROR_CODE = re.compile(rb"<Code>(\w{1,60})</Code>")


class Gone(DataError):
    """There is no such object."""


class Refused(DataError):
    """We may not read this, and a token or signature made anew did not help. `status` and `code` are the server's."""

    status = 0
    code = ""


class RangeClient:
    """Reads byte ranges; one for many threads. After a fork or a pickle each process has connections of its own.

    `deadline_seconds` counts from the last byte that came. Proxies are taken from the environment (HTTPS_PROXY,
    NO_PROXY), certificates from the system, certifi, SSL_CERT_FILE and REQUESTS_CA_BUNDLE.
    """

    def __init__(
        self,
        *,
        deadline_seconds: float = 300.0,
        read_timeout_seconds: float = 30.0,
        base_seconds: float = 0.1,
        cap_seconds: float = 20.0,
    ):
        self.deadline_seconds, self.read_timeout_seconds = deadline_seconds, read_timeout_seconds
        self.base_seconds, self.cap_seconds = base_seconds, cap_seconds
        self.connections = PerProcess(Connections)

    @property
    def counts(self) -> dict[str, int]:
        """What this process did: requests, bytes, retries, resumed, throttled."""
        return dict(self.connections.get().counts)

    def read(self, link: Link, start: int, stop: int | None, name: str) -> bytes:
        """Return bytes start..stop of the object, or to its end; `name` is what messages call it.

        Raises: DataError when it is gone, shorter, or changed between two answers; Refused; Unreachable.
        """
        check_range(name, start, stop)
        if stop == start:
            return b""
        transfer = _Transfer(self, link, start, stop, name)
        try:
            return transfer.run()
        finally:
            transfer.connections.count(transfer.seen)

    def patience(self) -> Patience:
        return Patience(self.deadline_seconds, base_seconds=self.base_seconds, cap_seconds=self.cap_seconds)

    def _timeouts(self, patience: Patience) -> tuple[float, float]:
        read_seconds = min(self.read_timeout_seconds, max(patience.left_seconds, 0.1))
        return min(_CONNECT_SECONDS, read_seconds), read_seconds

    def close(self) -> None:
        """Close this process's connections; a later read opens new ones."""
        connections = self.connections.drop()
        if connections:
            connections.close()


class _Transfer:
    """One read: what has come so far and what was tried."""

    def __init__(self, client: RangeClient, link: Link, start: int, stop: int | None, name: str):
        self.client, self.connections, self.link, self.name = client, client.connections.get(), link, name
        self.start, self.position, self.stop = start, start, stop
        self.body = io.BytesIO()
        self.patience = client.patience()
        self.address: Address | None = None
        self.num_redirects, self.renewed, self.went_back = 0, False, False
        self.seen: Counter[str] = Counter()

    def run(self) -> bytes:
        faults = self.connections.faults
        while self.stop is None or self.position < self.stop:
            before, ordered_seconds = self.position, None
            try:
                cause, ordered_seconds = self._try()
            except faults as error:
                if is_certificate_fault(error):
                    raise _untrusted(self.address.url, self.name) from None
                cause = cause_of(error)
            if cause:
                self._wait(cause, self.position - before, ordered_seconds)
        self.seen["bytes"] += self.position - self.start
        return self.body.getvalue()  # not a copy

    def _try(self) -> tuple[str, float | None]:
        """Ask once, read what comes, return why to try again and the wait the server asks for; "" to go on at once."""
        address = self.address = self.address or self.link.address()
        last = "" if self.stop is None else self.stop - 1
        self.seen["requests"] += 1
        response = self.connections.ask(
            "GET",
            address.url,
            {**address.headers, "Range": f"bytes={self.position}-{last}"},
            *self.client._timeouts(self.patience),
        )
        try:
            if response.status not in (200, 206):
                return self._not_served(response, address)
            first = self._check(response, address)
            if first is None:
                return "an answer of other bytes than asked for", None
            return ("", None) if self._take(response, first) else ("the end of the body before its time", None)
        finally:
            self.connections.rest_of(response)  # if there is little, so that the connection can be used again

    def _check(self, response: Any, address: Address) -> int | None:
        """Return which byte the body starts with, or None when it is not what was asked for."""
        headers = response.headers
        if response.status == 206:
            found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
            if not found or found[1] is None or int(found[1]) != self.position:
                return None
            first, total = self.position, None if found[3] == "*" else int(found[3])
        else:
            first, length = 0, headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            self._tell_without_ranges(address)
        etag = headers.get("ETag") or headers.get("Last-Modified")
        self.link.check(address.url, etag.removeprefix("W/") if etag else None, total, self.name)
        if address.own is not None:
            self.link.remember(address)
        if total is not None and total < (self.position if self.stop is None else self.stop):
            raise self._shorter(total)
        if self.stop is None:
            self.stop = total
        return first

    def _take(self, response: Any, first: int) -> bool:
        """Read the body from `position` on; tell whether all came that was asked for."""
        skip = self.position - first
        while skip:
            block = response.read1(min(skip, _BLOCK_BYTES))
            if not block:
                return False
            skip -= len(block)
        if self.position == self.start and self.stop is not None and self.stop > self.start:
            self.body.seek(self.stop - self.start - 1)
            self.body.write(b"\0")  # takes the memory at once: growing it costs more than the reading
            self.body.seek(0)
        read1, write, progressed = response.read1, self.body.write, self.patience.progressed
        while self.stop is None or self.position < self.stop:
            block = read1(_BLOCK_BYTES if self.stop is None else min(self.stop - self.position, _BLOCK_BYTES))
            if not block:
                if self.stop is None and response.chunked:  # whose end is marked
                    self.stop = self.position
                break
            self.position += write(block)
            progressed()
        return self.position == self.stop

    def _wait(self, cause: str, num_bytes: int, ordered_seconds: float | None) -> None:
        """Wait until the next try is due, after one that brought `num_bytes`. Raises: Unreachable."""
        if num_bytes:
            self.renewed = self.went_back = False
        elif self.address is not None:
            self.link.forget(self.address)  # where a redirect led: perhaps another server is better
        self.address, self.num_redirects = None, 0
        self.seen["retries"] += 1
        self.seen["resumed"] += self.position > self.start
        logging.getLogger(__name__).debug("%s: %s at byte %d; trying again", self.name, cause, self.position)
        self.patience.wait(cause, self.name, ordered_seconds)

    def _not_served(self, response: Any, address: Address) -> tuple[str, float | None]:
        """Do what an answer without the bytes asks for; returns as `_try` does. Raises: DataError."""
        status, headers = response.status, response.headers
        if status in _REDIRECTS and "Location" in headers:
            self.address = self._followed(address, headers["Location"])
        elif address.own is not None and not self.went_back and status in _REFUSED | _GONE:
            self.address, self.num_redirects, self.went_back = None, 0, True
            self.link.forget(address)
        elif status in _REFUSED and not self.renewed:
            self.address, self.renewed = None, True
            self.link.renew(address)
        elif status in _TRIED_AGAIN:
            self.seen["throttled"] += status in (429, 503)
            return f"status {status}", ordered_wait_seconds(headers)
        elif status == 416 and self.stop is None and self.position == (_total_of(headers) or 0):
            # nothing is left; S3 does not tell the length, but only an empty object has no byte 0
            self.stop = self.position
        else:
            raise self._final(response)
        return "", None

    def _followed(self, address: Address, location: str) -> Address:
        self.num_redirects += 1
        url = urljoin(address.url, location)
        if self.num_redirects > _MOST_REDIRECTS or urlsplit(url).scheme not in ("http", "https"):
            raise DataError(
                "Cannot read: the server leads from one address to another without end",
                got=f"{self.num_redirects} redirects, the last to {without_secrets(url)}",
                where=self.name,
                fix="check the address of the service, and the proxy if there is one",
            )
        headers = address.headers
        if urlsplit(url)[:2] != urlsplit(address.url)[:2]:  # the token is for the first server alone
            headers = {key: value for key, value in headers.items() if key.lower() not in _SECRET_HEADERS}
        return Address(url, headers, address.own or address)

    def _final(self, response: Any) -> DataError:
        """Make the error of an answer that trying again does not mend."""
        status, found = response.status, _ERROR_CODE.search(self.connections.rest_of(response))
        code = response.headers.get("X-Error-Code") or (found[1].decode() if found else "")
        got = f"status {status}" + (f", {code}" if code else "")
        if status in _REFUSED:
            error = Refused(
                "Cannot read: the token expired, or there is no permission",
                got=got,
                where=self.name,
                fix=self.link.fix_refused,
            )
            error.status, error.code = status, code
            return error
        if status in _GONE:
            return Gone(
                "The data vanished: it was there when it was indexed",
                got=got,
                where=self.name,
                fix="put it back, or index the data again",
            )
        if status == 412:
            return changed(self.name, "another version", "the one that was listed")
        if status == 416:
            return self._shorter(_total_of(response.headers))
        return DataError(
            "Cannot read: the server gave an answer of no use",
            got=got,
            expected="status 206",
            where=self.name,
            fix="check the address, the region and the endpoint of the service",
        )

    def _shorter(self, total: int | None) -> DataError:
        return cut_short(
            self.name, "" if total is None else f"{total} bytes", self.position + 1 if self.stop is None else self.stop
        )

    def _tell_without_ranges(self, address: Address) -> None:
        host = urlsplit(address.url).netloc.rpartition("@")[2]
        if (self.position or self.stop is not None) and host not in self.connections.without_ranges:
            self.connections.without_ranges.add(host)
            logging.getLogger(__name__).warning(
                "%s sends whole objects when asked for a part: reading from it is slow", host
            )


def _total_of(headers: Any) -> int | None:
    found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    return int(found[3]) if found and found[3] != "*" else None


def _untrusted(url: str, name: str) -> DataError:
    return DataError(
        "Cannot read: the server's certificate is not trusted",
        got=without_secrets(url),
        where=name,
        fix="set SSL_CERT_FILE to a file with your organisation's certificates, or look at this one and pin it: "
        f"colabkit trust {'/'.join(without_secrets(url).split('/')[:3])}; and check the clock",
    )
