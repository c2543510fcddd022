"""A small S3 on loopback: buckets of objects with ranges, conditional writes, multipart uploads, signatures and TLS.

Source: the S3 API reference (PutObject, GetObject, ListObjectsV2, multipart upload, conditional writes).
"""

from __future__ import annotations

import re
import secrets
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote
from xml.sax.saxutils import escape

from colabkit.loopback import s3_lists, signatures
from colabkit.loopback.messages import Answer, Request, answer_range
from colabkit.loopback.s3_buckets import Bucket, Stored
from colabkit.loopback.serving import HttpServer

_XML = {"Content-Type": "application/xml"}
_REFUSALS = {
    "AccessDenied": 403,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "ExpiredToken": 400,
    "NoSuchKey": 404,
    "NoSuchBucket": 404,
    "NoSuchUpload": 404,
    "PreconditionFailed": 412,
    "InvalidRange": 416,
    "NotImplemented": 501,
    "InvalidPart": 400,
    "MalformedXML": 400,
    "RequestTimeTooSkewed": 403,
    "BadDigest": 400,
    "SlowDown": 503,
}


class S3Server(HttpServer):
    """Serve buckets on 127.0.0.1 between entering and leaving; everything may be changed while it runs.

    folder: objects are kept there and found again by the next server; without it they are kept in memory. tls: what the
    server proves itself with. keys: {access key: secret}; signatures are looked at where there are some. keep_bodies:
    False keeps sizes and checksums alone, for measuring clients.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        keys: Mapping[str, str] | None = None,
        keep_bodies: bool = True,
        port: int = 0,
    ) -> None:
        super().__init__(tls=tls, port=port)
        self.folder, self.keep_bodies = folder, keep_bodies
        self.keys: dict[str, str] = dict(keys or {})
        self.counts: Counter[str] = Counter()  # what was asked, by kind: put, get, head, list, delete, part, ...
        self.before: Callable[[Request], Answer | None] | None = None  # asked first; what it answers is the answer
        self._making = threading.Lock()
        self.buckets: dict[str, Bucket] = {}
        for place in sorted(folder.iterdir()) if folder and folder.is_dir() else ():
            self.buckets[place.name] = Bucket(place)

    def make_bucket(self, name: str) -> Bucket:
        """Return a bucket, made where there is none."""
        with self._making:
            if name not in self.buckets:
                self.buckets[name] = Bucket(self.folder / name if self.folder else None, keep_bodies=self.keep_bodies)
            return self.buckets[name]

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object without a request; makes the bucket."""
        self.make_bucket(bucket).put(key, content)

    def answer(self, request: Request) -> Answer:
        """Refuse, or answer by the kind of request."""
        if self.before is not None and (answer := self.before(request)) is not None:
            return answer
        if fault := self._fault_of(request):
            return refuse(*fault)
        path = unquote(request.path)
        name, _, key = path[1:].partition("/")
        if not name:
            self.counts["buckets"] += 1
            return Answer(200, _XML, s3_lists.buckets(self.buckets))
        query = {k: v[0] for k, v in request.query.items()} if "?" in request.target else {}
        if not key and request.method == "PUT":
            self.make_bucket(name)
            return Answer(200, {"Location": f"/{name}"})
        bucket = self.buckets.get(name)
        if bucket is None:
            return refuse("NoSuchBucket", "The specified bucket does not exist")
        if not key:
            return self._answer_bucket(request, query, name, bucket)
        return self._answer_object(request, query, name, bucket, key)

    def note(self, request: Request, status: int) -> None:
        """Requests are counted by kind, not written down: there are very many."""

    def _fault_of(self, request: Request) -> tuple[str, str] | None:
        if not self.keys:
            return None
        known = signatures.access_key(request)
        if known not in self.keys:
            code = "InvalidAccessKeyId" if known else "AccessDenied"
            return code, "The access key does not exist in our records." if known else "Access Denied"
        return signatures.fault_of(request, self.keys[known])

    def _answer_bucket(self, request: Request, query: dict[str, str], name: str, bucket: Bucket) -> Answer:
        if request.method == "HEAD":
            return Answer(200, {"x-amz-bucket-region": "us-east-1"})
        if request.method == "GET" and "location" in query:
            return Answer(
                200, _XML, b'<?xml version="1.0"?><LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
            )
        if request.method == "GET" and not {"versioning", "uploads", "acl", "policy", "versions"} & query.keys():
            self.counts["list"] += 1
            return Answer(200, _XML, s3_lists.page(name, bucket, query))
        if request.method == "POST" and "delete" in query:
            self.counts["delete"] += 1
            return Answer(200, _XML, s3_lists.delete_many(bucket, request.body))
        return refuse("NotImplemented", f"{request.method} {request.target} is not offered here")

    def _answer_object(self, request: Request, query: dict[str, str], name: str, bucket: Bucket, key: str) -> Answer:
        method = request.method
        if method in ("GET", "HEAD"):
            self.counts[method.lower()] += 1
            return self._read(request, bucket.find(key), bucket)
        if method == "PUT" and "uploadId" in query:
            self.counts["part"] += 1
            etag = bucket.put_part(query["uploadId"], int(query["partNumber"]), signatures.body_of(request))
            return Answer(200, {"ETag": etag}) if etag else refuse("NoSuchUpload", "There is no such upload")
        if method == "PUT":
            if "x-amz-copy-source" in request.fields:
                return refuse("NotImplemented", "Copying is not offered here")
            self.counts["put"] += 1
            return self._write(request, bucket, lambda: bucket.put(key, signatures.body_of(request)), key)
        if method == "DELETE" and "uploadId" in query:
            bucket.abort(query["uploadId"])
            return Answer(204)
        if method == "DELETE":
            self.counts["delete"] += 1
            bucket.delete(key)
            return Answer(204)
        if method == "POST" and "uploads" in query:
            self.counts["begin"] += 1
            upload = bucket.begin(key, secrets.token_hex(8))
            return Answer(200, _XML, _xml("InitiateMultipartUploadResult", Bucket=name, Key=key, UploadId=upload))
        if method == "POST" and "uploadId" in query:
            self.counts["complete"] += 1
            numbers = [int(n) for n in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
            answer = self._write(request, bucket, lambda: bucket.complete(query["uploadId"], numbers), key)
            if answer.status != 200:
                return answer
            return Answer(
                200, _XML, _xml("CompleteMultipartUploadResult", Bucket=name, Key=key, ETag=answer.fields["ETag"])
            )
        return refuse("NotImplemented", f"{method} {request.target} is not offered here")

    def _read(self, request: Request, found: Stored | None, bucket: Bucket) -> Answer:
        if found is None:
            return refuse("NoSuchKey", "The specified key does not exist.")
        answer = answer_range(
            request,
            found.size,
            lambda start, stop: bucket.take(found, start, stop),
            {"Content-Type": "binary/octet-stream", "ETag": found.etag, "Last-Modified": found.modified_http},
        )
        return refuse("InvalidRange", "The requested range is not satisfiable") if answer.status == 416 else answer

    def _write(self, request: Request, bucket: Bucket, write: Callable[[], Stored | None], key: str) -> Answer:
        """Write under the conditions of the request; a look and a write are one."""
        absent, match = "if-none-match" in request.fields, request.fields.get("if-match")
        try:
            if not absent and match is None:
                stored = write()
            else:
                with bucket.changing:
                    there = bucket.find(key)
                    if absent and there is not None or match is not None and (there is None or there.etag != match):
                        return refuse(
                            "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"
                        )
                    stored = write()
        except ValueError as error:
            return refuse("BadDigest", str(error))
        return (
            Answer(200, {"ETag": stored.etag})
            if stored
            else refuse("InvalidPart", "A part or its upload could not be found")
        )


def refuse(code: str, message: str) -> Answer:
    """Return an error as S3 writes it."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
    )
    return Answer(_REFUSALS[code], _XML, text.encode())


def _xml(name: str, **values: str) -> bytes:
    inner = "".join(f"<{k}>{escape(v)}</{k}>" for k, v in values.items())
    return f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inner}</{name}>'.encode()
