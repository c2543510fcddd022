"""The store on a real S3 on loopback with TLS: shards, uploads' manifests, no needless requests, faults on the way."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.io.places import S3Profile, open_place
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.io.transfer.manifest import make_manifest, write_manifest
from colabkit.loopback.certificates import make_certificates
from colabkit.loopback.s3 import S3Server
from colabkit.pipelines.dataset.encode.job import encode
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.read import read_segment
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.store.codes import codes_of
from colabkit.pipelines.dataset.store.commit import read_codes
from tests.pipelines.dataset.encode.small_codec import SmallCodec, codes_for, make_wave
from tests.servers.faults import FaultProxy
from tests.told import Told


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(certificates):
    with S3Server(tls=certificates.server_context()) as running:
        running.asked = []
        running.before = lambda request: running.asked.append((request.method, request.path))
        yield running


def opened(server, certificates, url: str = ""):
    return open_place(
        "s3://bucket/data",
        profile=S3Profile(
            bucket="bucket",
            endpoint=url or server.url,
            region="us-east-1",
            access_key="a",
            secret_key="b",
            ca_bundle=str(certificates.authority),
        ),
    )


def work(objects, scratch, **settings):
    told = Told()
    settings = {
        "quota_bytes": 8 << 20,
        "piece_bytes": 512 << 10,
        "read_segment": read_segment,
        "write_npz": write_npz,
        "teller": told,
        "num_downloads": 8,
    } | settings
    return encode(objects.below("segments"), objects, SmallCodec(), scratch=scratch, **settings), told.problems


def codes(objects):
    return {
        key: codes_of(table, i) for _, table in read_codes(objects) for i, key in enumerate(table["key"].to_pylist())
    }


def put_segments(server, number: int, **names) -> dict[str, np.ndarray]:
    expected = {}
    for i in range(number):
        wave = make_wave(i, 4000 + 800 * (i % 9))
        content = write_npz(Segment(key="", wave=wave, rate_hz=16_000, speaker="s"))
        server.put("bucket", f"data/segments/c{i % 2}/{i:04d}.npz", content)
        expected[f"c{i % 2}/{i:04d}"] = codes_for(wave)
    return expected


def same(found, expected):
    return found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in found)


def test_nothing_to_do_takes_two_requests_where_the_upload_has_left_a_manifest(server, certificates, tmp_path):
    expected = put_segments(server, 60)
    objects = opened(server, certificates)
    listed = list(objects.below("segments").list())
    write_manifest(
        objects.below("segments"),
        None,
        make_manifest(
            [o.name for o in listed], [o.size for o in listed], [0] * 60, [-1] * 60, [o.version for o in listed]
        ),
    )
    done, problems = work(objects, tmp_path / "a")
    assert done.is_finished and not problems and same(codes(objects), expected)
    assert len(server.asked) > 60
    server.asked.clear()
    again, _ = work(objects, tmp_path / "b")
    assert again.is_finished and again.num_encoded == 0 and again.num_done == 60
    assert len(server.asked) == 2, server.asked


def test_shards_are_read_by_few_large_ranges(server, certificates, tmp_path):
    expected = {}
    with ShardWriter(tmp_path / "shards", shard_bytes=400_000) as writer:
        for i in range(120):
            wave = make_wave(i, 4000 + 800 * (i % 9))
            writer.add(
                f"seg-{i:03d}",
                flac_bytes(wave, 16_000),
                ".flac",
                {"speaker": f"s{i % 3}", "channel": "c", "text": "نص"},
            )
            expected[f"seg-{i:03d}"] = codes_for(wave)
    for path in (tmp_path / "shards").iterdir():
        server.put("bucket", f"data/segments/{path.name}", path.read_bytes())
    objects = opened(server, certificates)
    done, problems = work(objects, tmp_path / "scratch")
    assert done.is_finished and not problems and same(codes(objects), expected)
    reads = [path for method, path in server.asked if method == "GET" and path.endswith(".tar")]
    assert len(writer.shards) <= len(reads) <= 20, reads
    row = next(read_codes(objects))[1].to_pylist()[5]
    entry = next(e for e in writer.entries if e.key == row["key"])
    assert (row["object"], row["offset"], row["length"], row["crc32"]) == (
        f"{entry.shard:05d}.tar",
        entry.offset,
        entry.length,
        entry.crc32,
    )
    assert row["speaker"] == entry.columns["speaker"] and row["text"] == "نص" and row["channel"] == "c"


def test_other_rates_are_resampled_to_the_frames_that_were_planned(server, certificates, tmp_path):
    shapes = [(24_000, 24_001), (44_100, 50_000), (8_000, 7_999), (16_000, 16_000), (48_000, 1)]
    for i, (rate_hz, num_samples) in enumerate(shapes):
        wave = make_wave(i, num_samples)
        server.put("bucket", f"data/segments/{i}.npz", write_npz(Segment(key="", wave=wave, rate_hz=rate_hz)))
    objects = opened(server, certificates)
    done, problems = work(objects, tmp_path / "scratch")
    assert done.num_encoded == 5 and not problems
    rows = [row for _, table in read_codes(objects) for row in table.to_pylist()]
    assert [row["num_frames"] for row in rows] == [51, 57, 50, 50, 1] and rows[1]["rate_hz"] == 44_100
    assert rows[0]["num_samples"] == 24_001 and rows[0]["seconds"] == pytest.approx(24_001 / 24_000)


def test_faults_on_the_way_change_nothing(certificates, tmp_path):
    with (
        S3Server() as server,
        FaultProxy(
            server.url, resets=0.03, truncations=0.03, refusals=0.05, tls=certificates.server_context()
        ) as proxy,
    ):
        expected = put_segments(server, 80)
        objects = opened(server, certificates, proxy.url)
        done, problems = work(objects, tmp_path / "scratch", output_format="npz")
        assert done.is_finished and not problems and same(codes(objects), expected)
        assert proxy.counts["resets"] and proxy.counts["truncations"] and proxy.counts["429"] + proxy.counts["503"]
        full = read_segment(objects.get("encoded/c1/0007.npz"), "c1/0007.npz")
        assert np.array_equal(full.codes, expected["c1/0007"]) and full.speaker == "s"


def test_bytes_that_are_not_those_that_were_uploaded_are_left_aside(server, certificates, tmp_path):
    expected = put_segments(server, 30)
    objects = opened(server, certificates)
    listed = list(objects.below("segments").list())
    write_manifest(
        objects.below("segments"),
        None,
        make_manifest(
            [o.name for o in listed],
            [o.size for o in listed],
            [0] * 30,
            [12345] + [-1] * 29,
            [o.version for o in listed],
        ),
    )
    done, problems = work(objects, tmp_path / "scratch")
    key = listed[0].name.removesuffix(".npz")
    assert done.num_left_aside == 1 and "not those that were uploaded" in problems[key]
    del expected[key]
    assert same(codes(objects), expected)
