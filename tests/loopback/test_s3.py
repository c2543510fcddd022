"""The loopback S3 as boto3, obstore and s5cmd see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import urllib.request

import pytest

from colabkit.loopback.certificates import make_certificates
from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import S3Server

KEYS = {"mouse": "cheese/and+more"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates):
    with S3Server(tls=certificates.server_context(), keys=KEYS) as server:
        server.make_bucket("voices")
        yield server


def boto(server, certificates, secret=KEYS["mouse"], key="mouse"):
    boto3 = pytest.importorskip("boto3")
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        verify=str(certificates.authority),
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def obstore_of(server, certificates, **config):
    store = pytest.importorskip("obstore.store")
    return store.S3Store(
        "voices",
        config={
            "endpoint": server.url,
            "access_key_id": "mouse",
            "secret_access_key": KEYS["mouse"],
            "region": "us-east-1",
            **config,
        },
        client_options={"root_certificate": certificates.authority.read_bytes()},
    )


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


def test_conditions_hold_even_for_writers_that_race(server, certificates):
    from botocore.exceptions import ClientError

    won, barrier = [], threading.Barrier(8)

    def write(number: int) -> None:
        s3 = boto(server, certificates)
        barrier.wait()
        try:
            s3.put_object(Bucket="voices", Key="claim", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            assert "PreconditionFailed" in str(error)
        else:
            won.append(number)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    s3 = boto(server, certificates)
    found = s3.get_object(Bucket="voices", Key="claim")
    assert found["Body"].read() == str(won[0]).encode()
    s3.put_object(Bucket="voices", Key="claim", Body=b"next", IfMatch=found["ETag"])
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="voices", Key="claim", Body=b"late", IfMatch=found["ETag"])
    server.ignores_conditions = True
    s3.put_object(Bucket="voices", Key="claim", Body=b"late", IfNoneMatch="*")


def test_obstore_with_large_objects_unsigned_payloads_and_conditions(server, certificates):
    import obstore

    store = obstore_of(server, certificates, unsigned_payload=True)
    content = os.urandom(12 << 20)
    obstore.put(store, "large", content)
    assert server.counts["part"] >= 2 and server.counts["complete"] == 1
    assert bytes(obstore.get(store, "large").bytes()) == content
    assert bytes(obstore.get_range(store, "large", start=5_000_000, end=5_000_100)) == content[5_000_000:5_000_100]
    obstore.put(store, "new", b"1", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "new", b"2", mode="create")
    assert [o["path"] for page in obstore.list(store) for o in page] == ["large", "new"]


def test_wrong_keys_are_refused_with_what_amazon_says(server, certificates):
    from botocore.exceptions import ClientError

    for client, code in (
        (boto(server, certificates, secret="wrong"), "SignatureDoesNotMatch"),
        (boto(server, certificates, key="cat"), "InvalidAccessKeyId"),
    ):
        with pytest.raises(ClientError, match=code):
            client.list_objects_v2(Bucket="voices")
    server.expired.add("mouse")
    with pytest.raises(ClientError, match="ExpiredToken"):
        boto(server, certificates).list_objects_v2(Bucket="voices")
    server.expired.clear()
    server.undeletable.add("voices")
    server.put("voices", "kept", b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        boto(server, certificates).delete_object(Bucket="voices", Key="kept")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(server.url)


def test_presigned_links_are_checked(server, certificates):
    import ssl

    server.put("voices", "a b", b"content")
    context = ssl.create_default_context(cafile=str(certificates.authority))
    link = boto(server, certificates).generate_presigned_url("get_object", Params={"Bucket": "voices", "Key": "a b"})
    assert "X-Amz" in link or "Signature" in link
    from datetime import timedelta

    import obstore

    link = obstore.sign(obstore_of(server, certificates), "GET", "a b", timedelta(seconds=60))
    assert urllib.request.urlopen(link, context=context).read() == b"content"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link.replace("a%20b", "c"), context=context)


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


def test_faults_may_be_ordered(server, certificates):
    server.before = lambda request: Answer(503) if request.method == "GET" else None
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError, match="503"):
        boto(server, certificates).list_objects_v2(Bucket="voices")


@pytest.mark.skipif(not shutil.which("s5cmd"), reason="s5cmd is not installed")
def test_s5cmd_copies_a_folder(server, certificates, tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.bin").write_bytes(os.urandom(1000))
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "mouse",
        "AWS_SECRET_ACCESS_KEY": KEYS["mouse"],
        "AWS_REGION": "us-east-1",
        "AWS_CA_BUNDLE": str(certificates.authority),
    }
    done = subprocess.run(
        ["s5cmd", "--endpoint-url", server.url, "cp", f"{tmp_path}/*", "s3://voices/copy/"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(server.buckets["voices"].keys_after("copy/", 100)) == 20
