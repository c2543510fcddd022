"""Signatures of requests to S3, in the header.

Source: AWS Signature Version 4 for Amazon S3, "Authorization header".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

_UNSIGNED = "UNSIGNED-PAYLOAD"  # what TLS protects needs no hash
_ALGORITHM = "AWS4-HMAC-SHA256"


class Signer:
    """Signs requests with one pair of keys; the key derived of them is made once a day."""

    def __init__(self, access_key: str, secret_key: str, session_token: str, region: str):
        self._access_key, self._secret_key, self._session_token, self._region = (
            access_key,
            secret_key,
            session_token,
            region,
        )
        self._made: tuple[str, bytes] = ("", b"")

    def __repr__(self) -> str:
        return f"Signer(region={self._region!r})"

    def signed(
        self, method: str, url: str, headers: Mapping[str, str], now: datetime | None = None, *, body: bytes = b""
    ) -> dict[str, str]:
        """Return the headers of a request with its signature, the body's where TLS does not protect it.

        `url` is quoted, its query sorted.
        """
        when = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        parts = urlsplit(url)
        payload = _UNSIGNED if parts.scheme == "https" else hashlib.sha256(body).hexdigest()
        ours = {
            **{name.lower(): value for name, value in headers.items()},
            "x-amz-date": when,
            "x-amz-content-sha256": payload,
        }
        if self._session_token:
            ours["x-amz-security-token"] = self._session_token
        signed = {"host": parts.netloc, **ours}
        names = ";".join(sorted(signed))
        fields = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        canonical = "\n".join((method, parts.path or "/", parts.query, fields, names, payload))
        scope = f"{when[:8]}/{self._region}/s3/aws4_request"
        text = "\n".join((_ALGORITHM, when, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = hmac.digest(self._key(when[:8]), text.encode(), "sha256").hex()
        credential = f"{self._access_key}/{scope}"
        ours["authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return ours

    def _key(self, day: str) -> bytes:
        made_for, key = self._made
        if made_for != day:
            key = f"AWS4{self._secret_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._made = (day, key)
        return key


def query_of(values: Mapping[str, str]) -> str:
    """Write a query as signatures want it: sorted and quoted."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(values.items()))
