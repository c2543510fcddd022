"""Listings as S3 writes them, seen by boto3, and asked page by page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from colabkit.loopback.s3_buckets import Bucket
from colabkit.loopback.s3_lists import delete_many, page
from tests.loopback.conftest import boto


def test_boto_writes_reads_lists_and_deletes(server, certificates):
    from botocore.exceptions import ClientError

    s3 = boto(server, certificates)
    names = [f"a/{i:04d} ü+&<.npz" for i in range(1203)]
    for name in names:
        server.put("voices", name, b"x")
    s3.put_object(Bucket="voices", Key="b/ü +%.bin", Body=b"hello")  # in signed chunks with a checksum behind
    assert s3.get_object(Bucket="voices", Key="b/ü +%.bin", Range="bytes=1-3")["Body"].read() == b"ell"
    assert s3.head_object(Bucket="voices", Key="b/ü +%.bin")["ContentLength"] == 5
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="voices", Prefix="a/"))
    assert [len(p["Contents"]) for p in pages] == [1000, 203]
    assert [o["Key"] for p in pages for o in p["Contents"]] == names
    shallow = s3.list_objects_v2(Bucket="voices", Delimiter="/")
    assert [p["Prefix"] for p in shallow["CommonPrefixes"]] == ["a/", "b/"]
    old = [o["Key"] for page in s3.get_paginator("list_objects").paginate(Bucket="voices") for o in page["Contents"]]
    assert old == [*names, "b/ü +%.bin"]
    s3.delete_objects(Bucket="voices", Delete={"Objects": [{"Key": n} for n in names[:1000]]})
    assert len(server.buckets["voices"]) == 204
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="voices", Key="gone")


def entries(bucket, **query) -> tuple[list[str], list[str], str]:
    """Return keys, common prefixes, and where the next page begins, as a page tells them."""
    tree = ElementTree.fromstring(page("b", bucket, {"list-type": "2", **query}))
    space = tree.tag.partition("}")[0] + "}"
    keys = [one.findtext(f"{space}Key") for one in tree.iter(f"{space}Contents")]
    folders = [one.findtext(f"{space}Prefix") for one in tree.iter(f"{space}CommonPrefixes")]
    assert tree.findtext(f"{space}KeyCount") == str(len(keys) + len(folders))
    return keys, folders, tree.findtext(f"{space}NextContinuationToken") or ""


def test_pages_go_on_over_keys_and_folders():
    bucket = Bucket()
    for key in ("a", "b/1", "b/2", "b0", "c/1", "c/2/3", "d&<é"):
        bucket.put(key, b"x")
    assert entries(bucket, delimiter="/") == (["a", "b0", "d&<é"], ["b/", "c/"], "")
    seen, token = [], ""
    for _ in range(5):
        keys, folders, token = entries(
            bucket, delimiter="/", **{"max-keys": "1"}, **({"continuation-token": token} if token else {})
        )
        seen += [*keys, *folders]
    assert seen == ["a", "b/", "b0", "c/", "d&<é"] and not token
    assert entries(bucket, prefix="b") == (["b/1", "b/2", "b0"], [], "")
    assert entries(bucket, prefix="c/", delimiter="/") == (["c/1"], ["c/2/"], "")
    assert entries(bucket, **{"start-after": "b0"}) == (["c/1", "c/2/3", "d&<é"], [], "")
    assert entries(bucket, prefix="x") == ([], [], "")


def test_keys_in_a_mass_deletion_are_unescaped():
    bucket = Bucket()
    bucket.put("a&<'b", b"x")
    bucket.put("kept", b"x")
    answer = delete_many(bucket, b"<Delete><Object><Key>a&amp;&lt;&apos;b</Key></Object></Delete>")
    assert bucket.keys_after("", 9) == ["kept"] and b"<Deleted><Key>a&amp;&lt;'b</Key></Deleted>" in answer
