"""The command `store`: look, upload and download, as they are typed."""

from __future__ import annotations

import argparse

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.transfer.command import add_command


def call(*words: object) -> None:
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers(required=True))
    options = parser.parse_args(["store", *map(str, words)])
    options.command(options)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(3):
        (folder / f"Radio_{number:04d}.npz").write_bytes(b"%d" % number)
    (folder / "News_0000.npz").write_bytes(b"news")
    return folder


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.npz"))


def test_looking_tells_what_is_honoured_and_how_it_is_reached(tmp_path, profile, monkeypatch, capsys):
    call("look", tmp_path)
    told = capsys.readouterr().out
    assert f"what {tmp_path} honours" in told and "put only if absent" in told and "is reached" not in told
    for name, value in {
        "AWS_ENDPOINT_URL": profile.endpoint,
        "AWS_ACCESS_KEY_ID": profile.access_key,
        "AWS_SECRET_ACCESS_KEY": profile.secret_key,
        "AWS_CA_BUNDLE": profile.ca_bundle,
    }.items():
        monkeypatch.setenv(name, value)
    call("look", "s3://bucket/x")
    told = capsys.readouterr().out
    assert "how s3://bucket is reached" in told and "AWS_ENDPOINT_URL" in told and "honours" in told
    assert profile.secret_key not in told and profile.access_key not in told


def test_there_and_back(source, tmp_path, capsys):
    call("upload", source, tmp_path / "store", "--dry-run")
    assert not (tmp_path / "store").exists()
    call("upload", source, tmp_path / "store", "--workers", 2)
    call("download", tmp_path / "store", tmp_path / "back", "--quota-gib", 1)
    assert names(tmp_path / "back") == names(source) == names(tmp_path / "store")
    (tmp_path / "back" / "Radio_0001.npz").unlink()
    capsys.readouterr()
    call("download", tmp_path / "store", tmp_path / "back")
    assert names(tmp_path / "back") == names(source) and "1" in capsys.readouterr().out


def test_choices(source, tmp_path):
    call("upload", source, tmp_path / "store", "--channel", "News", "--channel", "Radio", "--limit", 3)
    assert len(names(tmp_path / "store")) == 3
    call("upload", source, tmp_path / "other", "--channel", "News")
    assert names(tmp_path / "other") == ["News_0000.npz"]
    stored = tmp_path / "other" / "News_0000.npz"
    before = stored.stat().st_mtime_ns
    call("upload", source, tmp_path / "other", "--channel", "News")
    assert stored.stat().st_mtime_ns == before
    call("upload", source, tmp_path / "other", "--channel", "News", "--again")
    assert stored.stat().st_mtime_ns > before


def test_what_cannot_be_is_told(source, tmp_path, capsys):
    with pytest.raises(UsageError, match="no such folder|no folder"):
        call("upload", tmp_path / "absent", tmp_path / "store")
    for words in (("upload", source), ("download", "s3://b", source, "--quota-gib", "much"), ()):
        with pytest.raises(SystemExit):
            call(*words)
    assert "usage" in capsys.readouterr().err
