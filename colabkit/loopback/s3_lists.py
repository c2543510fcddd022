"""Listings and mass deletions as S3 writes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from urllib.parse import quote
from xml.sax.saxutils import escape, unescape

from colabkit.loopback.s3_buckets import Bucket

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_MOST_KEYS = 1000
_LAST = "\U0010ffff"
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


def buckets(there: Mapping[str, Bucket]) -> bytes:
    """Return the list of all buckets."""
    rows = "".join(
        f"<Bucket><Name>{escape(name)}</Name><CreationDate>2024-01-01T00:00:00.000Z</CreationDate></Bucket>"
        for name in sorted(there)
    )
    return (
        f'<?xml version="1.0"?><ListAllMyBucketsResult {_NAMESPACE}>'
        "<Owner><ID>0</ID><DisplayName>loopback</DisplayName></Owner>"
        f"<Buckets>{rows}</Buckets></ListAllMyBucketsResult>"
    ).encode()


def page(name: str, bucket: Bucket, query: Mapping[str, str]) -> bytes:
    """Return one page of a listing, of version 2 or 1 as asked."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    most = min(int(query.get("max-keys") or _MOST_KEYS), _MOST_KEYS)
    version_2 = query.get("list-type") == "2"
    after = query.get("start-after" if version_2 else "marker", "")
    if query.get("continuation-token"):
        after = base64.urlsafe_b64decode(query["continuation-token"]).decode()
    keys, folders, last, more = _take(bucket, prefix, delimiter, max(after, _before(prefix)), most)

    def told(text: str) -> str:
        return quote(text) if query.get("encoding-type") == "url" else escape(text)

    rows = []
    for key in keys:
        if (found := bucket.find(key)) is not None:
            rows.append(
                f"<Contents><Key>{told(key)}</Key><LastModified>{found.modified_iso}</LastModified><ETag>{escape(found.etag)}"
                f"</ETag><Size>{found.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
    rows += [f"<CommonPrefixes><Prefix>{told(folder)}</Prefix></CommonPrefixes>" for folder in folders]
    head = [
        f"<Name>{escape(name)}</Name><Prefix>{told(prefix)}</Prefix><MaxKeys>{most}</MaxKeys>",
        f"<IsTruncated>{str(more).lower()}</IsTruncated>",
    ]
    if delimiter:
        head.append(f"<Delimiter>{told(delimiter)}</Delimiter>")
    if query.get("encoding-type"):
        head.append(f"<EncodingType>{escape(query['encoding-type'])}</EncodingType>")
    if version_2:
        head.append(f"<KeyCount>{len(keys) + len(folders)}</KeyCount>")
        if more:
            head.append(
                f"<NextContinuationToken>{base64.urlsafe_b64encode(last.encode()).decode()}</NextContinuationToken>"
            )
    elif more:
        head.append(f"<NextMarker>{told(last)}</NextMarker>")
    inner = "".join(head + rows)
    return f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult {_NAMESPACE}>{inner}</ListBucketResult>'.encode()


def delete_many(bucket: Bucket, body: bytes) -> bytes:
    """Delete what a request names."""
    rows = []
    for raw in _KEY.findall(body):
        key = unescape(raw.decode(), {"&quot;": '"', "&apos;": "'"})
        bucket.delete(key)
        rows.append(f"<Deleted><Key>{escape(key)}</Key></Deleted>")
    return f'<?xml version="1.0" encoding="UTF-8"?><DeleteResult {_NAMESPACE}>{"".join(rows)}</DeleteResult>'.encode()


def _take(bucket: Bucket, prefix: str, delimiter: str, after: str, most: int) -> tuple[list[str], list[str], str, bool]:
    """Return keys, common prefixes, where the next page begins, and whether there is one."""
    keys: list[str] = []
    folders: list[str] = []
    last = after
    while True:
        found = bucket.keys_after(last, _MOST_KEYS + 1)
        for key in found:
            if not key.startswith(prefix):
                if key > prefix:
                    return keys, folders, last, False
                continue
            if len(keys) + len(folders) == most:
                return keys, folders, last, True
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                keys.append(key)
                last = key
            else:
                folders.append(key[: cut + len(delimiter)])
                last = folders[-1] + _LAST  # all that lies below is this one entry
                break
        else:
            if len(found) <= _MOST_KEYS:
                return keys, folders, last, False


def _before(prefix: str) -> str:
    """Return what sorts just before the first key that has the prefix."""
    if not prefix:
        return ""
    return prefix[:-1] + (chr(ord(prefix[-1]) - 1) + _LAST if ord(prefix[-1]) else "")
