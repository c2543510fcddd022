"""Kept-open HTTP connections of one process, through the proxy and with the certificates that the machine is set up for."""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from colabkit.io.places.http.trust import pinned_fingerprint

_MOST_CONNECTIONS = 256  # a host; kept open for use again
_LONGEST_REST_BYTES = 1 << 16
_AGENT = {"User-Agent": "colabkit"}


class Connections:
    """Pools of connections and the counts of what was done with them. Thread-safe."""

    def __init__(self):
        import urllib3

        logging.getLogger("urllib3.connectionpool").addFilter(_hide_queries)
        self.counts = dict.fromkeys(("requests", "bytes", "retries", "resumed", "throttled"), 0)
        self.lock = threading.Lock()
        self.without_ranges: set[str] = set()  # hosts whose fault was told once
        self.faults = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
        self._timeout = urllib3.Timeout
        settings = {"maxsize": _MOST_CONNECTIONS, "block": False, "num_pools": 64, "ssl_context": _tls_context()}
        self._settings, self._pinned = settings, []
        self._direct = urllib3.PoolManager(**settings)
        self._proxied = {scheme: urllib3.ProxyManager(url, **settings)
                         for scheme, url in urllib.request.getproxies().items() if scheme in ("http", "https")}
        self._manager_of = lru_cache(64)(self._choose)

    def _choose(self, scheme: str, host: str) -> Any:
        through = self._proxied.get(scheme)
        manager = through if through and not urllib.request.proxy_bypass(host) else self._direct
        fingerprint = pinned_fingerprint(f"{scheme}://{host}")
        return self._with_pin(manager, fingerprint) if fingerprint else manager

    def _with_pin(self, like: Any, fingerprint: str) -> Any:
        """Return a manager that takes exactly one certificate, the same way through a proxy or not."""
        import urllib3

        context = urllib3.util.create_urllib3_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # no authority counts: the fingerprint does
        settings = {**self._settings, "ssl_context": context, "assert_fingerprint": fingerprint}
        proxy = getattr(like, "proxy", None)
        self._pinned.append(urllib3.ProxyManager(proxy.url, **settings) if proxy else urllib3.PoolManager(**settings))
        return self._pinned[-1]

    def ask(self, method: str, url: str, headers: Mapping[str, str], connect_seconds: float, read_seconds: float, *,
            body: bytes | None = None) -> Any:
        """Send one request and return urllib3's response; its body is not read yet, and redirects are not followed."""
        parts = urlsplit(url)
        return self._manager_of(parts.scheme, parts.netloc).urlopen(
            method, url, body=body, headers={**_AGENT, **headers}, preload_content=False, decode_content=False, redirect=False,
            retries=False, timeout=self._timeout(connect=connect_seconds, read=read_seconds))

    def rest_of(self, response: Any) -> bytes:
        """Read what is left of a body, so that its connection can be used again, or close that when it is long."""
        blocks, left_bytes = [], _LONGEST_REST_BYTES
        try:
            while left_bytes > 0:
                block = response.read1(left_bytes)
                if not block:
                    return b"".join(blocks)
                blocks.append(block)
                left_bytes -= len(block)
        except self.faults as error:
            logging.getLogger(__name__).debug("the rest of an answer was not read: %s", cause_of(error))
        response.close()
        return b"".join(blocks)

    def count(self, seen: Mapping[str, int]) -> None:
        with self.lock:
            for name, number in seen.items():
                self.counts[name] += number

    def close(self) -> None:
        for manager in (self._direct, *self._proxied.values(), *self._pinned):
            manager.clear()


def _tls_context() -> ssl.SSLContext:
    import urllib3

    context = urllib3.util.create_urllib3_context()
    context.load_default_certs()  # reads SSL_CERT_FILE too
    bundles = [os.environ.get("REQUESTS_CA_BUNDLE", ""), os.environ.get("AWS_CA_BUNDLE", "")]
    try:  # slim containers have no certificates of their own
        import certifi

        bundles.append(certifi.where())
    except ModuleNotFoundError:
        logging.getLogger(__name__).debug("certifi is not installed: the system's certificates alone count")
    for bundle in filter(os.path.isfile, bundles):
        context.load_verify_locations(bundle)
    return context


def _hide_queries(record: logging.LogRecord) -> bool:
    """Keep signatures out of urllib3's debug log."""
    if isinstance(record.args, tuple):
        record.args = tuple(a.partition("?")[0] if isinstance(a, str) else a for a in record.args)
    return True


def cause_of(error: BaseException) -> str:
    """Name what is behind a network error, without its message: that may hold an address with a signature."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.strerror:
            return f"{type(one).__name__} ({one.strerror})"
    return type(error).__name__


def is_certificate_fault(error: BaseException) -> bool:
    """Tell whether the other side could not prove who it is: trying again does not mend that."""
    return any(isinstance(one, ssl.SSLCertVerificationError) or "Fingerprints did not match" in str(one) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if not any(one is other for other in seen):
            seen.append(one)
            yield one
            waiting += [e for e in (*one.args, one.__cause__, one.__context__) if isinstance(e, BaseException)]
