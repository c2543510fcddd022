"""Links to objects on the network: address and headers, made anew when they expire, and what is known of the object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from colabkit.io.places.names import changed


class Address(NamedTuple):
    """One place to ask; `url` and `headers` may hold secrets.

    `own`: the link's own address, from which a server led here.
    """

    url: str
    headers: Mapping[str, str]
    own: Any = None


class Link:
    """An object's address. Thread-safe; holds secrets and locks, so it is neither printed nor pickled.

    `make()` returns (url, headers); it is called again after `refresh(headers)` when the server refuses those headers.
    It may raise OSError (tried again) or a ColabkitError (final). The first answer says which version is expected of
    all others. `fix_refused` says how a user mends missing rights.
    """

    def __init__(
        self,
        make: Callable[[], tuple[str, dict[str, str]]],
        *,
        refresh: Callable[[Mapping[str, str]], None] | None = None,
        fix_refused: str = "check that you may read it, and that the token or key is still good",
    ):
        self._make, self._refresh = make, refresh
        self.fix_refused = fix_refused
        self._lock = threading.Lock()
        self._made: Address | None = None
        self._target: Address | None = None
        self._etag: str | None = None
        self._etag_place = ""
        self._total: int | None = None

    def __repr__(self) -> str:
        return f"Link({without_secrets(self._made.url) if self._made else 'not made yet'})"

    def address(self) -> Address:
        """Return where to ask: where a redirect led to, when one is remembered."""
        return self._target or self._own()

    def _own(self) -> Address:
        made = self._made
        if made is None:
            with self._lock:
                if self._made is None:  # or another thread was faster
                    self._made = Address(*self._make())
                made = self._made
        return made

    def renew(self, refused: Address) -> None:
        """Make the address anew after the server refused it, unless another thread has done so since."""
        own = refused.own or refused
        with self._lock:
            if self._made is own:
                self._target = None
                if self._refresh:
                    self._refresh(own.headers)
                self._made = Address(*self._make())

    def remember(self, target: Address) -> None:
        """Let later reads go straight to where a redirect led."""
        self._target = target

    def forget(self, target: Address) -> None:
        """Go back to the link's own address: a remembered target refuses, as signed ones do when they expire."""
        if self._target is target:
            self._target = None

    def check(self, url: str, etag: str | None, total: int | None, name: str) -> None:
        """Raise DataError when this answer is of another content than the ones before, so that contents never mix."""
        if total is not None:
            self._total = self._total if self._total is not None else total
            if total != self._total:
                raise changed(name, f"{total} bytes", f"{self._total} bytes")
        if etag:
            place = url.partition("?")[0]
            if self._etag is None:
                self._etag, self._etag_place = etag, place
            # Two content servers of one object may call the same content by different names.
            elif etag != self._etag and self._etag_place == place:
                raise changed(name, f"version {etag}", f"version {self._etag}")


def without_secrets(url: str) -> str:
    """Return scheme, host and path: signatures are in the query, and user names before the host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
