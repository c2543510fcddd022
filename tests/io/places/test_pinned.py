"""Sources: keys are found as for stores, what was listed is what is read, and what is missing is told at opening."""

from __future__ import annotations

import pickle

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.places import Folder, Pinned, open_place
from tests.io.places.conftest import KEY, SECRET


def test_a_source_finds_its_keys_where_a_store_does(server, certificates, tmp_path, monkeypatch):
    server.put("bucket", "speech/a.wav", b"0123456789")
    monkeypatch.setenv("S3_ENDPOINT_URL", server.url)
    monkeypatch.setenv("S3_CA_BUNDLE", str(certificates.authority))
    with pytest.raises(UsageError, match="not public"):
        Pinned(open_place("s3://bucket/speech"))
    (tmp_path / ".env").write_text(f"S3_ACCESS_KEY={KEY}\nS3_SECRET_KEY={SECRET}\n")
    source = Pinned(open_place("s3://bucket/speech"))
    assert [found.name for found in source.list()] == ["a.wav"] and source.read("a.wav", 2, 5) == b"234"


def test_keys_that_every_process_finds_do_not_travel(server, certificates, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_CA_BUNDLE": str(certificates.authority),
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    server.put("bucket", "x", b"x")
    packed = pickle.dumps(Pinned(open_place("s3://bucket")))
    assert SECRET.encode() not in packed and pickle.loads(packed).read("x") == b"x"


def test_contents_are_never_mixed(any_objects):
    any_objects.put("x", b"0123456789")
    for listed in (True, False):  # from one listing on, or from the first read on
        any_objects.put("x", b"0123456789")
        source = Pinned(any_objects)
        if listed:
            source.list()
        assert source.read("x", 0, 2) == b"01"
        any_objects.put("x", b"abcdefghij")
        with pytest.raises(DataError, match="changed while it was being read"):
            source.read("x", 2, 4)
        any_objects.put("x", b"abc")
        with pytest.raises(DataError, match="shorter than the index says"):
            source.read("x", 2, 4)
        assert source.list()[0].size == 3 and source.read("x", 1, 3) == b"bc"
    any_objects.delete("x")
    with pytest.raises(DataError, match="vanished"):
        source.read("x", 1, 3)
    for name in ("../x", "/etc/hostname"):
        with pytest.raises(UsageError, match="leads out"):
            source.read(name, 0, 10)
    with pytest.raises(ValueError):
        source.read("x", 3, 1)


def test_what_is_missing_is_told_at_opening(tmp_path, profile):
    with pytest.raises(UsageError, match="no such folder"):
        Pinned(Folder(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no such bucket"):
        Pinned(open_place("s3://nowhere/x", profile=profile))
    assert Pinned(Folder(tmp_path)).is_folder
