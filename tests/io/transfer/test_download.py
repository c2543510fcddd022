"""Objects into a folder: skipped, checked, within a quota, and never a part of a file under its name."""

from __future__ import annotations

import os

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.transfer import manifest as manifests
from colabkit.io.transfer.download import download
from colabkit.io.transfer.upload import upload_folder
from colabkit.loopback.messages import Answer
from tests.io.places.conftest import write_files

FILES = {"A/1.npz": 1000, "A/2.npz": 2000, "B/3.npz": 0, "B/deep/ü 4.npz": 4000}


@pytest.fixture
def source(tmp_path, objects):
    folder = write_files(tmp_path / "source", FILES)
    upload_folder(folder, objects)
    return folder


def same(one, two) -> bool:
    return all((two / name).read_bytes() == (one / name).read_bytes() for name in FILES)


def test_all_comes_once(source, objects, server, tmp_path):
    target = tmp_path / "deep" / "target"
    assert download(objects, target, dry_run=True).num_left == 4 and not target.exists()
    done = download(objects, target)
    assert (done.num_fetched, done.num_bytes) == (4, sum(FILES.values())) and same(source, target)
    assert os.stat(target / "A/1.npz").st_mtime_ns == os.stat(source / "A/1.npz").st_mtime_ns
    server.counts.clear()
    again = download(objects, target)
    assert (again.num_fetched, again.num_skipped) == (0, 4) and dict(server.counts) == {"get": 1}
    (target / "A/1.npz").write_bytes(b"x" * 1000)
    assert download(objects, target).num_fetched == 1 and same(source, target)
    assert upload_folder(target, objects).num_sent == 0  # the times came with the files
    assert "fetched" in str(done.table())


def test_without_a_manifest(source, objects, tmp_path):
    objects.delete(manifests.NAME)
    assert download(objects, tmp_path / "target").num_fetched == 4 and same(source, tmp_path / "target")
    assert download(objects, tmp_path / "target").num_fetched == 0


def test_filters(source, objects, tmp_path):
    assert download(objects, tmp_path / "b", channels=["B"]).num_fetched == 2 and not (tmp_path / "b" / "A").exists()
    assert download(objects, tmp_path / "one", limit=1).num_fetched == 1 and (tmp_path / "one" / "A/1.npz").exists()
    assert (
        download(
            objects, tmp_path / "other", channel_of=lambda name: "deep" if "deep" in name else "", channels=["deep"]
        ).num_fetched
        == 1
    )


def test_what_does_not_fit_is_not_begun(source, objects, server, tmp_path):
    server.counts.clear()
    with pytest.raises(UsageError, match="quota"):
        download(objects, tmp_path / "target", quota_bytes=6999)
    assert server.counts["get"] == 1 and not (tmp_path / "target").exists()
    assert download(objects, tmp_path / "target", quota_bytes=7000).num_fetched == 4
    (tmp_path / "target" / "A/1.npz").unlink()
    (tmp_path / "target" / "more").write_bytes(b"x")
    with pytest.raises(UsageError, match="quota"):
        download(objects, tmp_path / "target", quota_bytes=7000)


def test_what_changed_or_broke_is_told_and_nothing_half_stays(source, objects, server, tmp_path):
    objects.put("A/1.npz", b"y" * 1000)
    cut = server.buckets["bucket"].find("some/prefix/A/2.npz")
    etag = f'"{objects.find("A/2.npz").version}"'

    def before(request):
        if request.method == "GET" and request.path.endswith("2.npz"):
            return Answer(200, {"ETag": etag, "Last-Modified": "Sat, 21 Nov 2026 00:00:00 GMT"}, b"z" * 2000)
        return None

    server.before = before
    target = tmp_path / "target"
    with pytest.raises(DataError, match="2 of 4 could not be downloaded") as caught:
        download(objects, target)
    assert "changed since" in str(caught.value) and "checksum" in str(caught.value) and cut is not None
    left = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert left == {"B/3.npz", "B/deep/ü 4.npz"}
    server.before = None
    with pytest.raises(DataError, match="1 of 4"):
        download(objects, target)
    assert (target / "A/2.npz").read_bytes() == (source / "A/2.npz").read_bytes()


def test_names_that_lead_out_are_refused(objects, tmp_path):
    rows = manifests.make_manifest(["../../outside"], [1], [1], [-1], ["v"])
    objects.put(manifests.NAME, manifests.to_bytes(rows))
    with pytest.raises(DataError, match="cannot be used"):
        download(objects, tmp_path / "target")
    assert not (tmp_path / "outside").exists()
    objects.put(manifests.NAME, b"no parquet")
    with pytest.raises(DataError, match="Cannot read the manifest"):
        download(objects, tmp_path / "target")
