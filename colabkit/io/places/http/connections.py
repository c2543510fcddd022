"""Kept-open HTTP connections of one process, through the proxy and with the certificates the machine is set up for."""

from __future__ import annotations

import http.client
import logging
import os
import re
import ssl
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from colabkit.io.places.http.client import Fault
from colabkit.io.places.http.patience import ordered_wait_seconds
from colabkit.io.places.http.trust import pinned_fingerprint

_MOST_CONNECTIONS = 256  # a host; kept open for use again
_LONGEST_REST_BYTES = 1 << 16
_AGENT = {"User-Agent": "colabkit"}
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_SECONDS_A_BYTE = 1 / 100_000  # of what is sent, before the answer is given up
_KINDS = {404: "absent", 412: "condition"}
_CODE, _REGION = re.compile(rb"<Code>(\w{1,60})</Code>"), re.compile(rb"<Region>([a-z0-9-]{1,40})</Region>")


class Connections:
    """Pools of connections and the counts of what was done with them. Thread-safe.

    `ca_bundle` is a file of certificates to trust besides the machine's; `verify=False` talks to whoever answers.
    """

    def __init__(self, *, ca_bundle: str = "", verify: bool = True):
        import urllib3

        logging.getLogger("urllib3.connectionpool").addFilter(_hide_queries)
        self.counts = dict.fromkeys(("requests", "bytes", "retries", "resumed", "throttled"), 0)
        self.lock = threading.Lock()
        self.without_ranges: set[str] = set()  # hosts whose fault was told once
        self.faults = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
        self._timeout = urllib3.Timeout
        settings = {
            "maxsize": _MOST_CONNECTIONS,
            "block": False,
            "num_pools": 64,
            "ssl_context": _tls_context(ca_bundle) if verify else _unverified(),
        }
        self._settings, self._pinned = settings, []
        self._direct = urllib3.PoolManager(**settings)
        self._proxied = {
            scheme: urllib3.ProxyManager(url, **settings)
            for scheme, url in urllib.request.getproxies().items()
            if scheme in ("http", "https")
        }
        self._manager_of = lru_cache(64)(self._choose)

    def _choose(self, scheme: str, host: str) -> Any:
        through = self._proxied.get(scheme)
        manager = through if through and not urllib.request.proxy_bypass(host) else self._direct
        fingerprint = pinned_fingerprint(f"{scheme}://{host}")
        return self._with_pin(manager, fingerprint) if fingerprint else manager

    def _with_pin(self, like: Any, fingerprint: str) -> Any:
        """Return a manager that takes exactly one certificate, the same way through a proxy or not."""
        import urllib3

        # No authority counts: the fingerprint does.
        settings = {**self._settings, "ssl_context": _unverified(), "assert_fingerprint": fingerprint}
        proxy = getattr(like, "proxy", None)
        self._pinned.append(urllib3.ProxyManager(proxy.url, **settings) if proxy else urllib3.PoolManager(**settings))
        return self._pinned[-1]

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        connect_seconds: float,
        read_seconds: float,
        *,
        body: bytes | None = None,
    ) -> Any:
        """Send one request and return urllib3's response; its body is not read yet, and redirects are not followed."""
        parts = urlsplit(url)
        return self._manager_of(parts.scheme, parts.netloc).urlopen(
            method,
            url,
            body=body,
            headers={**_AGENT, **headers},
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
            timeout=self._timeout(connect=connect_seconds, read=read_seconds),
        )

    def answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[dict[str, str], bytes]:
        """Ask once, and return the headers of a good answer, their names in lower case, and its body.

        Raises: Fault, which says how long the other side wants to be left alone, where it says so.
        """
        try:
            response = self.ask(
                method, url, headers, _CONNECT_SECONDS, _READ_SECONDS + len(body or b"") * _SECONDS_A_BYTE, body=body
            )
            content = response.read()
        except self.faults as error:
            if is_certificate_fault(error):
                raise Fault("pinned", kind="certificate") from None
            raise Fault(cause_of(error)) from None
        fields = {name.lower(): value for name, value in response.headers.items()}
        if response.status < 300:
            return fields, content
        code, region = (found[1].decode() if (found := wanted.search(content)) else "" for wanted in (_CODE, _REGION))
        kind = "" if code in ("NoSuchBucket", "NoSuchUpload") else _KINDS.get(response.status, "")
        raise Fault(
            " ".join(filter(None, (f"status {response.status}", code))),
            status=response.status,
            code=code,
            kind=kind,
            region=region or fields.get("x-amz-bucket-region", ""),
            wait_seconds=ordered_wait_seconds(response.headers),
        )

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


def _unverified() -> ssl.SSLContext:
    import urllib3

    context = urllib3.util.create_urllib3_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _tls_context(ca_bundle: str) -> ssl.SSLContext:
    import urllib3

    context = urllib3.util.create_urllib3_context()
    context.load_default_certs()  # reads SSL_CERT_FILE too
    bundles = [ca_bundle, os.environ.get("REQUESTS_CA_BUNDLE", ""), os.environ.get("AWS_CA_BUNDLE", "")]
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
    return any(
        isinstance(one, ssl.SSLCertVerificationError) or "Fingerprints did not match" in str(one)
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if not any(one is other for other in seen):
            seen.append(one)
            yield one
            waiting += [e for e in (*one.args, one.__cause__, one.__context__) if isinstance(e, BaseException)]
