"""The same in a bucket as in a folder: profile, rows, recordings; few requests; a failing store is no broken file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from colabkit.core.errors import ColabkitError, DataError
from colabkit.io.places import open_place
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import S3Server
from colabkit.pipelines.dataset.cut.made import TRANSCRIPT
from colabkit.pipelines.dataset.cut.recordings import find_recordings
from colabkit.pipelines.dataset.cut.step import build_segments
from colabkit.pipelines.dataset.profile.step import profile_segments
from colabkit.pipelines.dataset.segments.walk import segment_rows
from tests.pipelines.dataset.profile.test_step import fill
from tests.pipelines.dataset.segments.archives import wave_of

pytest.importorskip("obstore")


@pytest.fixture
def server(monkeypatch, tmp_path):
    with S3Server() as running:
        for name in (
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "AWS_CA_BUNDLE",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT",
            "S3_ENDPOINT_URL",
        ):
            monkeypatch.delenv(name, raising=False)
        for name, value in (
            ("AWS_ENDPOINT_URL", running.url),
            ("AWS_ACCESS_KEY_ID", "AKIALOOPBACKTEST0001"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no")),
            ("AWS_CONFIG_FILE", str(tmp_path / "no")),
        ):
            monkeypatch.setenv(name, value)
        running.make_bucket("bucket")
        yield running


def copied(folder: Path, server: S3Server, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            server.put("bucket", f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_a_profile_of_loose_files_asks_twice_a_file(server, tmp_path):
    copied(fill(tmp_path / "in", 20), server, "set/segments")
    objects = open_place("s3://bucket/set/segments")
    server.counts.clear()
    found = profile_segments(objects, listen=3)
    assert server.counts["get"] <= 2 * 20 + 3 and server.counts["list"] <= 1
    there = profile_segments(tmp_path / "in", listen=3)
    assert (found.hours, found.channels, found.listened) == (there.hours, there.channels, there.listened)
    assert [s.key for s in segment_rows(objects)] == [s.key for s in segment_rows(tmp_path / "in")]


def test_shards_are_read_in_few_requests(server, tmp_path):
    with ShardWriter(tmp_path / "in") as writer:
        for number in range(30):
            writer.add(f"C/{number:02d}", flac_bytes(wave_of(number), 24_000), ".flac", {"speaker": "s"})
    copied(tmp_path / "in", server, "shards")
    objects = open_place("s3://bucket/shards")
    server.counts.clear()
    assert [s.key for s in segment_rows(objects)] == [f"C/{n:02d}" for n in range(30)]
    assert server.counts["get"] <= 3 and server.counts["list"] <= 1
    assert profile_segments(objects, listen=0).num_files == 30


def test_a_store_that_denies_is_not_a_broken_file(server, tmp_path):
    copied(fill(tmp_path / "in", 4), server, "set")
    objects = open_place("s3://bucket/set")
    list(objects.list())
    server.before = lambda request: (
        Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        if ".npz" in request.path
        else None
    )
    told = {}
    with pytest.raises(ColabkitError) as caught:
        list(segment_rows(objects, problem=told.__setitem__))
    assert not isinstance(caught.value, DataError) and not told and "secret-of-the-tests" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")
def test_recordings_in_a_bucket_are_cut_as_those_in_a_folder(server, radio, tmp_path):
    pytest.importorskip("onnxruntime")
    copied(radio, server, "radio")
    names = {p.relative_to(radio).as_posix() for p in radio.rglob("*.flac")}
    transcript = str(radio / TRANSCRIPT)
    far = find_recordings("s3://bucket/radio", work=tmp_path / "index", transcript=transcript)
    near = find_recordings(str(radio), work=tmp_path / "index", transcript=transcript)
    assert {r.metadata["source"] for r in far} == names
    build_segments(far, tmp_path / "far")
    build_segments(near, tmp_path / "near")
    assert (tmp_path / "far" / "00000.tar").read_bytes() == (tmp_path / "near" / "00000.tar").read_bytes()
