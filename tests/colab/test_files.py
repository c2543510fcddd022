"""Tests of colabkit.colab.files and file_links: files named by a variable, names on disk, links, refusals."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from colabkit.colab import files
from colabkit.core.errors import ColabkitError


def given(monkeypatch, *paths) -> None:
    monkeypatch.setenv("COLABKIT_UPLOADS", os.pathsep.join(map(str, paths)))


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"one")
    (folder / "müsli 密.tar.gz").write_bytes(b"\x00\xff")
    (folder / "empty").write_bytes(b"")
    return folder


def test_upload_takes_what_the_variable_names(sources, monkeypatch, capsys):
    given(monkeypatch, sources / "a.txt", sources / "müsli 密.tar.gz", sources / "empty")
    assert files.upload() == {"a.txt": b"one", "müsli 密.tar.gz": b"\x00\xff", "empty": b""}
    assert capsys.readouterr().out.splitlines() == [
        f"Saving {name} to {name}" for name in ("a.txt", "müsli 密.tar.gz", "empty")
    ]
    assert Path("a.txt").read_bytes() == b"one"


def test_names_that_are_taken_get_a_number(sources, monkeypatch, capsys):
    given(monkeypatch, sources / "a.txt")
    Path("a.txt").write_text("mine")
    os.symlink("nowhere", "a (1).txt")  # taken too, though it leads nowhere
    assert files.upload() == {"a (2).txt": b"one"} and files.upload() == {"a (3).txt": b"one"}
    assert Path("a.txt").read_text() == "mine" and not Path("nowhere").exists()
    assert "Saving a.txt to a (2).txt\n" in capsys.readouterr().out


def test_the_same_name_twice_in_one_upload(sources, monkeypatch):
    (sources / "other").mkdir()
    (sources / "other" / "a.txt").write_bytes(b"two")
    given(monkeypatch, sources / "a.txt", sources / "other" / "a.txt")
    assert files.upload() == {"a.txt": b"one", "a (1).txt": b"two"}


@pytest.mark.parametrize("as_path", [False, True])
def test_a_target_folder_is_made(sources, monkeypatch, tmp_path, as_path):
    given(monkeypatch, sources / "a.txt")
    target = tmp_path / "new" / "deep"
    assert files.upload(target if as_path else str(target)) == {str(target / "a.txt"): b"one"}
    assert (target / "a.txt").read_bytes() == b"one"


def test_upload_file_writes_over_and_says_where(sources, monkeypatch, capsys):
    given(monkeypatch, sources / "a.txt")
    Path("here.txt").write_text("old and longer")
    assert files.upload_file("here.txt") is None
    assert Path("here.txt").read_bytes() == b"one"
    assert capsys.readouterr().out == f"Saved a.txt to {os.getcwd()}/here.txt\n"


def test_upload_file_wants_exactly_one(sources, monkeypatch):
    given(monkeypatch, sources / "a.txt", sources / "empty")
    with pytest.raises(ValueError, match="Multiple files received"):
        files.upload_file("x")
    given(monkeypatch, " ", "")
    with pytest.raises(ValueError, match="File has not been uploaded"):
        files.upload_file("x")
    assert not os.path.exists("x")


@pytest.mark.parametrize(
    "call", [lambda: files.upload(), lambda: files.upload_file("x")], ids=["upload", "upload_file"]
)
def test_headless_without_the_variable_says_how(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert "COLABKIT_UPLOADS" in str(caught.value) and isinstance(caught.value, ColabkitError)


def test_what_is_named_must_be_files(sources, monkeypatch):
    for path in (sources / "missing", sources):
        given(monkeypatch, sources / "a.txt", path)
        with pytest.raises(FileNotFoundError, match="Cannot find file"):
            files.upload()
    assert not Path("a.txt").exists(), "all or nothing"


def test_download_and_view_print_the_path_headless(capsys):
    Path("x.txt").write_text("x")
    files.download("x.txt")
    files.view("x.txt")
    files.view(".")
    assert capsys.readouterr().out.splitlines() == [os.path.abspath("x.txt")] * 2 + [os.getcwd()]


def test_download_refuses_what_it_cannot_send(tmp_path):
    for call in (files.download, files.view):
        with pytest.raises(FileNotFoundError, match="^Cannot find file: no.txt"):
            call("no.txt")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(IsADirectoryError, match="make_archive"):
            files.download(path)
