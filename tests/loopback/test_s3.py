"""The loopback S3 as boto3, obstore and s5cmd see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

import pytest

from colabkit.loopback.messages import Answer
from tests.loopback.conftest import KEYS, boto, obstore_of


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
