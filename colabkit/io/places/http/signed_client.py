"""Our own client of S3, for servers whose very certificate is pinned, and to hear how long a refused client is to wait.

obstore's TLS trusts authorities alone: a pinned certificate that is none, or that serves as both authority and server,
as those that appliances make for themselves do, is refused there whatever it is told to trust. And what obstore says of
a refusal lacks the answer's headers, Retry-After among them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from colabkit.core.disk import disk_fault
from colabkit.io.places.http.client import Fault, read_range, seconds_of
from colabkit.io.places.http.connections import Connections
from colabkit.io.places.http.signing import Signer, query_of
from colabkit.io.places.place import Found, StoredObject

_PARTS_AT_A_TIME = 4


class SignedClient:
    """One bucket over connections that check the pinned certificate, if there is one; goes through a fork."""

    def __init__(self, root: str, signer: Signer | None, *, ca_bundle: str = "", verify: bool = True):
        """`root` is the bucket's web address; without a signer requests are those of nobody."""
        self._root, self._signer, self.without_ranges = root, signer, False
        self._connections = Connections(ca_bundle=ca_bundle, verify=verify)

    def page(self, prefix: str, after: str) -> list[StoredObject]:
        """Return the next thousand objects below a prefix; markers that consoles make for folders alone are skipped."""
        while True:
            query = {
                "list-type": "2",
                "max-keys": "1000",
                **({"prefix": f"{prefix}/"} if prefix else {}),
                **({"start-after": after} if after else {}),
            }
            tree = _parsed(self._send("GET", "", query)[1])
            found = [
                StoredObject(
                    _text(one, "Key"),
                    int(_text(one, "Size") or 0),
                    _text(one, "ETag").strip('"'),
                    seconds_of(_text(one, "LastModified")),
                )
                for one in tree
                if _tag(one) == "Contents"
            ]
            kept = [one for one in found if not one.name.endswith("/")]
            if kept or not found:
                return kept
            after = found[-1].name

    def head(self, key: str) -> StoredObject:
        fields, _ = self._send("HEAD", key)
        return StoredObject(key, int(fields.get("content-length", 0)), _etag(fields))

    def get(self, key: str, start: int, stop: int | None, version: str) -> Found:
        condition = {"if-match": f'"{version}"'} if version else {}
        fields, body = read_range(self, lambda span: self._send("GET", key, headers={**condition, **span}), start, stop)
        return Found(body, _etag(fields))

    def put(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        condition = {"if-none-match": "*"} if only_if_absent else {}
        if only_if_version:
            condition = {"if-match": f'"{only_if_version}"'}
        return _etag(self._send("PUT", key, body=content, headers=condition)[0])

    def put_parts(self, key: str, content: bytes | Path, part_bytes: int) -> str:
        upload = _text(_parsed(self._send("POST", key, {"uploads": ""})[1]), "UploadId")
        size = content.stat().st_size if isinstance(content, Path) else len(content)

        def send(number: int) -> str:
            start = (number - 1) * part_bytes
            part = _read(content, start, min(part_bytes, size - start))
            for is_last in (False, False, True):
                try:
                    return self._send("PUT", key, {"partNumber": str(number), "uploadId": upload}, body=part)[0].get(
                        "etag", ""
                    )
                except Fault as fault:
                    if is_last or fault.kind or 400 <= fault.status < 500:
                        raise
            raise AssertionError("the last try returns or raises")

        try:
            with ThreadPoolExecutor(_PARTS_AT_A_TIME) as pool:
                etags = list(pool.map(send, range(1, -(-size // part_bytes) + 1)))
            parts = "".join(
                f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in enumerate(etags, 1)
            )
            body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
            answer = self._send("POST", key, {"uploadId": upload}, body=body)[1]
        except Fault:
            # The first fault is the one to tell; buckets drop what was never completed by a rule of theirs.
            with suppress(Fault):
                self._send("DELETE", key, {"uploadId": upload})
            raise
        tree = _parsed(answer)
        if _tag(tree) == "Error":  # told with status 200
            raise Fault(f"status 200 {_text(tree, 'Code')}", status=500, code=_text(tree, "Code"))
        return _text(tree, "ETag").strip('"')

    def delete(self, key: str) -> None:
        self._send("DELETE", key)

    def _send(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, str], bytes]:
        url = f"{self._root}/{quote(key, safe='/-_.~')}" if key else self._root
        if query:
            url += f"?{query_of(query)}"
        signed = self._signer.signed(method, url, headers or {}, body=body or b"") if self._signer else headers or {}
        return self._connections.answer(method, url, signed, body)


def _read(content: bytes | Path, start: int, size: int) -> bytes:
    if isinstance(content, bytes):
        return content[start : start + size]
    try:
        with open(content, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise disk_fault(error, content, f"read {content.name}") from error


def _parsed(answer: bytes) -> Any:
    try:
        return ElementTree.fromstring(answer)
    except ElementTree.ParseError:
        raise Fault("an answer that is no XML", status=502) from None


def _tag(element: Any) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Any, name: str) -> str:
    return next((one.text or "" for one in element if _tag(one) == name), "")


def _etag(fields: Mapping[str, str]) -> str:
    return fields.get("etag", "").strip('"')
