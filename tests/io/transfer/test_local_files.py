"""Files of a folder: the same by one process and by several, links, names that are no text, what is hidden."""

from __future__ import annotations

import os

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.transfer import local_files
from tests.io.places.conftest import write_files

SIZES = {"a/1": 3, "a/2": 0, "a/b/ü": 5, "c 3": 7, **{f"many/{number}": number for number in range(50)}}


def as_dict(files):
    rows = zip(files.names.to_pylist(), files.sizes.tolist(), files.mtimes_ns.tolist(), strict=True)
    return {name: (size, time) for name, size, time in rows}


def test_several_processes_see_what_one_sees(tmp_path, monkeypatch):
    folder = write_files(tmp_path / "f", {**SIZES, ".hidden": 1, "a/.hidden/x": 1})
    (folder / "link").symlink_to(folder / "a")
    (folder / "a" / "up").symlink_to(folder)  # round and round
    (folder / "nowhere").symlink_to(folder / "not there")
    os.mkfifo(folder / "pipe")
    expected = {name: (size, os.stat(folder / name).st_mtime_ns) for name, size in SIZES.items()}
    alone = as_dict(local_files.scan_folder(folder))
    assert {name: value for name, value in alone.items() if not name.startswith("link/")} in (
        # one of the two ways to the same folder
        expected,
        {n: v for n, v in expected.items() if not n.startswith("a/")},
    )
    assert len({os.path.realpath(folder / name) for name in alone}) == len(alone) == len(SIZES)
    monkeypatch.setattr(local_files, "_ALONE", 10)
    together = as_dict(local_files.scan_folder(folder))
    assert together == alone


def test_it_falls_back_where_processes_cannot_be_started(tmp_path, monkeypatch):
    folder = write_files(tmp_path / "f", SIZES)
    monkeypatch.setattr(local_files, "_ALONE", 10)
    monkeypatch.setattr(local_files.sys, "executable", "/bin/false")
    assert len(local_files.scan_folder(folder)) == len(SIZES)


def test_what_cannot_be_used(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        local_files.scan_folder(tmp_path / "nowhere")
    assert len(local_files.scan_folder(tmp_path)) == 0
    with open(os.fsencode(tmp_path) + b"/\xff.npz", "wb"):
        pass
    with pytest.raises(DataError, match="not valid UTF-8"):
        local_files.scan_folder(tmp_path)
