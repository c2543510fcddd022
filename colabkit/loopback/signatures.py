"""Signatures of requests to S3, looked at as the real one does, and bodies sent in signed chunks.

Source: AWS Signature Version 4 (header and query), and "Signature calculation: transfer payload in multiple chunks".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import zlib
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

from colabkit.loopback.messages import Request

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=([^/]+)/([^/]+)/([^/]+)/s3/aws4_request,\s*"
    r"SignedHeaders=([^,]+),\s*Signature=([0-9a-f]+)"
)
_MOST_SKEW_SECONDS = 900


def access_key(request: Request) -> str:
    """Return the access key that a request names, "" for one that is not signed."""
    found = _AUTHORIZATION.match(request.fields.get("authorization", ""))
    if found:
        return found[1]
    query = dict(parse_qsl(request.target.partition("?")[2])) if "X-Amz-Credential" in request.target else {}
    return query.get("X-Amz-Credential", "").partition("/")[0]


def fault_of(request: Request, secret: str) -> tuple[str, str] | None:
    """Return what is wrong with a signature as (code, message), None when it is right."""
    query = parse_qsl(request.target.partition("?")[2], keep_blank_values=True)
    told = dict(query)
    found = _AUTHORIZATION.match(request.fields.get("authorization", ""))
    if found:
        _, day, region, names, signature = found.groups()
        when, payload = request.fields.get("x-amz-date", ""), request.fields.get("x-amz-content-sha256", "")
        lifetime = _MOST_SKEW_SECONDS
    else:
        _, day, region, *_ = told["X-Amz-Credential"].split("/")
        names, signature = told["X-Amz-SignedHeaders"], told.get("X-Amz-Signature", "")
        when, payload = told["X-Amz-Date"], "UNSIGNED-PAYLOAD"
        lifetime = int(told.get("X-Amz-Expires", 0))
        query = [(k, v) for k, v in query if k != "X-Amz-Signature"]
    age = (datetime.now(UTC) - datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)).total_seconds()
    if age > lifetime or age < -_MOST_SKEW_SECONDS:
        return (
            ("RequestTimeTooSkewed", "The time differs too much") if found else ("AccessDenied", "Request has expired")
        )
    fields = "".join(f"{n}:{' '.join(request.fields.get(n, '').split())}\n" for n in names.split(";"))
    asked = "&".join(f"{_quoted(k)}={_quoted(v)}" for k, v in sorted(query))
    canonical = "\n".join([request.method, quote(unquote(request.path), safe="/-_.~"), asked, fields, names, payload])
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), signature):
        return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
    return None


def body_of(request: Request) -> bytes:
    """Return what a PUT is to store. Raises: ValueError when a checksum that came with it is wrong."""
    fields, body = request.fields, request.body
    if "aws-chunked" in fields.get("content-encoding", "") or fields.get("x-amz-content-sha256", "").startswith(
        "STREAMING-"
    ):
        body, trailers = _unchunked(body)
        fields = {**fields, **trailers}
    if "content-md5" in fields and base64.b64encode(hashlib.md5(body).digest()).decode() != fields["content-md5"]:
        raise ValueError("The Content-MD5 you specified did not match what we received.")
    crc32 = fields.get("x-amz-checksum-crc32")
    if crc32 and base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() != crc32:
        raise ValueError("The CRC32 you specified did not match what we received.")
    sha256 = fields.get("x-amz-checksum-sha256")
    if sha256 and base64.b64encode(hashlib.sha256(body).digest()).decode() != sha256:
        raise ValueError("The SHA256 you specified did not match what we received.")
    return body


def _unchunked(body: bytes) -> tuple[bytes, dict[str, str]]:
    parts, place = [], 0
    while True:
        end = body.index(b"\r\n", place)
        size = int(body[place:end].partition(b";")[0], 16)
        place = end + 2
        if not size:
            break
        parts.append(body[place : place + size])
        place += size + 2
    trailers = {}
    for line in body[place:].decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            trailers[name.strip().lower()] = value.strip()
    return b"".join(parts), trailers


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
