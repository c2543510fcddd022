"""Buckets on loopback: objects in order, in memory or in a folder, written whole or in parts."""

from __future__ import annotations

import hashlib
import urllib.request

import pytest

from colabkit.loopback.s3 import S3Server
from colabkit.loopback.s3_buckets import Bucket


def test_a_folder_is_found_again_by_the_next_server(tmp_path, certificates):
    with S3Server(tmp_path / "s3") as server:
        server.put("voices", "a/b ü.npz", b"one")
        server.put("voices", "gone", b"two")
        server.buckets["voices"].delete("gone")
        etag = server.buckets["voices"].find("a/b ü.npz").etag
    with S3Server(tmp_path / "s3") as server:
        assert server.buckets["voices"].keys_after("", 10) == ["a/b ü.npz"]
        assert server.buckets["voices"].find("a/b ü.npz").etag == etag
        assert urllib.request.urlopen(f"{server.url}/voices/a/b%20%C3%BC.npz").read() == b"one"


@pytest.mark.parametrize("kept", ["memory", "folder"])
def test_objects_are_found_in_the_order_of_their_bytes(kept, tmp_path):
    bucket = Bucket(tmp_path / "b" if kept == "folder" else None)
    for key in ("b", "a/ü", "a", "a!b", "é"):
        bucket.put(key, key.encode())
    assert len(bucket) == 5 and bucket.keys_after("", 10) == ["a", "a!b", "a/ü", "b", "é"]
    assert bucket.keys_after("a!b", 2) == ["a/ü", "b"]
    found = bucket.find("a/ü")
    assert (found.size, found.etag) == (4, f'"{hashlib.md5("a/ü".encode()).hexdigest()}"')
    part = bucket.take(found, 1, 4)
    assert (part.path.read_bytes()[part.start : part.stop] if kept == "folder" else bytes(part)) == "a/ü".encode()[1:]
    bucket.delete("a/ü")
    bucket.delete("never there")
    assert bucket.find("a/ü") is None and bucket.keys_after("a", 9) == ["a!b", "b", "é"]
    assert kept == "memory" or len(list((tmp_path / "b").iterdir())) == 4


def test_parts_are_joined_in_the_order_asked():
    bucket = Bucket()
    upload = bucket.begin("x", "id")
    for number, content in ((2, b"two"), (1, b"one"), (3, b"left out"), (2, b"TWO")):
        assert bucket.put_part(upload, number, content)
    assert bucket.put_part("another", 1, b"") == "" and bucket.complete("another", [1]) is None
    assert bucket.complete(upload, [1, 4]) is None and bucket.complete(upload, []) is None and bucket.find("x") is None
    stored = bucket.complete(upload, [1, 2])
    sums = hashlib.md5(b"one").digest() + hashlib.md5(b"TWO").digest()
    assert stored.etag == f'"{hashlib.md5(sums).hexdigest()}-2"' and bytes(bucket.take(stored, 0, 6)) == b"oneTWO"
    assert bucket.complete(upload, [1, 2]) is None  # it has ended
