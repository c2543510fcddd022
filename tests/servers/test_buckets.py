"""The S3 and GCS servers of other tests behave like the real ones, asked by boto3, obstore, gcsfs and plain HTTP."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from urllib.parse import quote

import pytest
import urllib3

from tests.servers.clients import run_client
from tests.servers.gcs import GcsServer
from tests.servers.s3 import S3Server

LARGE = random.Random(0).randbytes(3_000_000)


@pytest.fixture(scope="module")
def http():
    return urllib3.PoolManager(retries=False)


@pytest.fixture(scope="module")
def s3():
    with S3Server() as server:
        yield server


@pytest.fixture
def gcs():
    with GcsServer() as server:
        yield server


def test_boto3_and_obstore_use_s3(s3, http, monkeypatch):
    import boto3
    import obstore

    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    s3.put("bucket", "a/ü b.bin", LARGE)
    s3.put("bucket", "a/empty", b"")
    client, store = boto3.client("s3"), obstore.store.S3Store("bucket")
    assert [o["Key"] for o in client.list_objects_v2(Bucket="bucket")["Contents"]] == ["a/empty", "a/ü b.bin"]
    listed = [about for page in obstore.list(store) for about in page]
    assert [(about["path"], about["size"]) for about in listed] == [("a/empty", 0), ("a/ü b.bin", len(LARGE))]
    read = client.get_object(Bucket="bucket", Key="a/ü b.bin", Range="bytes=10-19")
    assert read["Body"].read() == LARGE[10:20] and read["ETag"] == listed[1]["e_tag"]
    assert client.head_object(Bucket="bucket", Key="a/ü b.bin")["ContentLength"] == len(LARGE)
    assert bytes(obstore.get_range(store, "a/ü b.bin", start=2_000_000, length=500_000)) == LARGE[2_000_000:2_500_000]
    assert bytes(obstore.get(store, "a/ü b.bin").bytes()) == LARGE
    for content in (LARGE * 3, b"short"):  # in parts, and in one
        obstore.put(store, "put", content)
        assert bytes(obstore.get(store, "put").bytes()) == content
    client.put_object(Bucket="bucket", Key="boto", Body=LARGE)
    assert bytes(obstore.get_range(store, "boto", start=7, end=9)) == LARGE[7:9]
    signed = obstore.sign(store, "GET", "a/ü b.bin", timedelta(minutes=5))
    short = obstore.sign(store, "GET", "a/ü b.bin", timedelta(seconds=1))
    part = http.request("GET", signed, headers={"Range": "bytes=100-199"})
    assert (part.status, part.data, part.headers["Content-Range"]) == (
        206,
        LARGE[100:200],
        f"bytes 100-199/{len(LARGE)}",
    )
    assert http.request("GET", signed, headers={"Range": f"bytes={len(LARGE)}-"}).status == 416
    assert http.request("GET", signed.partition("?")[0], headers={"Range": "bytes=0-1"}).status == 403  # not signed
    with pytest.raises(FileNotFoundError):
        obstore.get_range(store, "nothing", start=0, length=1)
    time.sleep(2.1)
    assert b"expired" in http.request("GET", short, headers={"Range": "bytes=100-199"}).data


def test_a_bucket_without_permission_and_a_fresh_server(s3, monkeypatch):
    import obstore
    from obstore.exceptions import GenericError, PermissionDeniedError

    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    s3.put("closed", "a", b"x")
    store = obstore.store.S3Store("closed")
    assert bytes(obstore.get(store, "a").bytes()) == b"x"
    s3.deny("closed")
    for ask in (lambda: obstore.get(store, "a"), lambda: obstore.get_range(store, "a", start=0, length=1)):
        with pytest.raises(PermissionDeniedError):
            ask()
    with pytest.raises(GenericError, match="AccessDenied"):
        list(obstore.list(store))
    with S3Server() as other:
        with pytest.raises(FileNotFoundError):
            obstore.get(obstore.store.S3Store("closed", endpoint=other.url), "a")


READ_GCS = """
import json
from gcsfs import GCSFileSystem
fs = GCSFileSystem(token="anon")
told = {"ls": fs.ls("bkt/a", detail=False), "find": fs.find("bkt"), "size": fs.info("bkt/a/\\u00fc b.bin")["size"]}
told["part"] = fs.cat_file("bkt/a/\\u00fc b.bin", start=1_000_000, end=1_000_100).hex()
told["parts"] = [p.hex() for p in fs.cat_ranges(["bkt/a/\\u00fc b.bin"] * 2, [0, 10], [5, 20])]
fs.pipe_file("bkt/new", b"made")
told["new"] = fs.cat_file("bkt/new").decode()
for name in ("bkt/nothing", "closed/x"):
    try:
        fs.cat_file(name)
    except OSError as error:
        told[name] = type(error).__name__
print(json.dumps(told))
"""


def test_gcsfs_and_raw_media_downloads(gcs, http, tmp_path):
    for name in ("a/ü b.bin", "z", "a/deep/x"):
        gcs.put("bkt", name, LARGE)
    gcs.put("closed", "x", b"x")
    gcs.deny("closed")
    told = run_client(READ_GCS, gcs.environment(), tmp_path)
    assert told["ls"] == ["bkt/a/deep", "bkt/a/ü b.bin"] and told["find"] == ["bkt/a/deep/x", "bkt/a/ü b.bin", "bkt/z"]
    assert told["size"] == len(LARGE) and bytes.fromhex(told["part"]) == LARGE[1_000_000:1_000_100]
    assert [bytes.fromhex(p) for p in told["parts"]] == [LARGE[:5], LARGE[10:20]]
    assert (told["new"], told["bkt/nothing"], told["closed/x"]) == ("made", "FileNotFoundError", "OSError")
    listed = http.request("GET", f"{gcs.url}/storage/v1/b/bkt/o").json()["items"]
    assert [about["name"] for about in listed] == ["a/deep/x", "a/ü b.bin", "new", "z"]
    name = quote("a/ü b.bin", safe="")
    for address in (
        f"{gcs.url}/storage/v1/b/bkt/o/{name}?alt=media",
        f"{gcs.url}/download/storage/v1/b/bkt/o/{name}?alt=media",
    ):
        part = http.request("GET", address, headers={"Range": "bytes=100-199"})
        assert (part.status, part.data, part.headers["Content-Range"]) == (
            206,
            LARGE[100:200],
            f"bytes 100-199/{len(LARGE)}",
        )
        assert http.request("GET", address, headers={"Range": "bytes=-3"}).data == LARGE[-3:]
        assert http.request("GET", address, headers={"Range": f"bytes={len(LARGE)}-"}).status == 416
        assert http.request("GET", f"{address}&generation=1").status == 404
    assert http.request("GET", f"{gcs.url}/storage/v1/b/closed/o/x?alt=media").status == 403
